"""The Unix socket over which the command line talks to a running node: a JSON object per line.

A request is {"id", "request", ...}; the answer is {"id", "ok", "result"} or {"id", "ok": false, "error"}. A streaming
request (monitor) is answered by {"id", "event": {...}} lines until the client goes away. Knows nothing of roles: the
node gives it a handler. Only the owner of the socket (mode 0600) can connect.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Handler = Callable[[str, Mapping[str, Any]], Awaitable[Any]]
Subscribe = Callable[[Callable[[str], None]], Callable[[], None]]

log = logging.getLogger("locum.control")
_LONGEST_LINE = 2 << 20  # a piece of a file of an order, in base64
_FLUSH = 0.01  # seconds between looks at answers that are on their way
_MOST_UNSENT = 4 << 20  # bytes; a monitor that reads slower than this is cut off instead of filling memory


class RequestFailed(Exception):
    """The request was understood and could not be done; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A result that comes with a descriptor of this socket; then `given` is called, or `kept` if the client has gone."""

    result: Any
    socket: socket.socket
    given: Callable[[], None]
    kept: Callable[[], None]


class SocketBusy(OSError):
    """Another node answers on the socket already."""


class ControlSocket:
    """Server side."""

    def __init__(self, path: Path, handler: Handler, subscribe: Subscribe) -> None:
        self._path, self._handler, self._subscribe = path, handler, subscribe
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    def check(self) -> None:
        """Raises SocketBusy when another node listens there."""
        if self._path.is_socket() and _answers(self._path):
            raise SocketBusy(
                f"{self._path}: another node answers there; stop it or use another name in [node]"
            )

    async def open(self) -> None:
        """Listen. Raises SocketBusy when another node listens there, OSError when the path cannot be used."""
        self.check()
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        self._path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._accepted, self._path, limit=_LONGEST_LINE)
        finally:
            os.umask(mask)

    async def close(self) -> None:
        """End all conversations and remove the socket."""
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
            await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    line = await reader.readline()
                except ValueError:
                    return self._send(writer, {"id": None, "ok": False, "error": "the line is too long"})
                if not line:
                    return
                task = asyncio.create_task(self._answer(line, writer))
                requests.add(task)
                task.add_done_callback(requests.discard)
        finally:
            for task in requests:
                task.cancel()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            message = json.loads(line)
            identifier, request = message.get("id"), message["request"]
            if not isinstance(request, str):
                raise TypeError
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._send(
                writer, {"id": None, "ok": False, "error": 'expected {"id", "request"} on one line'}
            )
        if request == "monitor":
            return await self._monitor(identifier, writer)
        try:
            result = await self._handler(request, message)
        except RequestFailed as problem:
            self._send(writer, {"id": identifier, "ok": False, "error": str(problem)})
        except Exception as problem:
            log.exception("%s failed", request)
            said = f"{request}: the node failed to answer: {problem or type(problem).__name__}"
            self._send(writer, {"id": identifier, "ok": False, "error": said})
        else:
            if isinstance(result, Passed):
                return await self._pass(identifier, writer, result)
            self._send(writer, {"id": identifier, "ok": True, "result": result})

    async def _monitor(self, identifier: Any, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        prefix = f'{{"id":{json.dumps(identifier)},"event":'

        def tell(line: str) -> None:
            if transport.get_write_buffer_size() > _MOST_UNSENT:
                transport.abort()
            elif not transport.is_closing():
                writer.write(f"{prefix}{line}}}\n".encode())

        stop = self._subscribe(tell)
        try:
            self._send(writer, {"id": identifier, "ok": True, "result": "monitoring"})
            await asyncio.Event().wait()
        finally:
            stop()

    async def _pass(self, identifier: Any, writer: asyncio.StreamWriter, passed: Passed) -> None:
        """One short line and the descriptor, in one message."""
        try:
            transport = writer.transport
            while transport.get_write_buffer_size() and not transport.is_closing():
                await asyncio.sleep(_FLUSH)
            if transport.is_closing():
                raise ConnectionResetError
            with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as own:
                line = _line({"id": identifier, "ok": True, "result": passed.result})
                socket.send_fds(own, [line], [passed.socket.fileno()])
        except (OSError, asyncio.CancelledError):
            passed.kept()
            raise
        passed.given()

    @staticmethod
    def _send(writer: asyncio.StreamWriter, message: Mapping[str, Any]) -> None:
        writer.write(_line(message))


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"


def _answers(path: Path) -> bool:
    """True if a process listens on the Unix socket at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
