"""Confines the process of a proxy (A1): its user, its root directory, its network namespace and its limits."""

import ctypes
import os
import resource
import shutil
import signal
import stat
from pathlib import Path

from locum.apps.shell.files import is_name
from locum.roles.app_network import MAX_CONNECTIONS, MAX_FILES

NOBODY = 65534
FIRST_USER = 0x70000000
"""The first of the users that no account, container or service manager takes; there is one for each process number."""
DESCRIPTORS, MORE_DESCRIPTORS = 64, 2 * MAX_CONNECTIONS + MAX_FILES
"""Open at once; with a network, connections, files that they send, and files that are written."""
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWNET, _CLONE_NEWIPC = 0x40000000, 0x08000000
# A directory in which nobody makes anything, and that has no socket of a service: network namespaces do not keep those.
_EMPTY = "/proc/self/fdinfo"


def ends_with_its_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises OSError."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def yields_memory() -> None:
    """Have the kernel kill this process before others when memory ends: the stand-in's own protection is not for proxies."""
    Path("/proc/self/oom_score_adj").write_text("500")


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def confine(memory: int, processor: int, directory: str = "", room: int = 0) -> None:
    """Give up everything that a proxy does not need; `memory` in bytes of address space, `processor` in seconds.

    A proxy with files has `directory` as its root, and `room` bytes there. Raises OSError when the kernel refuses: a proxy
    does not run unconfined.
    """
    user = FIRST_USER + os.getpid()  # of no other process: it could end or limit those of its user
    ends_with_its_parent()
    _call("unshare", _CLONE_NEWNET | _CLONE_NEWIPC)
    yields_memory()
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # the daemon goes on when it wakes it
    if directory:
        _take(directory, user)
    os.chroot(directory or _EMPTY)
    os.chdir("/")
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_NOFILE, DESCRIPTORS + (MORE_DESCRIPTORS if directory else 0)),
        (resource.RLIMIT_FSIZE, room),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        resource.setrlimit(kind, (most, most))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(user, user, user)
    ends_with_its_parent()  # a change of user clears it
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(0o077)


def _take(directory: str, user: int) -> None:
    """Give the files there to this user. What an earlier process may have made besides files of the contract goes."""
    os.chown(directory, user, NOBODY)
    os.chmod(directory, 0o700)
    for entry in tuple(os.scandir(directory)):
        found = entry.stat(follow_symlinks=False)
        if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
            if is_name(entry.name):  # others are uploads under way, which are the stand-in's
                os.chown(entry.path, user, NOBODY, follow_symlinks=False)
        elif stat.S_ISDIR(found.st_mode):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
