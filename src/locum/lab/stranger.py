"""Sends what `forgery.py` composed, from inside the stranger's namespace: `python -m locum.lab.stranger FILE RATE ADDRESS`.

Everything but what is spoofed leaves from ADDRESS: the host is a mobile node too, and what it sends from its home
address would reach its targets through its own tunnel.

It prints how many shots of each kind went out, as JSON. Answers are not waited for: the capture has them.
"""

import contextlib
import errno
import json
import socket
import struct
import sys
import time
from collections import Counter, deque
from itertools import cycle
from pathlib import Path

from locum.lab.forgery import Shot

TCP_PATIENCE = 0.5
GONE_PATIENCE = 0.01
"""Seconds for a connection, at first and once a target has not answered."""
OPEN_TCP = 64
OPEN_UDP = 256
FIRST_PORT = 10_000
"""Every datagram leaves from a port of its own, so that a reply tells which request it answers."""


class Stranger:
    """Sockets of every sort, opened once."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._udp: deque[socket.socket] = deque(maxlen=OPEN_UDP)
        self._ports = cycle(range(FIRST_PORT, 60_000))
        self._raw: dict[int, socket.socket] = {}
        self._spoof = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._tcp: list[socket.socket] = []
        self._patience: dict[str, float] = {}

    def send(self, shot: Shot) -> None:
        """Raises OSError when it cannot go out."""
        if shot.via == "udp":
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            if len(self._udp) == OPEN_UDP:
                self._udp.popleft().close()
            self._udp.append(channel)
            channel.bind((self._address, next(self._ports)))
            channel.sendto(shot.payload, (shot.target, shot.port))
        elif shot.via == "tcp":
            self._connect(shot)
        elif shot.source is not None:
            self._spoof.sendto(_from(shot.source, shot) + shot.payload, (shot.target, 0))
        else:
            raw = self._raw.get(shot.port)
            if raw is None:
                raw = self._raw[shot.port] = socket.socket(socket.AF_INET, socket.SOCK_RAW, shot.port)
                raw.bind((self._address, 0))
            raw.sendto(shot.payload, (shot.target, 0))

    def _connect(self, shot: Shot) -> None:
        """Send on a connection of its own, which stays open for a while as an attacker would leave it."""
        try:
            patience = self._patience.get(shot.target, TCP_PATIENCE)
            connection = socket.create_connection(
                (shot.target, shot.port), timeout=patience, source_address=(self._address, 0)
            )
        except TimeoutError:
            self._patience[shot.target] = GONE_PATIENCE  # a sleeper: its SYN is sent, nobody will answer
            raise
        with contextlib.suppress(ConnectionError):
            connection.sendall(shot.payload)
        self._tcp.append(connection)
        if len(self._tcp) > OPEN_TCP:
            self._tcp.pop(0).close()


def _from(source: str, shot: Shot) -> bytes:
    """An IPv4 header with a spoofed source; the kernel fills in length and checksum."""
    addresses = socket.inet_aton(source) + socket.inet_aton(shot.target)
    return struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, shot.port, 0) + addresses


def send_all(file: Path, rate: float, address: str) -> dict[str, int]:
    """Send every shot of a file at a rate (per second) from an IPv4 address; how many of each kind went out."""
    stranger, sent = Stranger(address), Counter[str]()
    begin = time.monotonic()
    with file.open() as lines:
        for number, line in enumerate(lines):
            shot = Shot.from_line(line)
            pause = begin + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            try:
                stranger.send(shot)
            except TimeoutError:
                sent[f"{shot.kind} unanswered"] += 1
            except OSError as problem:
                name = errno.errorcode.get(problem.errno or 0, "error")
                sent[f"{shot.kind} {name}"] += 1
            else:
                sent[shot.kind] += 1
    return dict(sent)


if __name__ == "__main__":
    print(json.dumps(send_all(Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3])))
