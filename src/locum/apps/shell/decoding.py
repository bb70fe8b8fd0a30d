"""`python -m locum.apps.shell.decoding MEMORY PROCESSOR ROOM PROGRAM ARGUMENT ...`: runs one decoder, confined (A9).

The program reads its standard input and writes its standard output, files of a proxy, and sees nothing else: it has a user,
a network and processes of its own, and of the host's files only programs and libraries, which it cannot change. With this process
all of it ends. Formats of audio are many and their decoders large: a file from the network must not find a way out of one.
"""

import ctypes
import os
import resource
import select
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from locum.apps.shell.confinement import FIRST_USER, NOBODY
from locum.roles.app_network import KILLED

PROCESSES = 16
"""Processes and threads."""
DESCRIPTORS = 32
_ROOT = Path("/tmp")  # of this mount namespace alone: an empty file system covers it
_DIRECTORIES = ("usr", "bin", "lib", "lib32", "lib64", "libx32", "sbin")
_NEWNS, _NEWIPC, _NEWPID, _NEWNET = 0x20000, 0x08000000, 0x20000000, 0x40000000
_READ_ONLY, _NO_SUID, _NO_DEVICES, _REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_NICE = 10


def _calls() -> Callable[..., None]:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: int | bytes | None) -> None:
        if getattr(libc, name)(*arguments):
            code = ctypes.get_errno()
            raise OSError(code, f"{name}: {os.strerror(code)}")

    return call


def _enter(call: Callable[..., None]) -> None:
    """A root directory with programs, libraries and /dev/null alone."""
    call("mount", None, b"/", None, _RECURSIVE | _PRIVATE, None)
    flags = _NO_SUID | _NO_DEVICES
    call("mount", b"tmpfs", bytes(_ROOT), b"tmpfs", flags, b"size=4m,mode=755")
    for name in _DIRECTORIES:
        source, target = Path("/", name), _ROOT / name
        if source.is_symlink():
            target.symlink_to(source.readlink())
        elif source.is_dir():
            target.mkdir()
            call("mount", bytes(source), bytes(target), None, _BIND, None)
            call("mount", None, bytes(target), None, _REMOUNT | _BIND | _READ_ONLY | flags, None)
    (_ROOT / "etc/alternatives").mkdir(parents=True)
    if Path("/etc/ld.so.cache").exists():
        shutil.copy("/etc/ld.so.cache", _ROOT / "etc")
    if Path("/etc/alternatives").is_dir():
        for link in filter(Path.is_symlink, Path("/etc/alternatives").iterdir()):
            (_ROOT / "etc/alternatives" / link.name).symlink_to(link.readlink())
    (_ROOT / "dev").mkdir()
    (_ROOT / "dev/null").touch()
    call("mount", b"/dev/null", bytes(_ROOT / "dev/null"), None, _BIND, None)
    call("mount", None, bytes(_ROOT), None, _REMOUNT | _READ_ONLY | flags, None)
    os.chroot(_ROOT)
    os.chdir("/")


def _limit(call: Callable[..., None], memory: int, processor: int, room: int) -> None:
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, room),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_NPROC, PROCESSES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    for number in (signal.SIGXFSZ, signal.SIGPIPE, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and a program inherits that
    os.nice(_NICE)


def _ended(child: int) -> int:
    """Wait for the end of this process; its exit status."""
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else KILLED - code


def main() -> None:
    """The exit status is the program's."""
    memory, processor, room = map(int, sys.argv[1:4])
    program, *arguments = sys.argv[4:]
    call = _calls()
    user = FIRST_USER + os.getpid()
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    Path("/proc/self/oom_score_adj").write_text("500")
    call("unshare", _NEWNS | _NEWIPC | _NEWPID | _NEWNET)
    this = os.pidfd_open(os.getpid())
    if child := os.fork():
        sys.exit(_ended(child))
    _enter(call)
    _limit(call, memory, processor, room)
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(user, user, user)
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if select.select([this], [], [], 0)[0]:  # it was killed before its end could be this one's as well
        sys.exit(KILLED)
    os.closerange(3, DESCRIPTORS)
    if child := os.fork():  # signals do not end the first process of a namespace; it ends all others
        sys.exit(_ended(child))
    os.execve(program, [program, *arguments], {"LC_ALL": "C", "PATH": "/usr/bin"})


if __name__ == "__main__":
    main()
