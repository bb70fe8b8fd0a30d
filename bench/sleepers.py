"""Devices that fall asleep at once: each hands one TCP connection over to a stand-in by two 634, under its own OSCORE association.

Messages are signed before the burst. A request that is not answered is repeated as CoAP does (RFC 7252 section 4.2); the programs
and sockets of the devices are not there, so that all the machine's time is the stand-in's.
"""

import contextlib
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

import aiocoap
from aiocoap import oscore

from bench.namespaces import CommandFailed
from locum.node.coap.oscore import StoredContext
from locum.sessions.record import SessionRecord, TcpState, Window
from locum.wire.control import (
    Flow,
    Request634,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)

FIRST_HOME, FIRST_OWN = IPv4Address("10.65.0.1"), IPv4Address("198.19.0.1")
"""Home address and signalling address of the first device; each next one has the next addresses."""
HOMES, OWN = "10.65.0.0/16", "198.19.0.0/16"
CORRESPONDENT, PORT = IPv4Address("198.18.8.2"), 60_001
APP = "idle"
"""Name of the proxy that each orders."""
_COAP_PORT = 5683
_TOKEN = b"\x01"
_ACK_TIMEOUT, _MAX_RETRANSMIT = 2.0, 6
_PATIENCE = 300.0


class _Context(oscore.CanProtect, oscore.CanUnprotect, oscore.SecurityContextUtils):  # type: ignore[misc]
    """A device's security context; its numbers are not kept."""

    alg_aead, hashfun = StoredContext.alg_aead, StoredContext.hashfun
    id_context = None
    echo_recovery = None

    def __init__(self, secret: bytes, sender: bytes, recipient: bytes) -> None:
        self.sender_id, self.recipient_id = sender, recipient
        self.sender_sequence_number = 0
        self.recipient_replay_window = oscore.ReplayWindow(32, lambda: None)
        self.recipient_replay_window.initialize_empty()
        self.derive_keys(b"", secret)

    def post_seqnoincrease(self) -> None:
        """Nothing is kept."""


@dataclass(slots=True)
class _Request:
    """A signed 634."""

    data: bytes
    identifiers: Any


@dataclass(slots=True)
class Device:
    """One device. Times are those of `time.time`: the stand-in's events carry the same clock."""

    home: IPv4Address
    own: IPv4Address
    ids: tuple[bytes, bytes]
    asked_at: float = 0.0
    answered_at: float = 0.0
    _context: Any = None
    _requests: list[_Request] = field(default_factory=list)
    _tries: int = 0
    _again_at: float = 0.0
    _socket: socket.socket | None = None

    def sign(self, secret: bytes, kind: str, settings: dict[str, Any]) -> None:
        """Prepare its two requests: the order of a proxy of this kind, and the connection."""
        theirs, own = self.ids
        self._context = _Context(secret, own, theirs)
        flow = Flow(6, self.home, 40_000, CORRESPONDENT, PORT)
        name = self.home.packed * 4
        order = {"apps": [[APP, kind, settings]]}
        bodies: tuple[Request634, ...] = (
            TakeoverPrepare(name, (self.home,), (flow,), order),
            TakeoverTransfer(name, (_record(flow).to_cbor(),), {}),
        )
        self._requests = [self._signed(number, encode_634(body)) for number, body in enumerate(bodies)]

    def _signed(self, number: int, body: bytes) -> _Request:
        message = aiocoap.Message(code=aiocoap.POST, payload=body, uri_path=["634"])
        outer, identifiers = self._context.protect(message)
        outer.mtype, outer.mid, outer.token = aiocoap.CON, number + 1, _TOKEN
        return _Request(outer.encode(), identifiers)

    def begin(self, stand_in: IPv4Address) -> socket.socket:
        """Make its socket, in the namespace of the caller."""
        self._socket = sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((str(self.own), 0))
        sock.connect((str(stand_in), _COAP_PORT))
        sock.setblocking(False)
        return sock

    def ask(self) -> None:
        """Send the request that is due, first or again."""
        assert self._socket is not None
        if not self.asked_at:
            self.asked_at = time.time()
        with contextlib.suppress(BlockingIOError):
            self._socket.send(self._requests[0].data)
        self._again_at = time.monotonic() + _ACK_TIMEOUT * 2**self._tries
        self._tries += 1

    def hear(self) -> bool:
        """Take a datagram; True when both requests were answered. Raises CommandFailed for a refusal."""
        assert self._socket is not None
        message = aiocoap.Message.decode(self._socket.recv(65_536))
        if message.mtype is aiocoap.CON:
            acknowledgement = aiocoap.Message(code=aiocoap.EMPTY)
            acknowledgement.mtype, acknowledgement.mid = aiocoap.ACK, message.mid
            self._socket.send(acknowledgement.encode())
        if message.code is aiocoap.EMPTY:  # it has come; the answer follows
            self._again_at = time.monotonic() + _PATIENCE
            return False
        if message.opt.oscore is None:
            raise CommandFailed(f"{self.home}: its association was refused: {message.code}")
        try:
            plain, _ = self._context.unprotect(message, self._requests[0].identifiers)
        except (IndexError, oscore.ProtectionInvalid):  # the answer to an earlier request, once more
            return False
        if not plain.code.is_successful():
            raise CommandFailed(f"{self.home}: the 634 was answered {plain.code}")
        answer = decode_632(plain.payload)
        if answer.status is not Status.OK:
            raise CommandFailed(f"{self.home}: the 634 was answered {answer.status.name}: {answer}")
        del self._requests[0]
        self._tries = 0
        if self._requests:
            self.ask()
            return False
        self.answered_at = time.time()
        return True

    def late(self, now: float) -> None:
        """Repeat the request if it is time to. Raises CommandFailed after the last time."""
        if self._requests and now >= self._again_at:
            if self._tries > _MAX_RETRANSMIT:
                raise CommandFailed(f"{self.home}: a 634 was never answered")
            self.ask()

    def close(self) -> None:
        """Close its socket."""
        if self._socket is not None:
            self._socket.close()


def devices(number: int) -> list[Device]:
    """So many, not signed yet."""
    return [
        Device(
            FIRST_HOME + place, FIRST_OWN + place, (b"\x01" + place.to_bytes(3), b"\x02" + place.to_bytes(3))
        )
        for place in range(number)
    ]


def fall_asleep(crowd: Sequence[Device], sockets: Sequence[socket.socket]) -> None:
    """Send all first requests at once, and go on until every device has its answers. Raises CommandFailed."""
    waiting = len(crowd)
    end = time.monotonic() + _PATIENCE
    with selectors.DefaultSelector() as selector:
        for device, sock in zip(crowd, sockets, strict=True):
            selector.register(sock, selectors.EVENT_READ, device)
        for device in crowd:
            device.ask()
        looked = time.monotonic()
        while waiting:
            for key, _ in selector.select(0.1):
                waiting -= key.data.hear()
            if (now := time.monotonic()) > looked + 0.2:
                looked = now
                for device in crowd:
                    device.late(now)
            if now > end:
                raise CommandFailed(
                    f"{waiting} of {len(crowd)} devices got no answer within {_PATIENCE:.0f} s"
                )


def _record(flow: Flow) -> SessionRecord:
    """An idle connection."""
    return SessionRecord(
        flow=flow,
        state=TcpState.ESTABLISHED,
        snd_seq=1_000,
        rcv_seq=2_000,
        unacked=b"",
        unsent=b"",
        unread=0,
        window=Window(2_000, 64_000, 65_535, 65_535, 2_000),
        timestamp=None,
        mss=1460,
        window_scale=(7, 7),
        sack=True,
    )
