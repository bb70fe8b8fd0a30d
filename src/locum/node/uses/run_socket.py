"""The socket by which `locum run` asks the daemon for a control group: any user may, and gets one for its own process only.

One JSON line {"around": true or false}, one line as answer: {"ok": true}, or {"ok": false, "error": text}. The process is the
one that connected (SO_PEERCRED).
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.node.uses.programs import NotRun, Programs

SUFFIX = ".run"
"""The socket is beside the control socket, with this in place of ".sock"."""
_CREDENTIALS = struct.Struct("=iII")  # struct ucred
_LONGEST_LINE = 1024
_PATIENCE = 5.0  # seconds that a client has for its line
_MOST_WAITING = 64  # clients at a time


class RunSocket:
    """Server side; `count` gets the reasons of refusals."""

    def __init__(
        self, path: Path, programs: Programs | None, count: Callable[[str], None], why: str = ""
    ) -> None:
        """Without `programs` every request is refused for the reason `why`."""
        self._path, self._programs, self._count, self._why = path, programs, count, why
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen; any user may connect. Raises OSError."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._accepted, self._path, limit=_LONGEST_LINE)
        os.chmod(self._path, 0o666)

    async def close(self) -> None:
        """End, and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for task in tuple(self._clients):
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            answer = await self._answer(reader, writer)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, object]:
        try:
            if len(self._clients) > _MOST_WAITING:
                raise NotRun("too many commands start at once; try again")
            async with asyncio.timeout(_PATIENCE):
                line = await reader.readline()
            around = _around(line)
            if self._programs is None:
                raise NotRun(self._why)
            peer = writer.get_extra_info("socket").getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
            )
            pid, user, _ = _CREDENTIALS.unpack(peer)
            self._programs.take(pid, user, around=around)
        except TimeoutError:
            return self._refused("run-without-request", "no request came in time")
        except ValueError as problem:
            return self._refused("run-unreadable", str(problem))
        except NotRun as problem:
            return self._refused("run-refused", str(problem))
        except (OSError, DataPlaneError) as problem:
            return self._refused("run-failed", f"no control group can be made for it: {problem}")
        return {"ok": True}

    def _refused(self, reason: str, said: str) -> dict[str, object]:
        self._count(reason)
        return {"ok": False, "error": said}


def _around(line: bytes) -> bool:
    """The wish in a request. Raises ValueError."""
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        asked = None
    if not isinstance(asked, dict) or not isinstance(asked.get("around"), bool):
        raise ValueError('expected {"around": true} or {"around": false} on one line')
    return bool(asked["around"])
