"""A thousand mobile nodes move at once while packets flow to all of them: delay and loss of each.

Every node's packets come from a correspondent on the crowd's host, go through the home agent's data plane and return to the care-of
address in force. Times are those from a request to its reply; the baseline is a bare echo that checks and signs the same HMAC.
"""

import contextlib
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import cycle
from statistics import quantiles
from typing import Self

from bench.home_agent import ADDRESS, CARE_OF_ADDRESSES, LIFETIME, Site, home_agent, site
from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed, stop
from bench.registrar import check_accepted
from locum.wire.mobile_ip.registration import UDP_PORT

_MOBILES = 1_000
_ECHO_PORT = 4340
_RETRY_SECONDS = 1.0  # RFC 5944 section 3.6.3: a registration is repeated after a second
_BUFFER = 32 << 20
_SO_RCVBUFFORCE = 33
_PACKETS_A_SECOND = 4_000
_SETTLE_SECONDS = 0.3  # of traffic before and after the move
_PORT = 9
_NUMBER = struct.Struct("!I")


def burst(client: socket.socket, messages: list[bytes]) -> tuple[list[float], list[bytes]]:
    """Send all; return seconds from each request to its reply, and the replies. Repeats unanswered ones.

    Requests and replies have the home address at the same place (bytes 4 to 8). Raises CommandFailed after ten rounds.
    """
    waiting = {message[4:8]: message for message in messages}
    asked: dict[bytes, float] = {}
    taken: list[float] = []
    answers: list[bytes] = []
    for _round in range(10):
        for key, message in waiting.items():
            asked.setdefault(key, time.perf_counter())
            client.send(message)
        end = time.perf_counter() + _RETRY_SECONDS
        while waiting and (left := end - time.perf_counter()) > 0:
            client.settimeout(left)
            with contextlib.suppress(TimeoutError):
                answer = client.recv(2048)
                if waiting.pop(answer[4:8], None) is not None:
                    taken.append(time.perf_counter() - asked[answer[4:8]])
                    answers.append(answer)
        if not waiting:
            return taken, answers
    raise CommandFailed(f"{len(waiting)} of {len(messages)} registrations were never answered")


@dataclass(slots=True)
class Stream:
    """Numbered packets to every home address in turn, and those received out of tunnels."""

    sender: socket.socket
    receiver: socket.socket
    homes: list[str]
    sent: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        time.sleep(_SETTLE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(_SETTLE_SECONDS)
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        time.sleep(0.1)

    def _send(self) -> None:
        begin, homes = time.perf_counter(), cycle(self.homes)
        while not self._ended.is_set():
            due = int((time.perf_counter() - begin) * _PACKETS_A_SECOND)
            while self.sent < due:
                self.sender.sendto(_NUMBER.pack(self.sent), (next(homes), _PORT))
                self.sent += 1
            time.sleep(0.002)

    def lost(self) -> int:
        """Packets that came out of no tunnel. Reads the received packets, so call it once only."""
        arrived: set[int] = set()
        self.receiver.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = self.receiver.recv(2048)
                arrived.add(_NUMBER.unpack_from(packet, 20 + 20 + 8)[0])  # outer and inner IPv4, UDP
        return self.sent - len(arrived)


@contextlib.contextmanager
def _stream(at: Site) -> Iterator[Callable[[], Stream]]:
    """Makes streams; their sockets are closed at the end."""
    with at.outside.entered(), contextlib.ExitStack() as stack:
        sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        receiver = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IPIP))
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        homes = [str(home_address) for home_address in at.crowd.home_addresses(0, at.crowd.mobiles)]
        yield lambda: Stream(sender, receiver, homes)


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one move of the whole crowd: milliseconds, and packets."""

    half: float
    most: float
    lost: int = 0


def _sample(taken: list[float], lost: int = 0) -> Sample:
    percentiles = quantiles(taken, n=100)
    return Sample(percentiles[49] * 1e3, percentiles[98] * 1e3, lost)


def _moved(at: Site, client: socket.socket, place: IPv4Address) -> list[float]:
    taken, answers = burst(client, at.crowd.sign(0, at.crowd.mobiles, place, lifetime=LIFETIME))
    check_accepted(answers, at.crowd.home_addresses(0, at.crowd.mobiles))
    return taken


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows `handover_1000_p50`, `handover_1000_p99` and `handover_1000_lost`."""
    mobiles = max(int(_MOBILES * settings.scale), 100)
    ours: list[Sample] = []
    plain: list[Sample] = []
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(site(mobiles))
        at.outside.ip(f"route add 10.64.0.0/14 via {ADDRESS}")
        stack.enter_context(home_agent(at))
        echo = at.agent.start(
            sys.executable, "-m", "bench.echo", str(ADDRESS), str(_ECHO_PORT), str(at.key_file)
        )
        stack.callback(stop, echo)
        if echo.stdout is None or echo.stdout.readline() != "ready\n":
            raise CommandFailed("the echo server did not start")
        real, bare = (stack.enter_context(at.client(port)) for port in (UDP_PORT, _ECHO_PORT))
        for client in (real, bare):
            client.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        streams = stack.enter_context(_stream(at))
        places = cycle(CARE_OF_ADDRESSES)
        _moved(at, real, next(places))
        for _round in range(settings.rounds):
            with streams() as stream:
                taken = _moved(at, real, next(places))
            ours.append(_sample(taken, stream.lost()))
            with streams() as stream:
                taken = _moved(at, bare, next(places))
            plain.append(_sample(taken, stream.lost()))
    return _rows(mobiles, ours, plain, wanted)


def _rows(
    mobiles: int, ours: list[Sample], plain: list[Sample], wanted: Collection[str]
) -> list[Measurement]:
    note = (
        f"{mobiles} mobile nodes move at once, {_PACKETS_A_SECOND} packets a second flow to all of them meanwhile; "
        "from request to reply, the home agent's store and data plane included"
    )
    rows = [
        Measurement(
            "handover_1000_p50",
            "ms",
            tuple(wait.half for wait in ours),
            tuple(sample.half for sample in plain),
            (note,),
        ),
        Measurement(
            "handover_1000_p99",
            "ms",
            tuple(wait.most for wait in ours),
            tuple(sample.most for sample in plain),
        ),
        Measurement("handover_1000_lost", "packets", tuple(float(wait.lost) for wait in ours), None),
    ]
    return [row for row in rows if row.name in wanted]
