"""UDP tunnels from registration to forwarding (RFC 3519): the home agent, and a foreign agent behind a NAT."""

from copy import deepcopy
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import FORWARDING, InstallOutbound
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration, TraversalPolicy
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.nat import TraversalMode
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import AuthKind, InnerEncapsulation, UdpTunnelReply, UdpTunnelRequest
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.tunnel_data import TunnelData
from tests.roles.packets import ordinary, tunnel_of

HOA, HOA6, HA = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9"), IPv4Address("10.5.0.1")
INSIDE, NAT, MOVED = IPv4Address("192.168.7.2"), IPv4Address("203.0.113.9"), IPv4Address("203.0.113.77")
DEFAULT = IPv4Address("10.3.0.1")
MN_HA, FA_HA = Association(1000, b"m" * 16), Association(2000, b"f" * 16)
NOW = 1_790_000_000.0
MAC = b"\2" * 6


class Home:
    """A home agent, and its data plane's state."""

    def __init__(self, policy: TraversalPolicy | None = None, *, agent: IPv4Address | None = None) -> None:
        self.role = HomeAgent(
            HomeAgentConfiguration(HA, traversal=policy or TraversalPolicy(interval=20)),
            [Mobile(HOA, MN_HA, HOA6, DEFAULT)],
            {} if agent is None else {agent: FA_HA},
            Random(1),
        )
        self.forwarding = ForwardingState()
        self.rows: dict[str, a.Persist] = {}
        self.perform(self.role.restore([], now=NOW))

    def perform(self, actions: list[a.Action]) -> list[bytes]:
        """Returns the replies."""
        replies: list[bytes] = []
        for action in actions:
            match action:
                case _ if type(action) in FORWARDING:
                    self.forwarding.perform(action)
                case a.Persist():
                    self.rows[action.key] = action
                case a.Reply():
                    replies.append(action.message)
        return replies

    def register(self, message: bytes, seen: IPv4Address, port: int, now: float = NOW) -> RegistrationReply:
        (reply,) = self.perform(self.role.receive(message, Source(seen, port, "eth0"), now=now))
        return RegistrationReply.decode(reply)

    @property
    def accepted(self) -> dict[tuple[Addr, Addr], int]:
        """The UDP port of each tunnel that is let in, 0: not in UDP."""
        listed = self.forwarding.acceptances.values()
        return {
            (acceptance.outer_source, acceptance.home_address): acceptance.source_port
            for acceptance in listed
        }

    def tunnel(self, home_address: Addr = HOA) -> Tunnel:
        tunnel = tunnel_of(self.forwarding, ordinary(home_address))
        assert tunnel is not None
        return tunnel


def request(*extensions: UdpTunnelRequest, now: float = NOW, lifetime: int = 300) -> bytes:
    plain = RegistrationRequest(lifetime, HOA, HA, INSIDE, ntp64(now), Flag.T | Flag.D, extensions)
    return signed(plain.encode(), AuthKind.MN_HA, MN_HA)


def through(destination: IPv4Address, port: int) -> Tunnel:
    return Tunnel(HA, destination, Encapsulation.UDP, 434, port)


def test_tunnel_to_the_nat_accepts_only_its_port() -> None:
    home = Home()
    reply = home.register(request(UdpTunnelRequest()), NAT, 40001)
    said = reply.find(UdpTunnelReply)
    assert reply.code is Code.ACCEPTED and said is not None and said.accepted and said.keepalive == 20
    assert home.tunnel() == through(NAT, 40001) and home.accepted[NAT, HOA] == 40001
    assert (INSIDE, HOA) not in home.accepted and home.accepted[DEFAULT, HOA] == 0


def test_new_port_or_address_replaces_the_old_one() -> None:
    home = Home()
    home.register(request(UdpTunnelRequest()), NAT, 40001)
    home.register(request(UdpTunnelRequest(), now=NOW + 1), NAT, 40007, NOW + 1)
    assert home.tunnel() == through(NAT, 40007) and home.accepted[NAT, HOA] == 40007
    home.register(request(UdpTunnelRequest(), now=NOW + 2), MOVED, 434, NOW + 2)
    assert home.tunnel() == through(MOVED, 434) and (NAT, HOA) not in home.accepted


def test_it_survives_a_restart_and_ends_with_the_registration() -> None:
    home, again = Home(), Home()
    home.register(request(UdpTunnelRequest()), NAT, 40001)
    again.perform(again.role.restore(list(home.rows.values()), now=NOW + 5))
    assert again.tunnel() == through(NAT, 40001) and again.accepted[NAT, HOA] == 40001
    again.register(request(now=NOW + 6, lifetime=0), NAT, 40001, NOW + 6)
    assert again.tunnel().destination == DEFAULT and (NAT, HOA) not in again.accepted


def test_refusals_leave_everything_as_it_was() -> None:
    home = Home()
    before = deepcopy(home.forwarding)
    gre = home.register(request(UdpTunnelRequest(InnerEncapsulation.GRE)), NAT, 40001)
    assert gre.code is Code.UDP_ENCAPSULATION_UNAVAILABLE
    assert home.forwarding == before
    unwilling = Home(TraversalPolicy(willing=False))
    refused = unwilling.register(request(UdpTunnelRequest()), NAT, 40001)
    assert refused.code is Code.ADMINISTRATIVELY_PROHIBITED and unwilling.tunnel().destination == DEFAULT
    into_itself = home.register(request(UdpTunnelRequest(), now=NOW + 1), HOA, 434, NOW + 1)
    assert into_itself.code is Code.ADMINISTRATIVELY_PROHIBITED and home.forwarding == before


def test_without_a_nat_the_tunnel_is_as_ever() -> None:
    home = Home()
    reply = home.register(request(UdpTunnelRequest()), INSIDE, 434)
    said = reply.find(UdpTunnelReply)
    assert said is not None and not said.accepted
    assert home.tunnel() == Tunnel(HA, INSIDE) and home.accepted[INSIDE, HOA] == 0


def mobile(mode: TraversalMode = TraversalMode.AUTO) -> RegistrationClient:
    node = RegistrationClient(
        MobileNodeConfiguration(
            HOA, HA, ("radio0",), MN_HA, home_address_v6=HOA6, colocated=True, nat_traversal=mode
        ),
        {},
        Random(2),
    )
    node.restore([], now=NOW)
    return node


def sent(actions: list[a.Action]) -> list[a.SendRegistration]:
    return [action for action in actions if isinstance(action, a.SendRegistration)]


def outbound(actions: list[a.Action]) -> dict[Addr, Tunnel]:
    return {
        action.entry.home_address: action.entry.tunnel
        for action in actions
        if isinstance(action, InstallOutbound)
    }


def test_both_ends_follow_a_nat_that_changes_its_mapping() -> None:
    home, node = Home(), mobile()
    (first,) = sent(node.happened(a.LinkUp("radio0", (INSIDE,)), now=NOW))
    (reply,) = home.perform(home.role.receive(first.message, Source(NAT, 40001, "eth0"), now=NOW))
    actions = node.receive(reply, Source(HA, 434, "radio0"), now=NOW)
    wanted = Tunnel(INSIDE, HA, Encapsulation.UDP, 434, 434)
    assert outbound(actions) == {HOA: wanted, HOA6: wanted} and home.tunnel(HOA6) == through(NAT, 40001)
    (alive,) = sent(node.timeout(now=NOW + 20))
    inner = TunnelData.decode(alive.message).payload
    answer = (int.from_bytes(inner[24:26], "big"), int.from_bytes(inner[26:28], "big"))
    node.happened(a.EchoAnswered(*answer), now=NOW + 20.1)
    assert sent(node.timeout(now=NOW + 30)) == []
    at = NOW + 40
    again: list[a.SendRegistration] = []
    while not again and at < NOW + 60:
        again = [action for action in sent(node.timeout(now=at)) if action.message[0] == 1]
        at += 0.5
    assert NOW + 44 < at < NOW + 50
    (reply,) = home.perform(home.role.receive(again[0].message, Source(NAT, 41000, "eth0"), now=at))
    assert outbound(node.receive(reply, Source(HA, 434, "radio0"), now=at)) == {}
    assert home.tunnel() == through(NAT, 41000) and node.registered is not None


def test_mobile_node_without_a_udp_reply_uses_ip_in_ip() -> None:
    home, node = Home(), mobile()
    (first,) = sent(node.happened(a.LinkUp("radio0", (INSIDE,)), now=NOW))
    (reply,) = home.perform(home.role.receive(first.message, Source(INSIDE, 434, "eth0"), now=NOW))
    actions = node.receive(reply, Source(HA, 434, "radio0"), now=NOW)
    assert outbound(actions)[HOA] == Tunnel(INSIDE, HA)


# A foreign agent behind a NAT


def agent(mode: TraversalMode) -> ForeignAgent:
    role = ForeignAgent(
        ForeignAgentConfiguration(
            INSIDE, (AccessLink("radio0", INSIDE),), nat_traversal=mode, keepalive=15.0
        ),
        {HA: FA_HA},
        {},
        [],
        Random(3),
    )
    role.restore([], now=NOW)
    return role


def visit(role: ForeignAgent, home: Home) -> list[a.Action]:
    plain = RegistrationRequest(300, HOA, HA, INSIDE, ntp64(NOW), Flag.T)
    message = signed(plain.encode(), AuthKind.MN_HA, MN_HA)
    relayed = sent(role.receive(message, Source(HOA, 434, "radio0", MAC), now=NOW))[0]
    (reply,) = home.perform(home.role.receive(relayed.message, Source(NAT, 40002, "eth0"), now=NOW))
    return role.receive(reply, Source(HA, 434, "core"), now=NOW)


def test_a_foreign_agent_behind_a_nat_asks_for_its_visitors() -> None:
    home, role = Home(agent=NAT), agent(TraversalMode.AUTO)
    actions = visit(role, home)
    assert outbound(actions)[HOA] == Tunnel(INSIDE, HA, Encapsulation.UDP, 434, 434)
    assert home.tunnel() == through(NAT, 40002) and home.accepted[NAT, HOA] == 40002
    (told,) = [action for action in actions if isinstance(action, a.Reply)]
    assert RegistrationReply.decode(told.message).find(UdpTunnelReply) is None  # that was for the agent alone
    alive = [action for action in sent(role.timeout(now=NOW + 15)) if action.message[0] == 4]
    assert len(alive) == 1 and alive[0].to == HA
    assert any(visitor.udp for visitor in role.visitors())


def test_advertisements_announce_udp_tunnels() -> None:
    for mode, udp in ((TraversalMode.AUTO, True), (TraversalMode.OFF, False)):
        (said,) = [action for action in agent(mode).timeout(now=NOW) if isinstance(action, a.Advertise)]
        flags = AgentAdvertisement.decode(said.message).flags
        assert (AgentFlag.U in flags) is udp and AgentFlag.X in flags


@pytest.mark.parametrize("opened", [False, True])
def test_open_access_node_serves_home_agents_without_a_key(opened: bool) -> None:
    role = agent(TraversalMode.OFF)
    configuration = replace(role.configuration, open=opened)
    role = ForeignAgent(configuration, {HA: FA_HA}, {}, [], Random(3))
    role.restore([], now=NOW)
    plain = RegistrationRequest(300, HOA, IPv4Address("10.66.0.1"), INSIDE, ntp64(NOW), Flag.T)
    message = signed(plain.encode(), AuthKind.MN_HA, MN_HA)
    actions = role.receive(message, Source(HOA, 434, "radio0", MAC), now=NOW)
    replies = [action for action in actions if isinstance(action, a.Reply)]
    if opened:
        assert replies == [] and len(sent(actions)) == 1
    else:
        assert RegistrationReply.decode(replies[0].message).code is Code.FA_ADMINISTRATIVELY_PROHIBITED


def test_co_located_node_requests_no_udp_through_an_access_node() -> None:
    actions = agent(TraversalMode.AUTO).receive(
        replace_care_of(UdpTunnelRequest()), Source(HOA, 434, "radio0", MAC), now=NOW
    )
    (reply,) = [action for action in actions if isinstance(action, a.Reply)]
    assert RegistrationReply.decode(reply.message).code is Code.FA_REQUESTED_ENCAPSULATION_UNAVAILABLE


def replace_care_of(*extensions: UdpTunnelRequest) -> bytes:
    """A request with a co-located care-of address on the access link."""
    care_of = IPv4Address("192.168.7.77")
    plain = RegistrationRequest(300, HOA, HA, care_of, ntp64(NOW), Flag.T | Flag.D, extensions)
    return signed(plain.encode(), AuthKind.MN_HA, MN_HA)


def test_one_sender_leaves_room_for_others() -> None:
    role = agent(TraversalMode.OFF)
    codes = []
    for number in range(1, 400):
        home_address = IPv4Address(int(HOA) + number)
        plain = RegistrationRequest(300, home_address, HA, INSIDE, ntp64(NOW) + number, Flag.T)
        message = signed(plain.encode(), AuthKind.MN_HA, MN_HA)
        actions = role.receive(message, Source(home_address, 434, "radio0", MAC), now=NOW)
        codes += [
            RegistrationReply.decode(action.message).code for action in actions if isinstance(action, a.Reply)
        ]
    assert set(codes) == {Code.FA_INSUFFICIENT_RESOURCES} and len(codes) > 200
    plain = RegistrationRequest(300, HOA, HA, INSIDE, ntp64(NOW), Flag.T)
    message = signed(plain.encode(), AuthKind.MN_HA, MN_HA)
    assert len(sent(role.receive(message, Source(HOA, 434, "radio0", b"\4" * 6), now=NOW))) == 1
