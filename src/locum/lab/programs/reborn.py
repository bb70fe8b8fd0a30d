"""Starts a program under a process number of one's choice, as chance does after a reboot: `python -m locum.lab.programs.reborn PID COMMAND ...`.

clone3(2) with `set_tid`, which needs CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. The program's parent says on standard output
"born", or why it could not be, and ends with the program.
"""

import ctypes
import os
import signal
import struct
import sys

_CLONE3 = 435


def born(pid: int, command: list[str]) -> int:
    """Start a command as process `pid`. Raises OSError when the number is taken or may not be chosen."""
    libc = ctypes.CDLL(None, use_errno=True)
    wanted = ctypes.c_int(pid)
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    arguments = struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, ctypes.addressof(wanted), 1, 0)
    child = libc.syscall(_CLONE3, arguments, len(arguments))
    if child < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if child == 0:
        os.execvp(command[0], command)
    return int(child)


if __name__ == "__main__":
    try:
        number = born(int(sys.argv[1]), sys.argv[2:])
    except OSError as problem:
        print(problem.strerror, flush=True)
        sys.exit(1)
    os.write(1, b"born\n")  # at once, with the program that writes there as well
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))
