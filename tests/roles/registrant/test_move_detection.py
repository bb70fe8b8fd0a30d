"""Move detection by network prefixes (RFC 5944 section 2.4.2.2), and the prefixes in advertisements (section 2.1.2)."""

from ipaddress import IPv4Address
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.foreign_agent.advertising import Advertiser
from locum.roles.foreign_agent.configuration import AccessLink
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.discovery import AgentDiscovery
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, RegistrationReply, RegistrationRequest

HOME, HA = IPv4Address("203.0.113.4"), IPv4Address("198.51.100.2")
OLD, NEIGHBOUR, NEW = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv4Address("192.0.3.1")
KEY = Association(300, b"k" * 16)
LIFETIME = 3  # seconds of an advertisement, sent every second
START = 1000.0


def advertisement(agent: IPv4Address, length: int | None, sequence: int = 300) -> AgentAdvertisement:
    return AgentAdvertisement(
        lifetime=LIFETIME,
        addresses=((agent, 0),),
        sequence=sequence,
        registration_lifetime=600,
        flags=AgentFlag.F | AgentFlag.T,
        care_of_addresses=(agent,),
        prefix_lengths=() if length is None else (length,),
    )


def source(agent: IPv4Address, link: str = "radio0") -> Source:
    return Source(agent, 0, link, agent.packed + b"\0\0")


class Device:
    """A mobile node whose requests are all granted at once."""

    def __init__(self) -> None:
        configuration = MobileNodeConfiguration(HOME, HA, ("radio0", "radio1"), KEY)
        self.node = RegistrationClient(configuration, {}, Random(1))
        self.lost: list[float] = []
        self.now = START
        self.take(self.node.restore([], now=self.now))
        for link in ("radio0", "radio1"):
            self.take(self.node.happened(a.LinkUp(link), now=self.now))

    def take(self, actions: list[a.Action]) -> None:
        for action in actions:
            if isinstance(action, a.Emit) and action.kind == "attachment-lost":
                self.lost.append(self.now)
            if isinstance(action, a.SendRegistration):
                request = RegistrationRequest.decode(action.message)
                reply = RegistrationReply(Code.ACCEPTED, 300, HOME, HA, request.identification)
                message = signed(reply.encode(), AuthKind.MN_HA, KEY)
                assert action.link is not None and isinstance(action.to, IPv4Address)
                self.take(self.node.receive(message, source(action.to, action.link), now=self.now))

    def hear(self, agent: IPv4Address, length: int | None, link: str = "radio0") -> None:
        message = advertisement(agent, length).encode()
        self.take(self.node.receive(message, source(agent, link), now=self.now))

    def wait(self, until: float) -> None:
        """Advance the time; the node's deadlines are called."""
        while (at := self.node.deadline()) is not None and at <= until:
            self.now = max(self.now, at)
            self.take(self.node.timeout(now=self.now))
        self.now = until

    @property
    def agent(self) -> Addr | None:
        return None if self.node.attachment is None else self.node.attachment.agent


def moved(old: int | None, new: int | None, *, to: IPv4Address = NEW, link: str = "radio0") -> float | None:
    """Seconds after the old agent's last advertisement at which the device changes; None: not in 10 s."""
    device = Device()
    device.hear(OLD, old)
    assert device.agent == OLD
    for tick in range(1, 100):
        device.wait(START + tick / 10)
        if device.agent != OLD:
            return device.now - START
        if tick % 10 == 5:
            device.hear(to, new, link)
    return None


def test_new_network_counts_once_the_old_agent_is_silent() -> None:
    taken = moved(24, 24)
    assert taken is not None and taken == pytest.approx(2.0, abs=0.15)  # two advertisements have not come


@pytest.mark.parametrize(
    ("old", "new", "to", "link"),
    [
        (24, None, NEW, "radio0"),  # one of them does not say
        (None, 24, NEW, "radio0"),
        (None, None, NEW, "radio0"),
        (24, 24, NEIGHBOUR, "radio0"),  # the same network
        (16, 16, NEW, "radio0"),  # the same network
        (0, 24, NEW, "radio0"),  # a length of 0 says nothing
        (24, 24, NEW, "radio1"),  # on another link, which says nothing of this one
    ],
)
def test_without_prefixes_the_advertisement_lifetime_decides(
    old: int | None, new: int | None, to: IPv4Address, link: str
) -> None:
    taken = moved(old, new, to=to, link=link)
    assert taken is not None and taken == pytest.approx(LIFETIME, abs=0.15)


def test_two_reachable_agents_are_neighbours() -> None:
    device = Device()
    for tick in range(60):
        device.wait(START + tick / 2)
        if tick % 20 != 7:  # one advertisement is lost now and then
            device.hear(OLD if tick % 2 else NEW, 24)
    assert device.lost == [] and device.agent == NEW  # it was heard first


def test_advertisement_carries_the_prefix_length_of_the_link() -> None:
    for length in (None, 24, 32):
        links = [AccessLink("radio0", OLD, length)]
        advertiser = Advertiser(links, OLD, 1.0, 600, False, Random(2), VisitorList(OLD, (), (), 8))
        advertiser.restore((), now=START)
        (sent,) = [action for action in advertiser.timeout(now=START) if isinstance(action, a.Advertise)]
        said = AgentAdvertisement.decode(sent.message).prefix_lengths
        assert said == (() if length is None else (length,))


def test_expired_advertisement_detects_no_move() -> None:
    discovery = AgentDiscovery(("radio0",), Random(3))
    discovery.heard(advertisement(OLD, 24), source(OLD), START)
    discovery.heard(advertisement(NEW, 24), source(NEW), START + 0.1)
    assert discovery.deadline() == pytest.approx(START + 2)
    discovery.forget_silent(START + 1.9)
    assert [agent.address for agent in discovery.agents(START + 1.9)] == [NEW, OLD]
    discovery.forget_silent(START + 2.0)
    assert [agent.address for agent in discovery.agents(START + 2.0)] == [NEW]
    discovery.forget_silent(START + 3.1)
    assert discovery.agents(START + 3.1) == ()
