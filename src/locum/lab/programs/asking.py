"""A correspondent that keeps asking a home address: a datagram to an echo, and a new connection to a listener, in turn.

Run inside a node's namespace: `python -m locum.lab.programs.asking ADDRESS UDP-PORT TCP-PORT`. Each answer is a JSON line with the
time it came at (seconds since the epoch), its kind and content; unanswered requests are repeated.
"""

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from locum.lab.processes import Processes, Program

_PAUSE = 0.1  # seconds between two questions of a kind
_PATIENCE = 0.2  # seconds for an answer
_LONGEST = 1000  # bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """`kind` is "udp" or "tcp"; `said` of an echo is the sent payload."""

    time: float
    kind: str
    said: str


@dataclass(slots=True)
class Asker:
    """A running one."""

    program: Program
    file: Path

    def answers(self, kind: str) -> list[Answer]:
        """Answers so far."""
        lines = self.file.read_text().split("\n")[:-1] if self.file.exists() else []
        found = [Answer(**json.loads(line)) for line in lines]
        return [answer for answer in found if answer.kind == kind]

    def first(self, kind: str, after: float, said: str | None = None) -> float:
        """Time of the first answer to a request sent after a point in time; infinity while there is none."""
        times = (answer.time for answer in self.answers(kind) if said is None or answer.said == said)
        return min((time for time in times if time > after), default=float("inf"))


def start(processes: Processes, node: str, address: str, ports: tuple[int, int], file: Path) -> Asker:
    """Ask from `node`; the answers are in `file`."""
    command = [sys.executable, "-m", "locum.lab.programs.asking", address, *map(str, ports), str(file)]
    return Asker(processes.start(node, "asker", command), file)


def _datagrams(address: str, port: int, file: Path) -> None:
    number = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(_PATIENCE)
        while True:
            number += 1
            question = f"question {number}".encode()
            with contextlib.suppress(OSError):
                channel.sendto(question, (address, port))
                while (
                    channel.recv(_LONGEST) != question
                ):  # an answer to an earlier question says nothing of now
                    continue
                _note(file, "udp", question)
            time.sleep(_PAUSE)


def _connections(address: str, port: int, file: Path) -> None:
    while True:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address, port), timeout=_PATIENCE) as connection,
        ):
            said = b""
            while piece := connection.recv(_LONGEST):
                said += piece
            _note(file, "tcp", said.strip())
        time.sleep(_PAUSE)


def _note(file: Path, kind: str, said: bytes) -> None:
    line = json.dumps({"time": time.time(), "kind": kind, "said": said.decode(errors="replace")})
    with file.open("a") as sink:
        sink.write(line + "\n")


def main(arguments: Sequence[str]) -> None:
    """Until it is killed."""
    address, datagrams, connections, file = arguments
    path = Path(file)
    threading.Thread(target=_datagrams, args=(address, int(datagrams), path), daemon=True).start()
    _connections(address, int(connections), path)


if __name__ == "__main__":
    main(sys.argv[1:])
