"""Destinations of packets in a test: the data plane model decides by a role's forwarding actions."""

from ipaddress import IPv4Address, IPv6Address

from locum.dataplane.layout.maps import Outcome
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment
from locum.dataplane.model.explain import Explanation, Question, explain
from locum.dataplane.model.frames import ETHERTYPES
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import BindingEntry
from locum.wire.control import Flow

CORE = "core"
LINKS = (CORE, "radio0", "radio1", "eth0")
EXPERIMENT = 253  # a protocol (RFC 3692)
_TAP = len(LINKS) + 1
_PEERS: dict[int, Addr] = {4: IPv4Address("10.9.0.1"), 6: IPv6Address("2001:db8:9::1")}


def packet_of(flow: Flow, *, link: str | None = CORE, outer_source: Addr | None = None) -> Question:
    """A packet from the peer of this flow, which arrives on a link, perhaps in a tunnel from `outer_source`."""
    return Question(
        flow.peer,
        flow.local,
        flow.protocol,
        flow.peer_port,
        flow.local_port,
        link=link,
        outer_source=outer_source,
    )


def ordinary(home_address: Addr, *, outer_source: Addr | None = None) -> Question:
    """A packet for this home address that no flow rule of the tests is about."""
    peer = _PEERS[home_address.version]
    return packet_of(Flow(EXPERIMENT, home_address, 0, peer, 0), outer_source=outer_source)


def decision(state: ForwardingState, packet: Question) -> Explanation:
    """The decision of a host with this forwarding about the packet."""
    return explain(state, packet, links=LINKS)


def tunnel_of(state: ForwardingState, packet: Question) -> Tunnel | None:
    """The tunnel that a host with this forwarding sends the packet into, the first of several; None: into none."""
    return decision(state, packet).tunnel


def care_of(state: ForwardingState, packet: Question) -> list[Addr]:
    """The far ends of all tunnels that copies or shares of the packet go into, perhaps one that ends where it begins."""
    found = decision(state, packet)
    if found.outcome not in (Outcome.ENCAPSULATED, Outcome.LOCAL) or found.entry is None:
        return []
    if found.rule is not None:
        return [] if found.tunnel is None else [found.tunnel.destination]
    return [tunnel.destination for tunnel in found.entry.tunnels]


def tunnel_after_release(state: ForwardingState, packet: Question) -> Tunnel | None:
    """The tunnel that a held packet goes into when it is released; None: the host's routes have it."""
    data = packet.packet()
    model = Model(state, Environment(_TAP, {name: number for number, name in enumerate(LINKS, start=1)}))
    result = model.ingress(bytes(12) + ETHERTYPES[data[0] >> 4] + data, _TAP)
    if result.outcome is not Outcome.ENCAPSULATED:
        assert result.outcome is Outcome.PASSED, result
        return None
    entry = model.met[-1]
    assert isinstance(entry, BindingEntry)
    return entry.tunnels[0]
