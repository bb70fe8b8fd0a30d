"""Minimal encapsulation by the M bit (RFC 5944 section 3.3, RFC 2004) at an access node, and as devices ask it for tunnels."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import JSON, Source
from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import (
    REGISTRATION_REPLY,
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)

HOME, HA, AN = IPv4Address("203.0.113.4"), IPv4Address("198.51.100.2"), IPv4Address("192.0.2.1")
KEY = Association(300, b"k" * 16)
AIR, MAC = "radio0", b"\2" * 6


class Visit:
    """A device and its access node; the home agent grants everything."""

    def __init__(self, wanted: Encapsulation, *, minimal: bool = True, deaf: bool = False) -> None:
        """`deaf`: advertisements say that there is minimal encapsulation whatever the agent has."""
        self.now, self.deaf = 1_790_000_000.0, deaf
        agent = ForeignAgentConfiguration(AN, (AccessLink(AIR, AN),), minimal_encapsulation=minimal)
        self.agent = ForeignAgent(agent, {}, {}, (), Random(1))
        device = MobileNodeConfiguration(HOME, HA, (AIR,), KEY, encapsulation=wanted)
        self.device = RegistrationClient(device, {}, Random(2))
        self.at_agent = ForwardingState()
        self.said: list[AgentFlag] = []
        self.asked: list[Flag] = []
        self.codes: list[int] = []
        self.of_device(self.device.restore((), now=self.now))
        self.of_device(self.device.happened(a.LinkUp(AIR), now=self.now))
        self.of_agent(self.agent.restore((), now=self.now))
        self.of_agent(self.agent.timeout(now=self.now))

    def of_agent(self, actions: list[a.Action]) -> None:
        for action in actions:
            if type(action) in FORWARDING:
                self.at_agent.perform(action)
            elif isinstance(action, a.Advertise):
                said = AgentAdvertisement.decode(action.message)
                self.said.append(said.flags)
                if self.deaf:
                    said = replace(said, flags=said.flags | AgentFlag.M)
                self.of_device(self.device.receive(said.encode(), Source(AN, 0, AIR, MAC), now=self.now))
            elif isinstance(action, a.Reply) and action.message[0] == REGISTRATION_REPLY:
                self.codes.append(int(RegistrationReply.decode(action.message).code))
                self.of_device(self.device.receive(action.message, Source(AN, 434, AIR, MAC), now=self.now))
            elif isinstance(action, a.SendRegistration):
                request = RegistrationRequest.decode(action.message)
                reply = RegistrationReply(Code.ACCEPTED, 300, HOME, HA, request.identification)
                message = signed(reply.encode(), AuthKind.MN_HA, KEY)
                self.of_agent(self.agent.receive(message, Source(HA, 434, "core"), now=self.now))

    def of_device(self, actions: list[a.Action]) -> None:
        for action in actions:
            if isinstance(action, a.SendRegistration):
                self.asked.append(RegistrationRequest.decode(action.message).flags)
                source = Source(HOME, 434, AIR, b"\4" * 6, AN)
                self.of_agent(self.agent.receive(action.message, source, now=self.now))

    @property
    def used(self) -> list[Encapsulation]:
        """Of the reverse tunnel of the access node."""
        return [entry.tunnel.encapsulation for entry in self.at_agent.outbound_entries()]


def test_agent_says_so_and_tunnels_so() -> None:
    visit = Visit(Encapsulation.MINIMAL)
    assert all(AgentFlag.M in flags for flags in visit.said) and visit.said
    assert visit.asked == [Flag.T | Flag.M] and visit.codes == [Code.ACCEPTED]
    assert visit.used == [Encapsulation.MINIMAL]


@pytest.mark.parametrize("wanted", [Encapsulation.IPIP, Encapsulation.GRE])
def test_others_do_not_ask(wanted: Encapsulation) -> None:
    visit = Visit(wanted)
    assert all(Flag.M not in flags for flags in visit.asked) and visit.used == [wanted]


def test_device_asks_no_agent_that_has_none() -> None:
    visit = Visit(Encapsulation.MINIMAL, minimal=False)
    assert not any(AgentFlag.M in flags for flags in visit.said)
    assert visit.asked == [Flag.T] and visit.used == [Encapsulation.IPIP]


def test_refused_device_asks_for_ip_in_ip() -> None:
    """Code 72 (section 3.7.2.1)."""
    visit = Visit(Encapsulation.MINIMAL, minimal=False, deaf=True)
    assert visit.asked == [Flag.T | Flag.M, Flag.T]
    assert visit.codes == [Code.FA_REQUESTED_ENCAPSULATION_UNAVAILABLE, Code.ACCEPTED]
    assert visit.used == [Encapsulation.IPIP]


def test_attachments_in_rows() -> None:
    """They are read as they were written, and as an earlier version wrote them."""
    for encapsulation in (Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.MINIMAL):
        attachment = Attachment(AIR, AN, AN, False, MAC, encapsulation=encapsulation)
        assert Attachment.from_row(attachment.to_row()) == attachment
    old: dict[str, JSON] = {
        "link": AIR,
        "agent": str(AN),
        "care_of": str(AN),
        "colocated": False,
        "link_layer": None,
    }
    assert Attachment.from_row({**old, "gre": True}).encapsulation is Encapsulation.GRE
    assert Attachment.from_row({**old, "gre": False}).encapsulation is Encapsulation.IPIP
