"""A Binding Update (RFC 6275) comes in by the same door as a Registration Request, and the home agent decides alike.

The codec is a sketch for this test alone. Beside the fixed part and RFC 6275 it has the options of RFC 4285
(authentication, replay protection), RFC 5555 (IPv4 home and care-of address) and RFC 5648 (binding identifier).
Priorities of flow rules and stand-ins would come in a vendor option (19), which it leaves out.
"""

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.registration import (
    BindingIdentifier,
    HomePrefix,
    Options,
    Proof,
    Received,
    RefusalReason,
    Registration,
    RegistrationAnswer,
    RegistrationFlag,
)
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.registration import Flag
from tests.roles.homeworld import AN1, AN2, AN4, DEVICE_KEY, HA, HOA, HOA6, Home

UPDATE = struct.Struct(
    "!BBBBHHHH"
)  # payload protocol, length, type, reserved, checksum, sequence, flags, lifetime
ACKNOWLEDGEMENT = struct.Struct("!BBBBHBBHH")  # ... checksum, status, flags, sequence, lifetime
BINDING_UPDATE, BINDING_ACKNOWLEDGEMENT = 5, 6
A, H = 0x8000, 0x4000  # acknowledge, home registration
UNIT = 4  # seconds (section 6.1.7)
AUTHENTICATION, REPLAY, HOME_V4, CARE_OF_V4, IDENTIFIER = 9, 10, 29, 30, 35
STATUS = {  # section 6.1.8, RFC 4285 section 7, RFC 5648 section 8
    None: 0,
    RefusalReason.UNSPECIFIED: 128,
    RefusalReason.PROHIBITED: 129,
    RefusalReason.NO_RESOURCES: 130,
    RefusalReason.TOO_MANY_CARE_OF_ADDRESSES: 130,
    RefusalReason.MALFORMED: 128,
    RefusalReason.NOT_FRESH: 144,
    RefusalReason.NOT_AUTHENTIC: 146,
    RefusalReason.MULTIPATH_NOT_ALLOWED: 164,
}


def option(number: int, data: bytes) -> bytes:
    return bytes((number, len(data))) + data


def authentication(message: bytes, key: Association) -> bytes:
    """RFC 4285 section 5: the mobile-home option, last in the message; it covers all before its authenticator."""
    size = 5 + key.algorithm.authenticator_bytes
    covered = message + bytes((AUTHENTICATION, size, 1)) + key.spi.to_bytes(4, "big")
    return covered + key.digest(covered)


def binding_update(
    care_of: IPv4Address,
    lifetime: int,
    timestamp: int,
    *,
    key: Association = DEVICE_KEY,
    identifier: int | None = None,
) -> bytes:
    options = option(HOME_V4, bytes((32 << 2, 0)) + HOA.packed) + option(
        CARE_OF_V4, bytes(2) + care_of.packed
    )
    if identifier is not None:
        options += option(IDENTIFIER, identifier.to_bytes(2, "big") + bytes(2))
    options += option(REPLAY, timestamp.to_bytes(8, "big"))
    fixed = UPDATE.pack(59, 0, BINDING_UPDATE, 0, 0, timestamp & 0xFFFF, A | H, lifetime // UNIT)
    return authentication(fixed + options, key)


def read_update(message: bytes, home_address: IPv6Address) -> Registration:
    """`home_address` comes in the destination option of the packet."""
    *_, lifetime = UPDATE.unpack_from(message)
    found: dict[int, bytes] = {}
    place, proof = UPDATE.size, None
    while place < len(message):
        number, length = message[place : place + 2]
        data = message[place + 2 : place + 2 + length]
        if number == AUTHENTICATION:
            proof = Proof(int.from_bytes(data[1:5], "big"), message[: place + 7], data[5:])
            break  # what follows is not covered
        found[number] = data
        place += 2 + length
    identifier = found.get(IDENTIFIER)
    return Registration(
        home_address=IPv4Address(found[HOME_V4][2:6]),
        home_agent=HA,  # where the packet was sent to; its IPv4 address, as the home agent knows itself
        care_of=IPv4Address(found[CARE_OF_V4][2:6]),
        lifetime=lifetime * UNIT,
        identification=int.from_bytes(found[REPLAY], "big"),
        flags=RegistrationFlag.CO_LOCATED | RegistrationFlag.REVERSE_TUNNEL,  # there are no foreign agents
        proof=proof,
        options=Options(
            prefixes=(HomePrefix(home_address),),
            binding=None if identifier is None else BindingIdentifier(int.from_bytes(identifier[:2], "big")),
        ),
    )


def write_acknowledgement(
    registration: Registration,
    answer: RegistrationAnswer,
    home_agent: IPv4Address,
    *,
    mobile: Association | None,
    agent: Association | None,
) -> bytes:
    assert agent is None
    status, sequence = STATUS[answer.refused], registration.identification & 0xFFFF
    lifetime = answer.lifetime // UNIT
    message = ACKNOWLEDGEMENT.pack(59, 0, BINDING_ACKNOWLEDGEMENT, 0, 0, status, 0, sequence, lifetime)
    message += option(REPLAY, answer.identification.to_bytes(8, "big"))
    return message if mobile is None else authentication(message, mobile)


def give(home: Home, message: bytes, source: IPv4Address) -> tuple[int, int]:
    """A Binding Update arrives; status and lifetime of the acknowledgement."""
    registration = read_update(message, HOA6)
    received = Received(registration, Source(source, 0, "core"), len(message), write_acknowledgement)
    actions = home.role.register(received, now=home.now)
    (reply,) = (action for action in actions if isinstance(action, a.Reply))
    home.perform([action for action in actions if action is not reply])
    *_, status, _flags, _sequence, lifetime = ACKNOWLEDGEMENT.unpack_from(reply.message)
    return status, lifetime * UNIT


def state(home: Home) -> tuple[object, ...]:
    """Bindings, rows and forwarding."""
    return home.role.visitor_list(now=home.now), home.tables()


def counted(home: Home) -> dict[str, int]:
    return {name: number for name, number in home.counts.items() if name.startswith("refused-")}


# Care-of address, lifetime, binding identifier; None as lifetime: time passes
TIMELINES: dict[str, Sequence[tuple[IPv4Address, int | None, int | None]]] = {
    "a registration": [(AN1, 300, None)],
    "more than the home agent grants": [(AN1, 7200, None)],
    "a renewal": [(AN1, 300, None), (AN1, 300, None)],
    "a move": [(AN1, 300, None), (AN2, 300, None)],
    "a very short registration": [(AN1, 300, None), (AN1, 8, None)],
    "two care-of addresses": [(AN1, 300, 1), (AN2, 200, 2)],
    "one of two expires": [(AN1, 300, 1), (AN2, 40, 2), (AN1, None, None)],
    "one of two is cancelled": [(AN1, 300, 1), (AN2, 200, 2), (AN1, 0, 1)],
    "all are cancelled": [(AN1, 300, 1), (AN2, 200, 2), (HOA, 0, None)],
    "the home agent's own address": [(AN1, 300, None), (HA, 300, None)],
    "a care-of address that no host can have": [(IPv4Address("224.0.0.1"), 300, None)],
    "one care-of address too many": [(AN1, 300, 1), (AN2, 300, 2), (AN4, 300, 3)],
}


@pytest.mark.parametrize("name", TIMELINES)
def test_a_binding_update_is_decided_as_a_registration_request(name: str) -> None:
    configuration = HomeAgentConfiguration(HA, max_simultaneous=2)
    four, six = Home(configuration=configuration), Home(configuration=configuration)
    timestamp = ntp64(four.now)
    for care_of, lifetime, identifier in TIMELINES[name]:
        for home in (four, six):
            home.advance(50.0)
        if lifetime is None:
            continue
        timestamp = max(timestamp + 1, ntp64(four.now))
        code = four.device.register(
            care_of, lifetime, bid=identifier, flags=Flag.T | Flag.D, identification=timestamp
        )
        status, granted = give(six, binding_update(care_of, lifetime, timestamp, identifier=identifier), AN1)
        assert (code == 0) is (status == 0)
        assert granted in ((min(lifetime, configuration.max_lifetime),) if status == 0 else (0,))
        assert state(six) == state(four)
        assert counted(six) == counted(four)
    assert [(event.kind, event.detail) for event in six.events] == [
        (event.kind, event.detail) for event in four.events
    ]


def test_a_binding_update_is_refused_as_a_registration_request() -> None:
    home = Home()
    now = ntp64(home.now)
    assert give(home, binding_update(AN1, 300, now), AN1) == (0, 300)
    assert home.one.register(AN4, bid=1) == 0
    before = state(home)
    refused = {
        "by a stranger": (binding_update(AN2, 300, now + 1, key=Association(300, b"?" * 16)), 146),
        "replayed": (binding_update(AN1, 300, now), 144),
        "from long ago": (binding_update(AN1, 300, now - (100 << 32)), 144),
        "identifier of a stand-in": (binding_update(AN1, 300, now + 2, identifier=1), 164),
    }
    for name, (message, status) in refused.items():
        assert give(home, message, AN1) == (status, 0), name
    assert state(home) == before
    assert counted(home) == {"refused-131": 1, "refused-133": 2, "refused-152": 1}


def test_both_versions_share_one_replay_state() -> None:
    home = Home()
    now = ntp64(home.now)
    assert give(home, binding_update(AN1, 300, now + 5), AN1) == (0, 300)
    assert home.device.register(AN2, identification=now + 5) == 133
    assert home.device.register(AN2, identification=now + 6) == 0
    assert give(home, binding_update(AN1, 300, now + 6), AN1)[0] == 144
    assert home.care_of() == [AN2]
