"""Identity of this host's boot: sockets and frozen programs of an earlier one are gone."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """A random name that the kernel makes anew at every boot (random(4))."""
    return _BOOT_ID.read_text().strip()
