"""Sysctls that a node changes, each recorded as it was found in a pinned map, so that `restore` works after the daemon died.

Several nodes of a namespace may need one setting. The node that changed it hands its record to another when it is removed
(`bequeath`), and the last one restores the value that the first one found.
"""

import errno
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path

from locum.dataplane.kernel.libbpf import NOEXIST, DataPlaneError, Map

ROOT = Path("/proc/sys")
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")
_MOST = 256  # interfaces of each family that are recorded, of the table's 1024 entries
_OWN_DEVICES = ("lc-", "lr-", "lp-")  # of nodes: they go with the node
_VIRTUAL = (
    "veth",
    "cali",
    "lxc",
    "tap",
)  # of containers: a host has few other interfaces, and those come first
_CONF = ("net/ipv4/conf", "net/ipv6/conf")


class Sysctls:
    """Sysctls that this node changed."""

    def __init__(self, found: Map) -> None:
        self._found = found
        self._wanted: dict[str, str] = {}
        self._loose: set[str] = set()  # interfaces without a strict reverse path filter

    def set(self, name: str, value: str) -> None:
        """`name` as "net/ipv4/ip_forward". One that the kernel does not have is left out."""
        try:
            now = _read(name)
            self._wanted[name] = value
            if now != value:
                self._record(name, now)
                (ROOT / name).write_text(value)
        except FileNotFoundError:
            self._wanted.pop(name, None)
        except OSError as error:
            raise DataPlaneError(f"sysctl {name.replace('/', '.')}: {error.strerror}") from error

    def _record(self, name: str, value: str) -> None:
        put_record(self._found, name, value)

    def lost(self) -> Iterator[str]:
        """Names of sysctls that another program has changed since they were set."""
        for interface in tuple(self._loose):
            self._wanted[f"net/ipv4/conf/{interface}/rp_filter"] = _loose_filter()
        for name, value in tuple(self._wanted.items()):
            try:
                now = _read(name)
            except OSError:  # the interface is gone, or back and not yet attached
                continue
            if now != value and not _declined(name, now):
                yield name

    def again(self, name: str) -> bool:
        """Set it once more; true if that was necessary. Raises DataPlaneError."""
        value = self._wanted.get(name)
        if value is None or _read(name) == value:
            return False
        self.set(name, value)
        return True

    def restore(self, *, spare: Callable[[str], bool] = lambda _name: False) -> None:
        """Restore every found value, but for names that `spare` is true of."""
        self._wanted.clear()
        self._loose.clear()
        for name, value in self._recorded():
            if not spare(name):
                self._restore(name, value)
            self._forget(name)

    def release(self, interface: str) -> None:
        """Restore the settings of an interface that has no programs any more; one that is gone has none."""
        self._loose.discard(interface)
        here = f"/{interface}/"
        for name in [name for name in self._wanted if here in name and _of_programs(name)]:
            del self._wanted[name]
        for name, value in self._recorded():
            there = (ROOT / name).exists()
            if here in name and (not there or _of_programs(name)):
                self._restore(name, value)
                self._forget(name)

    def _restore(self, name: str, value: str) -> None:
        if (ROOT / name).exists() and not _declined(name, _read(name)):
            (ROOT / name).write_text(value)

    def _forget(self, name: str) -> None:
        self._found.delete(name.encode().ljust(96, b"\x00"))

    def bequeath(self, heir: Map, interfaces: Collection[str]) -> None:
        """Give the records of settings that another node needs to its map; its programs are on these interfaces."""
        for name, value in self._recorded():
            if shared(name, interfaces) and (ROOT / name).exists():
                put_record(heir, name, value)
                self._forget(name)

    def _recorded(self) -> list[tuple[str, str]]:
        """Names and found values in the order of restoring: a setting of all interfaces changes those of each."""
        entries = [
            (key.rstrip(b"\x00").decode(), value.rstrip(b"\x00").decode())
            for key, value in self._found.items()
        ]
        return sorted(entries, key=lambda entry: "/all/" not in entry[0] and "ip_forward" not in entry[0])

    def loosen(self, interface: str) -> None:
        """No reverse path filter (tunnelled packets arrive from anywhere), no redirects."""
        self._loose.add(interface)
        self.set(f"net/ipv4/conf/{interface}/rp_filter", _loose_filter())
        self.set(f"net/ipv4/conf/{interface}/send_redirects", "0")

    def forward(self) -> None:
        """Make the host a router. It goes on to accept router advertisements where it did as a host (accept_ra=2).

        The kernel removes the default routes learnt from them when forwarding begins, and ignores later ones.
        """
        for name in islice(self._hosts_conf(), _MOST):
            self.set(name, "2")
        for name in _FORWARDING:
            self._remember_each(name)
            self.set(name, "1")

    def _hosts_conf(self) -> Iterator[str]:
        """The `accept_ra` of each interface that accepts advertisements as a host, or did when it was found."""
        recorded = {name for name, _ in self._recorded()}
        for conf in _interfaces(_CONF[1]):
            name = f"{conf}/accept_ra"
            try:
                host = _read(name) == "1" and _read(f"{conf}/forwarding") == "0"
            except OSError:
                continue
            interface = conf.rpartition("/")[2]
            if interface != "all" and not interface.startswith(_OWN_DEVICES) and (host or name in recorded):
                yield name

    def _remember_each(self, name: str) -> None:
        """Record interfaces that forward already: setting all of them back would end that."""
        conf = _CONF["ipv6" in name]
        try:
            if _read(name) != "0":
                return
            for interface in islice(_interfaces(conf), _MOST):
                if not interface.endswith("/all") and _read(f"{interface}/forwarding") == "1":
                    self._record(f"{interface}/forwarding", "1")
        except OSError:
            return


def put_record(records: Map, name: str, found: str) -> None:
    """Record the found value of a sysctl, unless there is a record of it."""
    records.put(name.encode().ljust(96, b"\x00"), found.encode().ljust(32, b"\x00"), NOEXIST)


def _declined(name: str, value: str) -> bool:
    """True if another program has switched off router advertisements since: systemd-networkd reads them itself."""
    return name.endswith("/accept_ra") and value == "0" and not name.split("/")[-2].startswith(_OWN_DEVICES)


def _of_programs(name: str) -> bool:
    """True if a setting is needed by the programs on its interface alone."""
    return name.rpartition("/")[2] in ("rp_filter", "send_redirects", "accept_local")


def shared(name: str, interfaces: Collection[str]) -> bool:
    """True if a node with its programs on these interfaces needs this setting, too."""
    interface = name.split("/")[-2]
    return interface in interfaces if _of_programs(name) else not interface.startswith(_OWN_DEVICES)


def _loose_filter() -> str:
    """The kernel uses the larger value of that of all interfaces and that of one: 1 is strict, 2 is loose."""
    return "2" if _read("net/ipv4/conf/all/rp_filter") != "0" else "0"


def _read(name: str) -> str:
    return (ROOT / name).read_text().strip()


def _interfaces(conf: str) -> list[str]:
    """The directories of all interfaces below `conf`, with "all" and "default"; none without the protocol."""
    try:
        names = sorted(path.name for path in (ROOT / conf).iterdir())
        return [f"{conf}/{name}" for name in sorted(names, key=lambda name: name.startswith(_VIRTUAL))]
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        return []
