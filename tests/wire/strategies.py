"""Hypothesis strategies for the values of the wire package: every value they give can be encoded."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from hypothesis import strategies as st

from locum.wire.control import (
    MAX_SESSIONS,
    MAX_WAITING,
    MAX_WINDOW,
    Abandon,
    Answer632,
    Cancel,
    Done,
    Fetch,
    FinalState,
    Finish,
    Flow,
    Handshake,
    Listener,
    Notice618,
    Policy,
    Reclaim,
    SessionStatus,
    Status,
    TakeoverPrepare,
    TakeoverTransfer,
)
from locum.wire.control.answer import MAX_SURPLUS
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import (
    AccessTechnology,
    AgentNonceReply,
    Authentication,
    AuthKind,
    DynamicHomeAgent,
    EncapsulatingDelivery,
    Extension,
    FlowAction,
    FlowBinding,
    GeneralizedAuthentication,
    HomeAgentUse,
    HomeNonceReply,
    InnerEncapsulation,
    Ipv6PrefixReply,
    Ipv6PrefixRequest,
    Ipv6TunnelingMode,
    MobileFaChallenge,
    Multipath,
    Nai,
    NaiCarrying,
    NonceRequest,
    Padding,
    PrefixCode,
    RevocationSupport,
    UdpTunnelCode,
    UdpTunnelReply,
    UdpTunnelRequest,
    Unknown,
    VendorCritical,
    VendorNormal,
)
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector, UnknownSelector

KNOWN_SKIPPABLE = {130, 131, 132, 134, 136, 137, 144, 152, 154}

u8 = st.integers(0, 0xFF)
u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)
u64 = st.integers(0, 0xFFFFFFFFFFFFFFFF)
positions = st.integers(0, (1 << 63) - 1)
addresses4 = u32.map(IPv4Address)
addresses6 = st.integers(0, (1 << 128) - 1).map(IPv6Address)
addresses = addresses4 | addresses6
names = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF), min_size=1, max_size=60)


def _prefix(length: int, bits: int) -> tuple[IPv6Address, int]:
    spare = 128 - length if length <= 128 else 0
    return IPv6Address(bits >> spare << spare), length


prefixes = st.builds(_prefix, st.integers(0, 128) | st.just(255), st.integers(0, (1 << 128) - 1))


def _range(bits: int) -> st.SearchStrategy[tuple[int, int] | None]:
    ends = st.tuples(*[st.integers(0, (1 << bits) - 1)] * 2).map(lambda pair: (min(pair), max(pair)))
    return st.none() | ends | ends.map(lambda pair: (pair[0], pair[0]))


def _between4(ends: tuple[int, int]) -> tuple[IPv4Address, IPv4Address]:
    return IPv4Address(ends[0]), IPv4Address(ends[1])


def _between6(ends: tuple[int, int]) -> tuple[IPv6Address, IPv6Address]:
    return IPv6Address(ends[0]), IPv6Address(ends[1])


between4 = _range(32).map(lambda ends: ends and _between4(ends))
between6 = _range(128).map(lambda ends: ends and _between6(ends))
selectors4 = st.builds(
    Ipv4Selector, between4, between4, _range(32), _range(16), _range(16), _range(6), _range(8)
)
selectors6 = st.builds(
    Ipv6Selector, between6, between6, _range(32), _range(20), _range(16), _range(16), _range(6), _range(8)
)
unknown_selectors = st.builds(UnknownSelector, st.integers(3, 255), st.binary(max_size=20))
selectors = selectors4 | selectors6 | unknown_selectors
binding_identifiers = st.integers(1, 254)
flow_bindings = st.one_of(
    st.builds(
        FlowBinding,
        st.just(FlowAction.FORWARD),
        st.lists(binding_identifiers, min_size=1, max_size=8).map(tuple),
        selectors,
    ),
    st.builds(FlowBinding, st.just(FlowAction.DROP), st.just(()), selectors),
)
multipaths = st.builds(
    lambda binding, technology, label, flags: Multipath(binding, technology, label, *flags),
    binding_identifiers,
    st.sampled_from(AccessTechnology) | st.just(77),
    st.integers(1, 255),
    st.sampled_from([(False, False), (True, False), (False, True)]),
)

authentications = st.builds(Authentication, st.sampled_from(AuthKind), u32, st.binary(max_size=251))
plain_extensions: st.SearchStrategy[Extension] = st.one_of(
    st.just(Padding()),
    st.builds(GeneralizedAuthentication, u8, u32, st.binary(max_size=300)),
    st.builds(NonceRequest, st.sampled_from((40, 42)), u32),
    st.builds(AgentNonceReply, u32, u32, u32, u16, st.binary(min_size=16, max_size=40)),
    st.builds(HomeNonceReply, u32, u32, u32, u16, u16, st.binary(min_size=16, max_size=40)),
    st.builds(VendorCritical, u32, u16, st.binary(max_size=300)),
    st.builds(VendorNormal, u32, u16, st.binary(max_size=247)),
    st.builds(Nai, names),
    st.builds(NaiCarrying, u8, names),
    prefixes.map(lambda pair: Ipv6PrefixRequest(*pair)),
    st.builds(
        lambda code, pair: Ipv6PrefixReply(code, *pair), st.sampled_from(PrefixCode) | st.just(77), prefixes
    ),
    st.just(Ipv6TunnelingMode()),
    st.builds(RevocationSupport, u32, st.booleans()),
    st.builds(DynamicHomeAgent, st.sampled_from(HomeAgentUse), addresses4),
    st.builds(
        UdpTunnelRequest, st.sampled_from(InnerEncapsulation) | st.just(6), st.booleans(), st.booleans()
    ),
    st.builds(UdpTunnelReply, st.sampled_from(UdpTunnelCode) | st.just(65), st.booleans(), u16),
    st.builds(
        Unknown, st.integers(128, 255).filter(lambda n: n not in KNOWN_SKIPPABLE), st.binary(max_size=255)
    ),
)


@st.composite
def ordered_extensions(draw: st.DrawFn) -> tuple[Extension, ...]:
    """Extensions in an order that RFC 5944 section 3.6.1.3 allows."""
    few = st.lists(plain_extensions, max_size=2)
    found: list[Extension] = draw(few)
    found += draw(st.lists(multipaths, max_size=1))
    found += draw(st.lists(flow_bindings, max_size=2))
    if draw(st.booleans()):
        found.append(Authentication(AuthKind.MN_HA, draw(u32), draw(st.binary(max_size=64))))
        found += draw(few)
    if draw(st.booleans()):
        found.append(EncapsulatingDelivery())
    if draw(st.booleans()):
        found.append(MobileFaChallenge(draw(st.binary(min_size=1, max_size=255))))
    for kind in draw(st.permutations([AuthKind.MN_FA, AuthKind.FA_HA])):
        if draw(st.booleans()):
            found.append(Authentication(kind, draw(u32), draw(st.binary(max_size=64))))
    return tuple(found)


requests = st.builds(
    RegistrationRequest,
    lifetime=u16,
    home_address=addresses4,
    home_agent=addresses4,
    care_of_address=addresses4,
    identification=u64,
    flags=u8.map(Flag),
    extensions=ordered_extensions(),
)
replies = st.builds(
    RegistrationReply,
    code=st.sampled_from(Code) | st.just(200),
    lifetime=u16,
    home_address=addresses4,
    home_agent=addresses4,
    identification=u64,
    extensions=ordered_extensions(),
)
revocations = st.builds(
    RegistrationRevocation,
    addresses4,
    addresses4,
    addresses4,
    u32,
    st.booleans(),
    st.booleans(),
    ordered_extensions(),
)
acknowledgments = st.builds(RevocationAcknowledgment, addresses4, u32, st.booleans(), ordered_extensions())


@st.composite
def advertisements(draw: st.DrawFn) -> AgentAdvertisement:
    """Advertisements whose flags section 2.1.1 allows."""
    preference = st.integers(-(1 << 31), (1 << 31) - 1)
    routers = tuple(draw(st.lists(st.tuples(addresses4, preference), max_size=4)))
    foreign = draw(st.booleans())
    flags = AgentFlag.F if foreign else AgentFlag.H
    flags |= AgentFlag(draw(st.integers(0, 0x07FF))) & (AgentFlag.M | AgentFlag.G | AgentFlag.T | AgentFlag.U)
    if foreign:
        flags |= AgentFlag(draw(st.sampled_from([0, AgentFlag.R, AgentFlag.B, AgentFlag.H])))
    lengths = st.lists(st.integers(0, 32), min_size=len(routers), max_size=len(routers))
    care_of = st.lists(addresses4, min_size=1 if foreign else 0, max_size=5)
    return AgentAdvertisement(
        lifetime=draw(u16),
        addresses=routers,
        sequence=draw(u16),
        registration_lifetime=draw(u16),
        flags=flags,
        care_of_addresses=tuple(draw(care_of)),
        prefix_lengths=tuple(draw(lengths)) if draw(st.booleans()) else (),
        challenge=draw(st.none() | st.binary(min_size=1, max_size=32)),
        nai=draw(st.none() | names),
        routes_common_traffic=draw(st.booleans()),
        extensions=tuple(draw(st.lists(st.builds(Unknown, st.just(201), st.binary(max_size=9)), max_size=2))),
    )


def _flow(family: st.SearchStrategy[IPv4Address] | st.SearchStrategy[IPv6Address]) -> st.SearchStrategy[Flow]:
    return st.builds(Flow, u8, family, u16, family, u16)


flows = _flow(addresses4) | _flow(addresses6)
handovers = st.binary(min_size=16, max_size=16)
configuration = st.dictionaries(
    st.text(max_size=8),
    st.recursive(
        st.none() | st.booleans() | st.integers(-1000, 1 << 40) | st.binary(max_size=8) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=3,
)


def session_record(flow: Flow) -> dict[int, object]:
    """A record as the rule session-record has it."""
    return {
        0: flow.to_cbor(),
        1: 1,
        2: 1000,
        3: 2000,
        4: b"unacknowledged",
        5: b"unsent",
        6: 12,
        7: [2000, 65535, 65535, 65535, 2000],
        8: 77,
        9: 1460,
        10: [7, 7],
        11: True,
        12: [7200, 75, 9],
    }


numbers = st.integers(0, MAX_SESSIONS - 1)
homes = st.lists(addresses, max_size=3).map(tuple)
listeners = st.lists(
    st.builds(
        Listener,
        addresses,
        st.integers(1, 0xFFFF),
        st.sampled_from(Policy),
        st.integers(1, MAX_WAITING),
        st.integers(1, MAX_WINDOW),
    ),
    max_size=3,
    unique_by=lambda listener: (listener.address, listener.port),
).map(tuple)
requests634 = st.one_of(
    st.builds(
        TakeoverPrepare,
        handovers,
        homes,
        st.lists(flows, max_size=3).map(tuple),
        configuration,
        st.none() | st.sampled_from(Takes),
        st.none() | addresses,
        listeners,
    ),
    st.builds(
        TakeoverTransfer,
        handovers,
        st.lists(flows.map(session_record), max_size=3).map(tuple),
        configuration,
        st.lists(handovers, max_size=3).map(tuple),
    ),
    st.builds(Reclaim, st.none() | handovers, homes),
    st.builds(Fetch, handovers, numbers, positions, st.integers(0, 4 << 20)),
    st.builds(Finish, handovers),
    st.builds(Done, handovers, st.lists(numbers, max_size=3).map(tuple)),
    st.builds(Cancel, handovers),
    st.builds(Abandon, handovers, st.lists(numbers, max_size=3).map(tuple)),
)


@st.composite
def finals(draw: st.DrawFn) -> FinalState:
    """Final states whose tail lies within the received range."""
    tail = draw(st.binary(max_size=20))
    offset = draw(st.integers(0, 1 << 40))
    return FinalState(
        session=draw(numbers),
        ts_value=draw(st.none() | u32),
        received=offset + len(tail) + draw(st.integers(0, 100)),
        tail_offset=offset,
        peer_closed=draw(st.booleans()),
        error=draw(st.integers(0, 4095)),
        acked=draw(positions),
        tail=tail,
    )


statuses = st.builds(
    lambda status, least: replace(status, surplus=min(status.total - least, MAX_SURPLUS)),
    st.builds(
        SessionStatus,
        numbers,
        flows,
        st.sampled_from(Status),
        positions,
        positions,
        st.booleans(),
        st.integers(0, 4095),
        st.text(max_size=20),
        st.none()
        | st.builds(Handshake, u32, u32, st.integers(1, 0xFFFF), st.booleans(), st.integers(0, 0xFFFF)),
        st.binary(max_size=20),
    ),
    positions,
)
answers = st.builds(
    Answer632,
    status=st.sampled_from(Status),
    handover=st.none() | handovers,
    access_node=st.none() | addresses,
    sessions=st.lists(statuses, max_size=3).map(tuple),
    data=st.binary(max_size=40),
    more=st.booleans(),
    final=st.lists(finals(), max_size=3).map(tuple),
    application=configuration,
)
notices = st.builds(Notice618, addresses, st.booleans(), addresses)


@st.composite
def damaged(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were a valid message before a few of them were changed, cut off or added."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 3)):
            case 0:
                data[place] = draw(u8)
            case 1:
                del data[place:]
            case 2:
                del data[place]
            case _:
                data.insert(place, draw(u8))
    return bytes(data)
