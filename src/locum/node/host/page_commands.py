"""Runs the configured programs that tell sleeping devices of their pages (P11): never by a shell, and for a limited time.

A program gets the page by its environment and as JSON on its standard input. Its exit code is the answer; the role knows the
meaning.
"""

import asyncio
import contextlib
import json
import logging
import os
import pwd
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from locum.node.performer import Handler
from locum.roles.action_values.paging import CallByCommand, CommandEnded, EndCommand

SAID: Final = 4096  # bytes of output that are kept
TEXT: Final = 200  # characters of it for people

log = logging.getLogger("locum.pages")


class PageCommands:
    """Running programs by way and page. `ended` gets the end of each."""

    def __init__(self, ended: Callable[[CommandEnded], None]) -> None:
        self._ended = ended
        self._running: dict[tuple[str, bytes], asyncio.Task[None]] = {}

    def handlers(self) -> Mapping[type, Handler]:
        """The function for each type of action."""
        return {CallByCommand: self._run, EndCommand: self._end}

    def _run(self, action: CallByCommand) -> None:
        key = (action.way, action.page)
        task = asyncio.create_task(self._to_its_end(action), name=f"page command {action.way}")
        self._running[key] = task
        task.add_done_callback(lambda done: self._gone(key, done))

    def _gone(self, key: tuple[str, bytes], done: "asyncio.Task[None]") -> None:
        if self._running.get(key) is done:
            del self._running[key]

    def _end(self, action: EndCommand) -> None:
        task = self._running.get((action.way, action.page))
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """End all programs."""
        tasks = [*self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _to_its_end(self, action: CallByCommand) -> None:
        code: int | None = None
        text = ""
        try:
            code, text = await _outcome(action)
        except TimeoutError:
            text = f"{action.command[0]} took more than {action.timeout:g} seconds"
        except (OSError, KeyError) as problem:
            text = f"{action.command[0]} does not start: {getattr(problem, 'strerror', None) or problem}"
        finally:
            if code is None and text:
                log.warning("way %s: %s", action.way, text)
            self._ended(CommandEnded(action.way, action.page, code, text))


async def _outcome(action: CallByCommand) -> tuple[int | None, str]:
    """Exit code, None after a signal, and the first line of the output. Raises OSError, KeyError or TimeoutError."""
    told = json.dumps(action.told).encode() + b"\n"
    code, said = await run_program(
        action.command, told, action.timeout, environment(action.told), user=action.user
    )
    return (code if code >= 0 else None), _first_line(said)


async def run_program(
    command: Sequence[str],
    told: bytes,
    seconds: float,
    environment: Mapping[str, str],
    *,
    user: str | None = None,
    most: int = SAID,
    errors: int = asyncio.subprocess.STDOUT,
) -> tuple[int, bytes]:
    """Exit code, and the first `most` bytes of the output. Nothing of the program is left then. `errors`: its error output.

    Raises OSError, KeyError (no such user) or TimeoutError.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=dict(environment),
        cwd="/",
        start_new_session=True,
        **_account(user),
    )
    try:
        async with asyncio.timeout(seconds):
            said = await _exchange(process, told, most)
            code = await process.wait()
    finally:
        await _ended(process)
    return code, said


async def _exchange(process: asyncio.subprocess.Process, told: bytes, most: int) -> bytes:
    """Tell the program of the page; the beginning of its output, all of which is read."""
    assert process.stdin is not None and process.stdout is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it does not read
        process.stdin.write(told)
        await process.stdin.drain()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.close()
    said = b""
    while more := await process.stdout.read(SAID):
        said = (said + more)[:most]
    return said


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End the program and all that it has started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def environment(told: Mapping[str, object]) -> dict[str, str]:
    """PATH, and the values of the page as LOCUM_HOME_ADDRESS, LOCUM_PAGE, LOCUM_CAUSE and so on."""
    path = os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    return {"PATH": path} | {f"LOCUM_{key.upper()}": str(value) for key, value in told.items()}


def _account(user: str | None) -> dict[str, Any]:
    """The user, group and further groups of a program. Raises KeyError."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    groups = os.getgrouplist(account.pw_name, account.pw_gid)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": groups}


def _first_line(said: bytes) -> str:
    lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
    return "".join(filter(str.isprintable, lines[0])).strip()[:TEXT] if lines else ""
