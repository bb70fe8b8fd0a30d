"""`locum node run`: a process around a node. Privileges, signals, one line per start error, exit codes."""

import asyncio
import contextlib
import ctypes
import errno
import gc
import logging
import resource
import signal
import sys
from pathlib import Path

from locum.node.clock import BootTimeLoop
from locum.node.config.load import ConfigError, load_to_keep
from locum.node.config.settings import Settings
from locum.node.control.server import SocketBusy
from locum.node.exits import Exit
from locum.node.tables import StoreError

_NEEDED = {
    12: "net_admin",
    13: "net_raw",
}  # capability numbers of capabilities(7); bpf is 39, or sys_admin 21
_BPF, _SYS_ADMIN = 39, 21
_DESCRIPTORS = 65536  # as LimitNOFILE= of the systemd units


class MissingPrivilege(Exception):
    """This process lacks a privilege that the node needs."""


def run(path: Path) -> int:
    """Run the node of a configuration file until SIGTERM or SIGINT; the exit code."""
    try:
        settings = load_to_keep(path)
    except ConfigError as problem:
        return _complain(str(problem), Exit.CONFIG)
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format=f"locum {settings.node.name}: %(message)s"
    )
    for warning in settings.warnings:
        logging.getLogger("locum.config").warning("%s", warning)
    try:
        check_privileges()
        _raise_descriptor_limit()
        with asyncio.Runner(loop_factory=BootTimeLoop) as runner:
            return runner.run(_main(settings))
    except MissingPrivilege as problem:
        return _complain(str(problem), Exit.PRIVILEGE)
    except ConfigError as problem:
        return _complain(str(problem), Exit.CONFIG)
    except (SocketBusy, StoreError) as problem:
        return _complain(str(problem), Exit.FAILED)
    except ModuleNotFoundError as problem:
        return _complain(
            f"the Python package {problem.name} is missing; install locum again: pip install locum",
            Exit.FAILED,
        )
    except OSError as problem:
        return _complain(_explained(problem), Exit.PRIVILEGE if _denied(problem) else Exit.FAILED)
    except RuntimeError as problem:  # DataPlaneError; its module is not imported before it is needed
        if type(problem).__module__.startswith("locum."):
            return _complain(str(problem), Exit.FAILED)
        raise


def _give_back() -> None:
    """Return the free memory of the C library to the system: restoring rows takes more than running does."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _raise_descriptor_limit() -> None:
    """A stand-in has three descriptors for each session that it holds; the usual soft limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _main(settings: Settings) -> int:
    from locum.node.node import Node

    stop: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def end(number: int) -> None:
        if not stop.done():
            stop.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    node = Node(settings)
    starting = asyncio.ensure_future(node.start())
    await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)  # type: ignore[type-var]
    if not starting.done():
        starting.cancel()
        await asyncio.wait([starting])
        return Exit.DONE
    await starting
    gc.collect()
    _give_back()
    gc.set_threshold(20_000, 20, 50)  # nearly everything is freed without it
    gc.freeze()  # present objects stay; a collection need not visit them again
    sys.setswitchinterval(0.0005)  # the store's thread gets its turn soon: answers wait for it
    await stop
    await node.stop()
    return Exit.DONE


def check_privileges() -> None:
    """Raises MissingPrivilege with the names of the capabilities that are missing."""
    effective = 0
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
    missing = [name for number, name in _NEEDED.items() if not effective >> number & 1]
    if not (effective >> _BPF & 1 or effective >> _SYS_ADMIN & 1):
        missing.append("bpf")
    if missing:
        raise MissingPrivilege(
            f"not permitted: cap_{', cap_'.join(missing)} missing; run as root, or by the systemd unit"
        )


def _denied(problem: OSError) -> bool:
    return problem.errno in (errno.EPERM, errno.EACCES)


def _explained(problem: OSError) -> str:
    text = problem.strerror or str(problem)
    where = f"{problem.filename}: " if problem.filename else ""
    if problem.errno == errno.EADDRINUSE and not where and "port" not in text:
        return "UDP port 434 is in use; another mobility agent runs here: stop it (ss -lunp 'sport = 434')"
    if _denied(problem) and "run" not in text:
        return f"{where}{text}; run as root, or by the systemd unit"
    return f"{where}{text}"


def _complain(text: str, code: int) -> int:
    print(f"locum: {' '.join(text.split())}", file=sys.stderr)
    return code
