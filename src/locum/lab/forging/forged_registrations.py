"""Forged messages to port 434: requests, replies and revocations, and UDP tunnel data (RFC 3519)."""

from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Address
from random import Random

from locum.lab.forging.forged_tunnels import inner_packet
from locum.lab.forging.forgery import (
    NTP_EPOCH,
    REGISTRATION,
    Aim,
    Makers,
    Port,
    Shot,
    altered,
    plain,
    signed,
    spoofed,
    truncated,
)
from locum.wire.mobile_ip.extensions.authentication import AuthKind
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment

LARGEST = 60_000
OWNER, MEMBER, AGENT = 1000, 1001, 2000
"""Security parameter indices: of the mobile node that is attacked, of the other one, of the first foreign agent."""
_TUNNEL_DATA = b"\x04\x04\x00\x00"  # RFC 3519 section 3.3: IP-in-IP


def registrations(aim: Aim, random: Random, port: Port) -> Makers:
    """Every kind of message for this port, by name."""
    return {
        **_well_formed(aim, random, port),
        **_broken(aim, random, port),
        **_as_another(aim, random, port),
        **_revocations(aim, random, port),
    }


def request(aim: Aim, random: Random, lifetime: int = 300) -> bytes:
    """A request for the home address that would bind it to the stranger, without any authentication."""
    identification = (int(aim.now + NTP_EPOCH + random.randrange(1000)) << 32) | random.getrandbits(32)
    care_of = random.choice(aim.care_of or (aim.stranger,))
    flags = Flag.T if care_of in aim.agents else Flag.T | Flag.D  # D is for a care-of address of one's own
    return RegistrationRequest(
        lifetime, aim.home_address, aim.home_agent, care_of, identification, flags
    ).encode()


def reply(aim: Aim, random: Random) -> bytes:
    """A reply of acceptance or denial for the home address, under an unknown key."""
    code = random.choice((Code.ACCEPTED, Code.MOBILE_NODE_FAILED_AUTHENTICATION))
    message = RegistrationReply(code, 0, aim.home_address, aim.home_agent, random.getrandbits(64)).encode()
    return signed(message, AuthKind.MN_HA, OWNER, random.randbytes(32))


def _wrong(aim: Aim, random: Random, lifetime: int) -> bytes:
    return signed(request(aim, random, lifetime), AuthKind.MN_HA, OWNER, random.randbytes(32))


def _genuine(aim: Aim, random: Random) -> bytes:
    return random.choice(aim.requests) if aim.requests else _wrong(aim, random, 300)


def _well_formed(aim: Aim, random: Random, port: Port) -> Makers:
    def oversized() -> bytes:
        size = LARGEST if random.random() < 0.01 else 1400
        filler = b"\xfe\xfa" + bytes(250)  # a skippable extension of no known type
        message = request(aim, random) + filler * (size // len(filler))
        return signed(message, AuthKind.MN_HA, OWNER, random.randbytes(32))

    def other_mobile() -> bytes:
        spi = random.choice(
            (OWNER, MEMBER)
        )  # the owner's index with the wrong key, the wrong index with its key
        return signed(request(aim, random, random.choice((0, 300))), AuthKind.MN_HA, spi, aim.other_key)

    def tunnel() -> bytes:
        return _TUNNEL_DATA + inner_packet(*_either_way(aim, random), random)

    makers: dict[str, Callable[[], bytes]] = {
        "registration-wrong-key": lambda: _wrong(aim, random, random.choice((1, 300, 0xFFFF))),
        "registration-unsigned": lambda: request(aim, random),
        "registration-oversized": oversized,
        "registration-other-mobile": other_mobile,
        "registration-replayed": lambda: _genuine(aim, random),
        "deregistration-forged": lambda: _wrong(aim, random, 0),
        "tunnel-udp": tunnel,
    }
    return {kind: partial(_from_stranger, kind, port, make) for kind, make in makers.items()}


def _broken(aim: Aim, random: Random, port: Port) -> Makers:
    def tunnel() -> bytes:
        return _TUNNEL_DATA + truncated(inner_packet(*_either_way(aim, random), random), random)

    makers: dict[str, Callable[[], bytes]] = {
        "registration-truncated": lambda: truncated(_genuine(aim, random), random),
        "registration-altered": lambda: altered(_genuine(aim, random), random),
        "registration-noise": lambda: random.randbytes(random.randrange(1, 600)),
        "revocation-truncated": lambda: truncated(_revocation(aim, random, by_home=True), random),
        "tunnel-udp-truncated": tunnel,
    }
    return {kind: partial(_from_stranger, kind, port, make, aim.broken[4]) for kind, make in makers.items()}


def _from_stranger(kind: str, port: Port, make: Callable[[], bytes], source: str | None = None) -> Shot:
    return plain(kind, port, make(), source)


def _as_another(aim: Aim, random: Random, port: Port) -> Makers:
    """Messages in the name of an agent: replies, and a request as relayed by one of them."""

    def relayed() -> bytes:
        message = _wrong(aim, random, random.choice((0, 300)))
        return signed(message, AuthKind.FA_HA, AGENT, random.randbytes(32))

    makers: dict[str, Callable[[], bytes]] = {
        "registration-as-agent": relayed,
        "reply-forged": lambda: reply(aim, random),
        "reply-replayed": lambda: random.choice(aim.replies) if aim.replies else reply(aim, random),
    }
    return {kind: partial(_claimed, kind, aim, random, port, make) for kind, make in makers.items()}


def _revocations(aim: Aim, random: Random, port: Port) -> Makers:
    """RFC 3543 revocations (7) and acknowledgments (15), unsigned or wrongly signed; and from a stranger."""
    by_home = port.node != "ha"

    def wrong() -> bytes:
        return signed(_revocation(aim, random, by_home), AuthKind.FA_HA, AGENT, random.randbytes(16))

    def acknowledgment() -> bytes:
        message = RevocationAcknowledgment(aim.home_address, random.getrandbits(32), True).encode()
        return random.choice((message, signed(message, AuthKind.FA_HA, AGENT, random.randbytes(16))))

    makers: dict[str, Callable[[], bytes]] = {
        "revocation-unsigned": lambda: _revocation(aim, random, by_home),
        "revocation-wrong-key": wrong,
        "revocation-reflected": lambda: _revocation(aim, random, not by_home),
        "acknowledgment-forged": acknowledgment,
    }
    found = {kind: partial(_claimed, kind, aim, random, port, make) for kind, make in makers.items()}
    return {
        **found,
        "revocation-of-a-stranger": partial(_from_stranger, "revocation-of-a-stranger", port, wrong),
    }


def _revocation(aim: Aim, random: Random, by_home: bool) -> bytes:
    addresses = (aim.home_address, aim.home_agent, aim.agents[0])
    return RegistrationRevocation(*addresses, random.getrandbits(32), by_home, True).encode()


def _claimed(kind: str, aim: Aim, random: Random, port: Port, make: Callable[[], bytes]) -> Shot:
    """From port 434 of an agent that the target knows: no host accepts packets from its own address."""
    known = [str(address) for address in (aim.home_agent, aim.agents[0]) if str(address) != port.address]
    return spoofed(kind, port, make(), random.choice(known), REGISTRATION)


def _either_way(aim: Aim, random: Random) -> tuple[IPv4Address, IPv4Address]:
    outwards = (aim.home_address, aim.correspondent)
    return outwards if random.random() < 0.5 else outwards[::-1]
