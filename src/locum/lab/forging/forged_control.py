"""Forged messages to the control port 5683: CoAP without protection, under unknown keys, replayed, and in the name
of nodes that have an association with the target; over UDP and TCP."""

import struct
from collections.abc import Callable
from functools import partial
from random import Random

from locum.lab.forging.forgery import COAP, Aim, Makers, Port, Shot, plain, spoofed, truncated
from locum.node.coap.served import SERVED

_SETTINGS = b"\x00\xe1"  # an empty one, which opens a connection (RFC 8323 section 5.3)
_FALSE_LENGTH = 0xFFFFFFFF
_PAYLOAD = b"\xff"
_PATHS = tuple(bytes((0xB0 | len(path),)) + path.encode() for path in SERVED)  # each as an Uri-Path option
_IDENTIFIERS = [bytes((number, end)) for number in range(1, 8) for end in (1, 2)]
"""OSCORE sender identifiers of the lab's nodes: they are no secret."""


def coap(random: Random, options: bytes, payload: bytes, token: bytes = b"") -> bytes:
    """A confirmable POST (RFC 7252 section 3)."""
    head = bytes((0x40 | len(token), 0x02)) + random.randbytes(2)
    return head + token + options + (_PAYLOAD + payload if payload else b"")


def coap_tcp(options: bytes, payload: bytes, length: int | None = None) -> bytes:
    """Settings, then a POST (RFC 8323 section 3.2); a false `length` may be claimed."""
    body = options + (_PAYLOAD + payload if payload else b"")
    size = len(body) if length is None else length
    if size < 13:
        return _SETTINGS + bytes((size << 4, 0x02)) + body
    if size < 269:
        return _SETTINGS + bytes((0xD0, size - 13, 0x02)) + body
    if size < 65805:
        return _SETTINGS + b"\xe0" + struct.pack("!H", size - 269) + b"\x02" + body
    return _SETTINGS + b"\xf0" + struct.pack("!I", min(size - 65805, 0xFFFFFFFF)) + b"\x02" + body


def oscore(kid: bytes, number: int) -> bytes:
    """An OSCORE option (RFC 8613 section 6.1) with a sequence number of two bytes and a key identifier."""
    value = bytes((0x0A,)) + number.to_bytes(2, "big") + kid
    return bytes((0x90 | len(value),)) + value


def _prepare(aim: Aim, random: Random) -> bytes:
    """The body of a 634 that asks for the home address."""
    return bytes((0xA5, 0, 1, 1, 0x50)) + random.randbytes(16) + b"\x02\x81\x44" + aim.home_address.packed


def _forged(random: Random, kid: bytes, size: int = 80) -> tuple[bytes, bytes]:
    """OSCORE option and payload under an unknown key."""
    return oscore(kid, random.getrandbits(16)), random.randbytes(size)


def _again(message: bytes, random: Random) -> bytes:
    """The same message with a new message ID, so that it is no retransmission (RFC 7252 section 4.2)."""
    return message[:2] + random.randbytes(2) + message[4:]


def datagrams(aim: Aim, random: Random, port: Port) -> Makers:
    """Every kind over UDP."""
    heard = [control for control in aim.controls if str(control.target) == port.address] or list(aim.controls)
    peers = [str(control.source) for control in heard] or [str(aim.home_address)]

    def genuine() -> bytes:
        return random.choice(heard).message if heard else coap(random, *_forged(random, _IDENTIFIERS[0]))

    def replayed_as_peer() -> Shot:
        kind = "control-replayed-as-peer"
        if not heard:
            return spoofed(kind, port, genuine(), peers[0], COAP)
        overheard = random.choice(heard)
        message = overheard.message if random.random() < 0.5 else _again(overheard.message, random)
        return spoofed(kind, port, message, str(overheard.source), COAP)

    def forged_as_peer() -> Shot:
        message = coap(random, *_forged(random, random.choice(_IDENTIFIERS)), random.randbytes(2))
        return spoofed("control-forged-as-peer", port, message, random.choice(peers), COAP)

    makers: dict[str, Callable[[], bytes]] = {
        "control-unprotected": lambda: coap(
            random, random.choice(_PATHS), _prepare(aim, random), random.randbytes(4)
        ),
        "control-unknown-association": lambda: coap(random, *_forged(random, random.randbytes(3))),
        "control-forged": lambda: coap(random, *_forged(random, random.choice(_IDENTIFIERS))),
        "control-oversized": lambda: coap(random, oscore(random.choice(_IDENTIFIERS), 1), bytes(1300)),
        "control-replayed": genuine,
    }
    broken: dict[str, Callable[[], bytes]] = {
        "control-noise": lambda: random.randbytes(random.randrange(1, 1200)),
        "control-truncated": lambda: truncated(genuine(), random),
    }
    return {
        **{kind: partial(_made, kind, port, make, None) for kind, make in makers.items()},
        **{kind: partial(_made, kind, port, make, aim.broken[4]) for kind, make in broken.items()},
        "control-replayed-as-peer": replayed_as_peer,
        "control-forged-as-peer": forged_as_peer,
    }


def connections(aim: Aim, random: Random, port: Port) -> Makers:
    """Every kind over TCP, each on a connection of its own."""
    makers: dict[str, Callable[[], bytes]] = {
        "control-tcp-noise": lambda: random.randbytes(random.randrange(1, 1200)),
        "control-tcp-unprotected": lambda: coap_tcp(random.choice(_PATHS), _prepare(aim, random)),
        "control-tcp-false-length": lambda: coap_tcp(b"", b"", _FALSE_LENGTH),
        "control-tcp-settings": lambda: _SETTINGS,
        "control-tcp-forged": lambda: coap_tcp(*_forged(random, random.choice(_IDENTIFIERS))),
    }
    noise = "control-tcp-noise"
    return {
        kind: partial(_made, kind, port, make, aim.broken[4] if kind == noise else None)
        for kind, make in makers.items()
    }


def _made(kind: str, port: Port, make: Callable[[], bytes], source: str | None) -> Shot:
    return plain(kind, port, make(), source)
