"""The kernel side of `locum run`: `bpf/uses.bpf.c` at a control group of each command.

The programs are attached to the control group itself, not by a link, and its maps are pinned: both outlive the daemon.
"""

import os
import struct
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path

from locum.dataplane.kernel.libbpf import checked, library
from locum.dataplane.kernel.loading import Object

OBJECT = Path(__file__).parents[1] / "objects" / "uses.bpf.o"
_TABLES = ("uses_resolvers", "uses_asked")
_ALLOW_MULTI = 2  # BPF_F_ALLOW_MULTI
# Types of attachment (enum bpf_attach_type) and the programs for them
_CREATE, _CONNECT4, _SENDMSG4, _RECVMSG4, _GETPEERNAME4 = 2, 10, 14, 19, 29
_HOME, _AROUND = 0, 1


class Marking:
    """Programs that mark sockets of control groups. Raises DataPlaneError where the kernel forbids it."""

    def __init__(self, pins: Path, path: Path = OBJECT) -> None:
        """`pins` is a directory of a bpf file system for the maps, which is made."""
        self._pins = pins
        pins.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._object = Object(path, {}, pins, needed=_TABLES)

    def attach(self, group: Path, *, around: bool) -> None:
        """Mark sockets that are made in this control group from now on, and below it. Raises DataPlaneError or OSError."""
        side = "around" if around else "home"
        descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for kind, program in (
                (_CREATE, f"{side}_create"),
                (_CONNECT4, f"{side}_connect"),
                (_SENDMSG4, f"{side}_sendmsg"),
                (_RECVMSG4, "any_recvmsg"),
                (_GETPEERNAME4, "any_getpeername"),
            ):
                handle = self._object.program(program)
                result = library().bpf_prog_attach(handle, descriptor, kind, _ALLOW_MULTI)
                checked(result, f"control group {group}")
        finally:
            os.close(descriptor)

    def resolve(self, *, home: IPv4Address | None, around: IPv4Address | None) -> None:
        """Ask these resolvers for the names that programs of each side want; None: as the programs say."""
        for side, resolver in ((_HOME, home), (_AROUND, around)):
            value = b"\0" * 4 if resolver is None else resolver.packed
            self._object.maps["uses_resolvers"].put(struct.pack("=I", side), value)

    def close(self) -> None:
        """Leave the programs where they are attached."""
        self._object.close()

    def remove(self) -> None:
        """Remove the pins too."""
        self.close()
        for name in _TABLES:
            (self._pins / name).unlink(missing_ok=True)
        self._pins.rmdir()
        with suppress(OSError):  # of the last node
            self._pins.parent.rmdir()
