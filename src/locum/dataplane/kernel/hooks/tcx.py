"""Links of tcx: the place of a program among those of an interface (BPF_LINK_CREATE and BPF_PROG_QUERY of bpf(2)).

libbpf knows places from 1.3 on; the system call is made here, so that the libbpf of Debian 12 is enough.
"""

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

from locum.dataplane.kernel.libbpf import DataPlaneError, checked, library

INGRESS, EGRESS = 46, 47  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_PROG_QUERY, _LINK_CREATE = 16, 28
_BEFORE = 1 << 3  # BPF_F_BEFORE; before nothing in particular is before all
_MOST = 64  # programs of one place: BPF_MPROG_MAX
_CREATE = struct.Struct("=IIII" + "IxxxxQ" + "32x")
_QUERY = struct.Struct("=IIII" + "QIxxxx" + "QQQQ")
_SYSCALLS = {"x86_64": 321, "i686": 357, "armv7l": 386, "ppc64le": 361, "s390x": 351}
_GENERIC = 280  # aarch64, riscv64, loongarch64
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Attached:
    """One program of an interface. `link` is 0 for one that was attached without a link."""

    program: int
    link: int


def create_first(program: int, ifindex: int, kind: int) -> int | None:
    """A link of the program, before all others of the interface; None where the kernel has no tcx (before Linux 6.6)."""
    result = _bpf(_LINK_CREATE, bytearray(_CREATE.pack(program, ifindex, kind, _BEFORE, 0, 0)))
    if result < 0 and ctypes.get_errno() in (errno.EINVAL, errno.EOPNOTSUPP):
        return None
    if result < 0:
        raise DataPlaneError(f"attach to interface {ifindex}: {os.strerror(ctypes.get_errno())}")
    return result


def order(ifindex: int, kind: int) -> list[Attached]:
    """The programs of an interface, the first first; none when it is gone. Raises DataPlaneError."""
    programs, links = (ctypes.c_uint32 * _MOST)(), (ctypes.c_uint32 * _MOST)()
    request = bytearray(
        _QUERY.pack(ifindex, kind, 0, 0, ctypes.addressof(programs), _MOST, 0, ctypes.addressof(links), 0, 0)
    )
    if _bpf(_PROG_QUERY, request) < 0:
        number = ctypes.get_errno()
        if number in (errno.ENODEV, errno.ENOENT):
            return []
        raise DataPlaneError(f"programs of interface {ifindex}: {os.strerror(number)}")
    count = _QUERY.unpack(request)[5]
    return [Attached(programs[i], links[i]) for i in range(min(count, _MOST))]


def link_identifier(fd: int) -> int:
    """The kernel's number of a link."""
    return _info(fd, 32)[1]


def detach(link: int) -> None:
    """Take the program of a link off its interface at once; an open link stays, and is of no use."""
    checked(library().bpf_link_detach(link), "detach a link")


def program_name(identifier: int) -> str:
    """Name of a loaded program, at most 15 bytes; empty when it is gone."""
    fd = library().bpf_prog_get_fd_by_id(identifier)
    if fd < 0:
        return ""
    try:
        return bytes(_info(fd, 64))[64:80].split(b"\0")[0].decode(errors="replace")
    finally:
        os.close(fd)


def _info(fd: int, words: int) -> "ctypes.Array[ctypes.c_uint32]":
    info = (ctypes.c_uint32 * words)()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    checked(library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)), "information")
    return info


def _bpf(command: int, attributes: bytearray) -> int:
    number = _SYSCALLS.get(platform.machine(), _GENERIC)
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    return int(_libc.syscall(number, command, ctypes.byref(buffer), len(attributes)))
