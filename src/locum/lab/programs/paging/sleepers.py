"""Many sleeping devices on one access link: each registers briefly, answers a page's call, and then registers in full (P1, P11).

Run inside the namespace at the end of the link: `python -m locum.lab.programs.paging.sleepers FILE`, where FILE is `Sleepers` as JSON. It
prints "asleep" when all are registered, and "awake" when all have woken; it ends with the end of its input, and then prints
its figures as JSON. All devices have one key, one socket and one link-layer address: this is a load, no attack.
"""

import hashlib
import hmac
import json
import select
import socket
import struct
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address
from pathlib import Path

from locum.wire.errors import WireError
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions.authentication import AuthKind
from locum.wire.mobile_ip.page_call import EXPERIMENTAL, CallAnswerCode, PageCall, PageCallAnswer
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REPLY,
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)

SPI = 1000
_PORT = 434
_NTP_EPOCH = 2_208_988_800  # seconds between 1900 and 1970 (RFC 5905)
_OUTSTANDING = 64  # registrations; an access node has a bounded number of one link-layer address under way
_AGAIN = 2.0  # seconds to the repetition of a registration
_BUFFER = 8 << 20  # bytes
_PKTINFO = struct.Struct("@i4s4s")
_IP_PKTINFO, _SO_RCVBUFFORCE = 8, 33  # of ip(7), and of socket(7)
_FULL = 600  # seconds of a device that is awake


@dataclass(frozen=True, slots=True)
class Sleepers:
    """The devices: `count` home addresses from `first` on. Addresses as text, the key in hex, `brief` in seconds."""

    first: str
    count: int
    home_agent: str
    care_of: str
    key: str
    brief: int


class _Devices:
    """All of them, and the socket."""

    def __init__(self, said: Sleepers) -> None:
        self.said = said
        self.key = bytes.fromhex(said.key)
        self.homes = [IPv4Address(said.first) + number for number in range(said.count)]
        self.calls: Counter[IPv4Address] = Counter()  # calls heard, repetitions included
        self.pages: dict[IPv4Address, set[bytes]] = {home: set() for home in self.homes}
        self.waiting: deque[IPv4Address] = deque()  # for a registration to be sent
        self.sent: dict[IPv4Address, float] = {}  # without an answer, and when
        self.registered: set[IPv4Address] = set()
        self.asked: dict[IPv4Address, set[int]] = {}  # identifications of requests of this lifetime
        self.refused = 0
        self.lifetime = said.brief
        self._last = 0
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        self.socket.setsockopt(socket.SOL_IP, _IP_PKTINFO, 1)
        self.socket.bind(("", _PORT))
        self.socket.setblocking(False)

    def begin(self, lifetime: int) -> None:
        """From now on registrations have this lifetime, and nobody has one."""
        self.lifetime = lifetime
        self.registered.clear()
        self.asked.clear()  # a late answer to an earlier request counts no more

    def work(self, seconds: float) -> None:
        """Hear, answer and register for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._register()
            if select.select([self.socket], [], [], min(left, 0.1))[0]:
                self._hear()

    def _register(self) -> None:
        now = time.monotonic()
        for home, at in list(self.sent.items()):
            if now >= at + _AGAIN:
                self._send(home, self._request(home))
                self.sent[home] = now
        while self.waiting and len(self.sent) < _OUTSTANDING:
            home = self.waiting.popleft()
            self._send(home, self._request(home))
            self.sent[home] = now

    def _request(self, home: IPv4Address) -> bytes:
        now = time.time()
        stamp = (int(now) + _NTP_EPOCH << 32) | int(now % 1 * (1 << 32))
        self._last = max(self._last + 1, stamp)
        self.asked.setdefault(home, set()).add(self._last)
        request = RegistrationRequest(
            self.lifetime,
            home,
            IPv4Address(self.said.home_agent),
            IPv4Address(self.said.care_of),
            self._last,
            Flag.T,
        )
        return self._signed(request.encode())

    def _signed(self, message: bytes) -> bytes:
        return append_authentication(
            message, AuthKind.MN_HA, SPI, lambda data: hmac.digest(self.key, data, hashlib.sha256)
        )

    def _send(self, home: IPv4Address, message: bytes) -> None:
        source = _PKTINFO.pack(0, home.packed, bytes(4))
        to = (self.said.care_of, _PORT)
        self.socket.sendmsg([message], [(socket.SOL_IP, _IP_PKTINFO, source)], 0, to)

    def _hear(self) -> None:
        for _ in range(256):
            try:
                message = self.socket.recv(2048)
            except BlockingIOError:
                return
            try:
                if message[0] == EXPERIMENTAL:
                    self._called(PageCall.decode(message))
                elif message[0] == REGISTRATION_REPLY:
                    self._answered(RegistrationReply.decode(message))
            except WireError:
                self.refused += 1

    def _called(self, call: PageCall) -> None:
        home = call.home_address
        first = call.page not in self.pages[home]
        self.calls[home] += 1
        self.pages[home].add(call.page)
        answer = PageCallAnswer(call.page, home, call.identification, CallAnswerCode.WAKING)
        self._send(home, self._signed(answer.encode()))
        if first:
            self.waiting.append(home)

    def _answered(self, reply: RegistrationReply) -> None:
        if reply.code is not Code.ACCEPTED:
            self.refused += 1
        elif reply.identification in self.asked.get(reply.home_address, ()):
            self.registered.add(reply.home_address)
            self.sent.pop(reply.home_address, None)

    def figures(self) -> dict[str, int]:
        """Counts over all devices."""
        numbers = [len(pages) for pages in self.pages.values()]
        return {
            "woken": len(self.registered),
            "pages": sum(numbers),
            "most_pages": max(numbers),
            "calls": self.calls.total(),
            "refused": self.refused,
        }


def main(file: Path) -> None:
    """Until the end of the input."""
    devices = _Devices(Sleepers(**json.loads(file.read_text())))
    devices.waiting.extend(devices.homes)
    _until_all(devices, "asleep")
    devices.begin(_FULL)
    _until_all(devices, "awake")
    print(json.dumps(devices.figures()), flush=True)


def _until_all(devices: _Devices, word: str) -> None:
    """Work until every device is registered, then say so; after the end of the input say so as well."""
    while len(devices.registered) < len(devices.homes):
        devices.work(0.05)
        if select.select([sys.stdin], [], [], 0)[0] and not sys.stdin.readline():
            break
    print(word, flush=True)


def written(sleepers: Sleepers, file: Path) -> Path:
    """The file for `main`."""
    file.write_text(json.dumps(asdict(sleepers)))
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]))
