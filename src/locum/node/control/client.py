"""Client of a node's control socket: one request and its answer, or a stream of events. Blocking, for commands.

Imports nothing heavy: commands should start at once.
"""

import json
import socket
from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_LONGEST_LINE = 64 << 10  # bytes


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
        self._early: dict[int, dict[str, Any]] = {}  # answers that came before their turn
        self._ignored: set[int] = set()  # requests whose answers nobody waits for any more

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

    def stream(
        self, request: str, arguments: Iterable[Mapping[str, Any]], window: int
    ) -> Generator[Any, None, None]:
        """The results of many requests in their order, with so many under way. Raises NodeRefused or NodeUnreachable.

        A caller that stops early gets no other answer mixed up: the rest is read before the next request.
        """
        waiting: deque[int] = deque()
        rest = iter(arguments)
        try:
            while True:
                while len(waiting) < window and (given := next(rest, None)) is not None:
                    self._send(request, dict(given))
                    waiting.append(self._number)
                if not waiting:
                    return
                answer = self._answer_to(waiting[0], request, waiting)
                waiting.popleft()
                yield self._result(answer)
        finally:
            self._ignored.update(number for number in waiting if self._early.pop(number, None) is None)

    def _answer_to(self, number: int, request: str, waiting: Collection[int]) -> dict[str, Any]:
        while number not in self._early:
            answer = self._line(request)
            if (found := answer.get("id")) is not None and found in waiting:
                self._early[found] = answer
        return self._early.pop(number)

    def request_socket(self, request: str, **arguments: Any) -> tuple[socket.socket, Any]:
        """The socket that the answer to this request brings, and the answer; the last request of this client.

        Raises as `request`.
        """
        self._send(request, arguments)
        said, found = b"", []
        try:
            while not said.endswith(b"\n"):
                part, descriptors, _, _ = socket.recv_fds(self._socket, _LONGEST_LINE, 1)
                found += [socket.socket(fileno=descriptor) for descriptor in descriptors]
                if not part:
                    raise NodeUnreachable(f"{self._path}: the node went away during {request}")
                said += part
            answer = json.loads(said)
            if not answer.get("ok"):
                raise NodeRefused(str(answer.get("error", "refused without a reason")))
            if not found:
                raise NodeRefused("the node sent no connection")
            return found.pop(), answer.get("result")
        except TimeoutError:
            raise NodeUnreachable(f"{self._path}: no answer to {request} in time") from None
        except OSError as problem:
            raise NodeUnreachable(f"{self._path}: the node went away ({problem.strerror})") from None
        finally:
            for sock in found:
                sock.close()

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
        return self._result(self._line(request))

    @staticmethod
    def _result(answer: Mapping[str, Any]) -> Any:
        if not answer.get("ok"):
            raise NodeRefused(str(answer.get("error", "refused without a reason")))
        return answer.get("result")

    def _line(self, request: str) -> dict[str, Any]:
        while True:
            answer = self._next_line(request)
            if answer.get("id") not in self._ignored or "id" not in answer:
                return answer
            self._ignored.discard(answer["id"])

    def _next_line(self, request: str) -> dict[str, Any]:
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
