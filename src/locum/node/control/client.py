"""Client of a node's control socket: one request and its answer, or a stream of events. Blocking, for commands.

Imports nothing heavy: commands should start at once.
"""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class NodeUnreachable(Exception):
    """No node answers on the socket."""


class NodeRefused(Exception):
    """The node answered that the request failed; the text is its reason."""


class NodeClient:
    """A conversation with one node."""

    def __init__(self, path: Path, timeout: float | None = 10.0) -> None:
        """Connect. `timeout` in seconds bounds every wait for an answer. Raises NodeUnreachable."""
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        try:
            self._socket.connect(str(path))
        except PermissionError:
            self._socket.close()
            raise NodeUnreachable(f"{path}: permission denied; run as root") from None
        except OSError as problem:
            self._socket.close()
            raise NodeUnreachable(
                f"{path}: no node answers ({problem.strerror}); is `locum node run` running?"
            ) from None
        self._lines = self._socket.makefile("rb")
        self._number = 0

    def __enter__(self) -> "NodeClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._socket.close()

    def request(self, request: str, **arguments: Any) -> Any:
        """The result of one request. Raises NodeRefused or NodeUnreachable."""
        self._send(request, arguments)
        return self._receive(request)

    def events(self) -> Iterator[dict[str, Any]]:
        """Events as they happen, until the node ends or the caller stops. Raises NodeUnreachable at the end."""
        self._send("monitor", {})
        self._receive("monitor")
        self._socket.settimeout(None)
        while True:
            yield self._line("monitor")["event"]

    def _send(self, request: str, arguments: dict[str, Any]) -> None:
        self._number += 1
        message = {"id": self._number, "request": request, **arguments}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as problem:
            raise NodeUnreachable(f"{self._path}: the node went away ({problem.strerror})") from None

    def _receive(self, request: str) -> Any:
        answer = self._line(request)
        if not answer.get("ok"):
            raise NodeRefused(str(answer.get("error", "refused without a reason")))
        return answer.get("result")

    def _line(self, request: str) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise NodeUnreachable(f"{self._path}: no answer to {request} in time") from None
        except OSError as problem:
            raise NodeUnreachable(f"{self._path}: the node went away ({problem.strerror})") from None
        if not line:
            raise NodeUnreachable(f"{self._path}: the node went away during {request}")
        answer: dict[str, Any] = json.loads(line)
        return answer
