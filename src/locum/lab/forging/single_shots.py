"""Sends one message at a time to each target and waits for the answer: is one ever larger than its request?

Run inside a stranger's namespace: `python -m locum.lab.forging.single_shots FILE ADDRESS PORT`. Each message leaves from a port
of its own, from PORT on, and its socket receives from the target only. Only datagrams and connections are sent; what is
spoofed has its answer go elsewhere. Prints a JSON line for each message.
"""

import contextlib
import json
import socket
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path

from locum.lab.forging.forgery import Shot

PATIENCE = 0.08
"""Seconds for the first byte of an answer; home agents answer within a tenth of it."""
AFTERWARDS = 0.02
"""Seconds of silence that end an answer."""
GREETING = 0.2
"""Seconds for the settings that open a CoAP connection: both ends send them unasked (RFC 8323 section 5.3)."""
LARGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """Bytes of payload received. `greeting` are those that a listener sent before the request."""

    kind: str
    aimed_at: str
    asked: int
    answered: int
    greeting: int = 0

    @property
    def excess(self) -> int:
        """By how much the answer is larger than the request; negative: smaller."""
        return self.answered - self.asked


def send_all(shots: Iterable[Shot], address: str, first_port: int) -> list[Answer]:
    """One at a time to each target, the targets side by side."""
    ports = count(first_port)
    targets: dict[str, list[tuple[Shot, int]]] = defaultdict(list)
    for shot in shots:
        if shot.via in _SENDERS:
            targets[shot.target].append((shot, next(ports)))
    with ThreadPoolExecutor(max(1, len(targets))) as senders:
        rows = senders.map(lambda waiting: list(_one_by_one(waiting, address)), targets.values())
        return [answer for row in rows for answer in row]


def _one_by_one(waiting: Sequence[tuple[Shot, int]], address: str) -> Iterator[Answer]:
    for shot, port in waiting:
        yield _SENDERS[shot.via](shot, (shot.source or address, port))


def _datagram(shot: Shot, source: tuple[str, int]) -> Answer:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.bind(source)
        channel.connect((shot.target, shot.port))
        channel.send(shot.payload)
        return Answer(shot.kind, shot.aimed_at, len(shot.payload), _received(channel, PATIENCE))


def _connection(shot: Shot, source: tuple[str, int]) -> Answer:
    with socket.create_connection(
        (shot.target, shot.port), timeout=GREETING, source_address=source
    ) as channel:
        greeting = _received(channel, GREETING)
        with contextlib.suppress(ConnectionError):
            channel.sendall(shot.payload)
        return Answer(shot.kind, shot.aimed_at, len(shot.payload), _received(channel, PATIENCE), greeting)


def _received(channel: socket.socket, patience: float) -> int:
    """Bytes that arrive until nothing does for a while, or until the other side has had enough."""
    found = 0
    channel.settimeout(patience)
    with contextlib.suppress(TimeoutError, ConnectionError):
        while piece := channel.recv(LARGEST):
            found += len(piece)
            channel.settimeout(AFTERWARDS)
    return found


_SENDERS = {"udp": _datagram, "tcp": _connection}


def main(arguments: Sequence[str]) -> None:
    """FILE ADDRESS PORT."""
    file, address, port = arguments
    shots = [Shot.from_line(line) for line in Path(file).read_text().splitlines()]
    for answer in send_all(shots, address, int(port)):
        print(json.dumps(asdict(answer)))


def read(text: str) -> list[Answer]:
    """Read the output of `main`."""
    return [Answer(**json.loads(line)) for line in text.splitlines()]


if __name__ == "__main__":
    main(sys.argv[1:])
