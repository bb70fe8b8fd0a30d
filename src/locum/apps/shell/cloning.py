"""Makes a process that is a sibling of this one: a child of this one's parent, which waits for it and learns its end.

`os.fork` cannot; the system call can (clone(2), CLONE_PARENT). It is called as CPython calls fork: between `PyOS_BeforeFork` and
`PyOS_AfterFork_*`, which renew locks and run what modules have asked for (`os.register_at_fork`; `random` reseeds itself so). The
C library learns nothing of it, so that this process must have one thread.
"""

import ctypes
import errno
import os
import platform
import signal

_CLONE_PARENT = 0x8000
_NUMBERS = {"x86_64": 56, "aarch64": 220, "riscv64": 220}
"""Of clone(2), on machines on which the flags are its first argument."""


def obstacle() -> str:
    """Why this process cannot be copied well; empty if it can.

    A copy has no other threads and no children, and would share descriptors and memory with all other copies.
    """
    if platform.machine() not in _NUMBERS:
        return f"no way is known to fork a sibling on {platform.machine()}"
    if len(os.listdir("/proc/self/task")) > 1:
        return "it has started threads"
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return "it has started processes"
    except ChildProcessError:
        pass
    if descriptors():
        return "it has opened files"
    with open("/proc/self/maps") as maps:
        if any(line.split()[1][1::2] == "ws" for line in maps):
            return "it has shared memory"
    return ""


def descriptors() -> list[int]:
    """Open descriptors besides those that a fork server begins with."""
    found = os.listdir("/proc/self/fd")  # with one of its own, which is closed now
    return [int(name) for name in found if int(name) > 3 and os.path.lexists(f"/proc/self/fd/{name}")]


def clone() -> int:
    """Like `os.fork`: the sibling's process number, or 0 in the sibling. Raises OSError."""
    python, library = ctypes.pythonapi, ctypes.PyDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    nothing = ctypes.c_void_p(0)
    flags = ctypes.c_ulong(_CLONE_PARENT | signal.SIGCHLD)
    ctypes.set_errno(errno.EAGAIN)
    python.PyOS_BeforeFork()
    number = int(
        library.syscall(
            ctypes.c_long(_NUMBERS[platform.machine()]), flags, nothing, nothing, nothing, nothing
        )
    )
    if number == 0:
        python.PyOS_AfterFork_Child()
        return 0
    python.PyOS_AfterFork_Parent()
    if number < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return number
