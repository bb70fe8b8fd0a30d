"""Requests of policy servers (RFC 5176): a datagram is dropped with a reason, refused with an Error-Cause, or says what to do.

Time is an argument. It must not know sockets, nor what becomes of a request.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, Final

from pyrad.packet import CoAPacket, PacketError

from locum.node.policy.profile_attributes import ProfileError, change_of, home_address_of, pushed_numbers
from locum.roles.profile import ProfileChange
from locum.roles.profile_requests import PushOutcome, Session
from locum.security.radius import message_authentic, request_authentic
from locum.wire.errors import WireError
from locum.wire.radius import (
    MESSAGE_AUTHENTICATOR,
    VENDOR_SPECIFIC,
    Attribute,
    Code,
    RadiusPacket,
    decode_radius,
    decode_vendor,
    within,
)

USER_NAME, NAS_IP_ADDRESS, SERVICE_TYPE, FRAMED_IP_ADDRESS = 1, 4, 6, 8
STATE, NAS_IDENTIFIER, PROXY_STATE, ACCT_TERMINATE_CAUSE = 24, 32, 33, 49
EVENT_TIMESTAMP, NAS_IPV6_ADDRESS, ERROR_CAUSE = 55, 95, 101
AUTHORIZE_ONLY: Final = 17  # a value of Service-Type
_ANYWHERE = frozenset(
    (USER_NAME, NAS_IP_ADDRESS, FRAMED_IP_ADDRESS, NAS_IDENTIFIER, PROXY_STATE, EVENT_TIMESTAMP,
     MESSAGE_AUTHENTICATOR, NAS_IPV6_ADDRESS)
)  # fmt: skip
_OF_REQUEST = {
    Code.COA_REQUEST: _ANYWHERE | {STATE, SERVICE_TYPE},
    Code.DISCONNECT_REQUEST: _ANYWHERE | {ACCT_TERMINATE_CAUSE},
}
_ONCE = (_ANYWHERE | {STATE, SERVICE_TYPE, ACCT_TERMINATE_CAUSE}) - {PROXY_STATE}


class ErrorCause(IntEnum):
    """Values of Error-Cause that this node says (RFC 5176 section 3.5)."""

    UNSUPPORTED_ATTRIBUTE = 401
    MISSING_ATTRIBUTE = 402
    NAS_MISMATCH = 403
    INVALID_REQUEST = 404
    UNSUPPORTED_SERVICE = 405
    INVALID_VALUE = 407
    SESSION_NOT_FOUND = 503
    NOT_REMOVABLE = 504
    NO_RESOURCES = 506


CAUSES: Final = {
    PushOutcome.STALE: ErrorCause.INVALID_VALUE,
    PushOutcome.INVALID: ErrorCause.INVALID_VALUE,
    PushOutcome.NO_ROOM: ErrorCause.NO_RESOURCES,
    PushOutcome.NOT_REMOVABLE: ErrorCause.NOT_REMOVABLE,
    PushOutcome.UNKNOWN: ErrorCause.SESSION_NOT_FOUND,
}


class Dropped(Exception):
    """A datagram that gets no answer; the text is the reason for the counter."""


class Refused(Exception):
    """A request that is answered with this cause; the text is for people."""

    def __init__(self, cause: ErrorCause, text: str) -> None:
        super().__init__(text)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class PushRequest:
    """The request of a policy server. Without a change the registrations of the session end."""

    session: Session
    change: ProfileChange | None = None


@dataclass(frozen=True, slots=True)
class Itself:
    """Names of this node, by which a request may mean it."""

    identifier: str
    address: IPv4Address | None


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds since 1970: now, the start of this daemon, and how far a request's time may be off."""

    now: float
    begun: float
    window: float


def authentic(data: bytes, secret: bytes) -> tuple[bytes, RadiusPacket]:
    """The packet without padding, and what it says, if it was made with the secret. Raises Dropped."""
    try:
        whole, packet = within(data), decode_radius(data)
    except WireError as problem:
        raise Dropped(f"malformed-{problem.reason}") from None
    if packet.code not in (Code.COA_REQUEST, Code.DISCONNECT_REQUEST):
        raise Dropped("code")
    if not request_authentic(whole, secret):
        raise Dropped("not-authentic")
    signed = message_authentic(whole, secret)
    if signed is None:
        raise Dropped("no-message-authenticator")
    if not signed:
        raise Dropped("not-authentic")
    return whole, packet


def check_time(packet: RadiusPacket, times: Times) -> None:
    """Old and recorded requests do nothing. Raises Dropped.

    Requests are remembered in memory for as long as their time is good, thus those from before the start are dropped.
    """
    stamps = packet.all(EVENT_TIMESTAMP)
    if not stamps:
        raise Dropped("no-timestamp")
    if len(stamps) > 1 or len(stamps[0]) != 4:
        raise Dropped("malformed-timestamp")
    at = int.from_bytes(stamps[0], "big")
    if at < times.now - times.window:
        raise Dropped("old")
    if at > times.now + times.window:
        raise Dropped("future")
    if at < int(times.begun):
        raise Dropped("before-start")


def request_of(packet: RadiusPacket, whole: bytes, known: Any, itself: Itself) -> PushRequest:
    """The content of an authentic request; `known` is the dictionary of attributes. Raises Refused."""
    code = Code(packet.code)
    _check_attributes(packet, code, known)
    for value in packet.all(SERVICE_TYPE):
        only = int.from_bytes(value, "big") == AUTHORIZE_ONLY
        service = "Authorize-Only" if only else "this Service-Type"
        raise Refused(ErrorCause.UNSUPPORTED_SERVICE, f"{service} is not there")
    _check_node(packet, itself)
    try:
        request = CoAPacket(packet=whole, dict=known)
        session = _session(packet, home_address_of(request))
        change = change_of(request)
    except PacketError as problem:
        raise Refused(ErrorCause.INVALID_REQUEST, str(problem)) from None
    except ProfileError as problem:
        raise Refused(ErrorCause.INVALID_VALUE, str(problem)) from None
    except KeyError as problem:
        raise Refused(ErrorCause.MISSING_ATTRIBUTE, f"{problem.args[0]} is missing") from None
    if code is Code.COA_REQUEST and change is None:
        raise Refused(ErrorCause.MISSING_ATTRIBUTE, "there is nothing to change")
    return PushRequest(session, change)


def echoed(packet: RadiusPacket) -> tuple[Attribute, ...]:
    """Attributes of a request that its answer repeats: State, and each Proxy-State in order (RFC 5176 section 3.1)."""
    kinds = (STATE, PROXY_STATE) if packet.code == Code.COA_REQUEST else (PROXY_STATE,)
    return tuple(attribute for attribute in packet.attributes if attribute.kind in kinds)


def _check_attributes(packet: RadiusPacket, code: Code, known: Any) -> None:
    """All are understood, and those that name something are there once. Raises Refused."""
    vendor, naming, changing = pushed_numbers(known)
    ours = naming | changing if code is Code.COA_REQUEST else naming
    for attribute in packet.attributes:
        if attribute.kind == VENDOR_SPECIFIC:
            _check_vendor(attribute.value, vendor, ours)
        elif attribute.kind not in _OF_REQUEST[code]:
            raise Refused(
                ErrorCause.UNSUPPORTED_ATTRIBUTE, f"attribute {attribute.kind} is not supported here"
            )
    for kind in _ONCE:
        if len(packet.all(kind)) > 1:
            raise Refused(ErrorCause.INVALID_REQUEST, f"attribute {kind} is there more than once")


def _check_vendor(value: bytes, vendor: int, ours: frozenset[int]) -> None:
    try:
        number, inner = decode_vendor(value)
    except WireError as problem:
        raise Refused(ErrorCause.INVALID_REQUEST, str(problem)) from None
    for attribute in inner:
        if number != vendor or attribute.kind not in ours:
            text = f"attribute {attribute.kind} of vendor {number} is not supported here"
            raise Refused(ErrorCause.UNSUPPORTED_ATTRIBUTE, text)


def _check_node(packet: RadiusPacket, itself: Itself) -> None:
    """The node that is meant is this one; without a name it is. Raises Refused."""
    names = packet.all(NAS_IDENTIFIER)
    addresses = [_address(value, "NAS-IP-Address") for value in packet.all(NAS_IP_ADDRESS)]
    other = any(name != itself.identifier.encode() for name in names)
    other = other or any(address != itself.address for address in addresses)
    if other or packet.all(NAS_IPV6_ADDRESS):
        raise Refused(ErrorCause.NAS_MISMATCH, "another node is meant")


def _session(packet: RadiusPacket, home_address: IPv4Address | None) -> Session:
    """The mobile node that is meant. Raises Refused."""
    for value in packet.all(FRAMED_IP_ADDRESS):
        framed = _address(value, "Framed-IP-Address")
        if home_address not in (None, framed):
            raise Refused(ErrorCause.INVALID_REQUEST, "two home addresses are named")
        home_address = framed
    nai = None
    for value in packet.all(USER_NAME):
        try:
            nai = value.decode()
        except UnicodeDecodeError:
            raise Refused(ErrorCause.INVALID_VALUE, "User-Name is not UTF-8") from None
        if not nai:
            raise Refused(ErrorCause.INVALID_VALUE, "User-Name is empty")
    if nai is None and home_address is None:
        raise Refused(ErrorCause.MISSING_ATTRIBUTE, "no mobile node is named")
    return Session(nai, home_address)


def _address(value: bytes, name: str) -> IPv4Address:
    if len(value) != 4:
        raise Refused(ErrorCause.INVALID_VALUE, f"{name} has {len(value)} bytes")
    return IPv4Address(value)
