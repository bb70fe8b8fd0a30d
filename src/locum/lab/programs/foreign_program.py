"""A program of somebody else on an interface: it goes before all others, and returns "pass", so that they see no packet.

Run inside a node's namespace: `python -m locum.lab.programs.foreign_program INTERFACE`. It prints a line when it is
attached in both directions, and stays until it is ended. Its two instructions are written here, and it attaches itself
without any of Locum's code.
"""

import ctypes
import os
import signal
import socket
import struct
import sys

_SCHED_CLS = 3
_INGRESS, _EGRESS = 46, 47
_LINK_CREATE, _BEFORE = 28, 1 << 3
_MOVE, _EXIT = 0xB7, 0x95
_PASS = 0  # TCX_PASS: later programs are not asked
_INSTRUCTIONS = struct.pack("=BBhiBBhi", _MOVE, 0, 0, _PASS, _EXIT, 0, 0, 0)
_SYSCALLS = {"x86_64": 321}
_GENERIC = 280


def load(name: bytes) -> int:
    """The file descriptor of a loaded program that passes every packet. Raises OSError."""
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    fd = int(library.bpf_prog_load(_SCHED_CLS, name, b"GPL", _INSTRUCTIONS, 2, None))
    if fd < 0:
        raise OSError(-fd, os.strerror(-fd))
    return fd


def attach_first(program: int, interface: int, place: int) -> int:
    """A link of the program, before all others of the interface. Raises OSError."""
    library = ctypes.CDLL(None, use_errno=True)
    attributes = struct.pack("=IIIIIxxxxQ", program, interface, place, _BEFORE, 0, 0)
    number = _SYSCALLS.get(os.uname().machine, _GENERIC)
    link = int(library.syscall(number, _LINK_CREATE, attributes, len(attributes)))
    if link < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return link


def main(interface: str) -> None:
    """Attach in both directions, and wait for a signal."""
    index = socket.if_nametoindex(interface)
    for name, place in ((b"foreign_in", _INGRESS), (b"foreign_out", _EGRESS)):
        attach_first(load(name), index, place)
    print("attached", flush=True)
    signal.pause()


if __name__ == "__main__":
    main(sys.argv[1])
