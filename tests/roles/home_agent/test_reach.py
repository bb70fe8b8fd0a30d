"""A home agent behind a 1:1 NAT, tunnels by the G and M bits, and an SPI for each direction: a device and its home agent, joined."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from tests.roles.homeworld import DEVICE_KEY, HOA, Home
from tests.roles.world import COLOCATED, START

LOCAL, PUBLIC = IPv4Address("10.5.0.1"), IPv4Address("198.51.100.2")
AT_DEVICE = replace(DEVICE_KEY, spi=301, sent_spi=300)
AT_HOME = replace(DEVICE_KEY, spi=300, sent_spi=301)


class Pair:
    """A device with a care-of address of its own and its home agent; `public` is what a NAT makes of the latter's address."""

    def __init__(
        self,
        *,
        public: IPv4Address | None = None,
        asked: IPv4Address | None = None,
        at_device: Association = DEVICE_KEY,
        at_home: Association = DEVICE_KEY,
        encapsulation: Encapsulation = Encapsulation.IPIP,
        minimal: bool = True,
    ) -> None:
        self.public, self.now = public, START
        configuration = HomeAgentConfiguration(LOCAL, public, minimal_encapsulation=minimal)
        self.home = HomeAgent(configuration, [Mobile(HOA, at_home)], {}, Random(7))
        self.client = RegistrationClient(
            MobileNodeConfiguration(
                HOA,
                asked or public or LOCAL,
                ("radio0",),
                at_device,
                colocated=True,
                care_of_address=COLOCATED,
                encapsulation=encapsulation,
            ),
            {},
            Random(8),
        )
        self.at_home, self.at_device = ForwardingState(), ForwardingState()
        self.requests: list[bytes] = []
        self.replies: list[bytes] = []
        self._home_did(self.home.restore((), now=self.now))
        self._device_did(self.client.restore((), now=self.now))

    def begin(self) -> None:
        self._device_did(self.client.happened(a.LinkUp("radio0", (COLOCATED,)), now=self.now))

    def revoke(self) -> None:
        self.now += 1
        self._home_did(self.home.revocation.revoke(HOA, reason="test", now=self.now))

    def _device_did(self, actions: list[a.Action]) -> None:
        for action in actions:
            if type(action) in FORWARDING:
                self.at_device.perform(action)
            elif isinstance(action, a.SendRegistration):
                assert action.to == self.client.configuration.home_agent
                self.requests.append(action.message)
                source = Source(COLOCATED, 434, "core", None, LOCAL)  # the NAT has changed the destination
                self._home_did(self.home.receive(action.message, source, now=self.now))
            elif isinstance(action, a.Reply):
                source = Source(COLOCATED, 434, "core", None, LOCAL)
                self._home_did(self.home.receive(action.message, source, now=self.now))

    def _home_did(self, actions: list[a.Action]) -> None:
        for action in actions:
            if type(action) in FORWARDING:
                self.at_home.perform(action)
            elif isinstance(action, a.Reply | a.SendRegistration):
                self.replies.append(action.message)
                seen = Source(self.public or LOCAL, 434, "radio0", None, COLOCATED)  # and here the source
                self._device_did(self.client.receive(action.message, seen, now=self.now))


def test_home_agent_behind_a_nat_is_known_by_its_public_address() -> None:
    pair = Pair(public=PUBLIC)
    pair.begin()
    assert pair.client.registered is not None
    (tunnel,) = pair.at_home.bindings[HOA].tunnels
    assert (tunnel.source, tunnel.destination) == (LOCAL, COLOCATED)
    assert {acceptance.outer_source for acceptance in pair.at_device.acceptances.values()} == {PUBLIC}
    (outbound,) = pair.at_device.outbound_entries()
    assert (outbound.tunnel.source, outbound.tunnel.destination) == (COLOCATED, PUBLIC)
    assert pair.at_home.endpoints == {LOCAL}
    assert RegistrationReply.decode(pair.replies[-1]).home_agent == PUBLIC


def test_both_addresses_of_a_home_agent_behind_a_nat_are_its_own() -> None:
    configuration = HomeAgentConfiguration(LOCAL, PUBLIC)
    for asked in (LOCAL, PUBLIC):
        home = Home(configuration=configuration)
        assert home.device.register(COLOCATED, home_agent=asked) == Code.ACCEPTED
        assert home.device.register(asked) == Code.POORLY_FORMED_REQUEST  # a tunnel to itself
    home = Home(configuration=configuration)
    assert home.device.register(COLOCATED, home_agent=IPv4Address("10.66.0.6")) == Code.UNKNOWN_HOME_AGENT


def test_revocation_by_a_home_agent_behind_a_nat_is_believed() -> None:
    pair = Pair(public=PUBLIC)
    pair.begin()
    before = len(pair.requests)
    pair.revoke()
    assert len(pair.requests) == before + 1 and pair.client.registered is not None  # again, as it may


BITS = {Encapsulation.IPIP: Flag(0), Encapsulation.GRE: Flag.G, Encapsulation.MINIMAL: Flag.M}


@pytest.mark.parametrize("wanted", BITS)
def test_encapsulation_is_asked_for_by_its_bit(wanted: Encapsulation) -> None:
    pair = Pair(encapsulation=wanted)
    pair.begin()
    assert RegistrationRequest.decode(pair.requests[0]).flags & (Flag.G | Flag.M) == BITS[wanted]
    assert [tunnel.encapsulation for tunnel in pair.at_home.bindings[HOA].tunnels] == [wanted]
    assert [entry.tunnel.encapsulation for entry in pair.at_device.outbound_entries()] == [wanted]


def test_refused_encapsulation_is_replaced() -> None:
    """Code 139; the bit is not tried again, in renewals either."""
    pair = Pair(encapsulation=Encapsulation.MINIMAL, minimal=False)
    pair.begin()
    codes = [RegistrationReply.decode(reply).code for reply in pair.replies]
    assert codes == [Code.REQUESTED_ENCAPSULATION_UNAVAILABLE, Code.ACCEPTED]
    assert [tunnel.encapsulation for tunnel in pair.at_home.bindings[HOA].tunnels] == [Encapsulation.IPIP]
    (entry,) = pair.at_device.outbound_entries()
    assert entry.tunnel.encapsulation is Encapsulation.IPIP
    pair.revoke()
    assert Flag.M not in RegistrationRequest.decode(pair.requests[-1]).flags and len(pair.requests) == 3


def test_another_encapsulation_replaces_the_tunnel() -> None:
    home = Home()
    for flags, wanted in (
        (Flag(0), Encapsulation.IPIP),
        (Flag.M, Encapsulation.MINIMAL),
        (Flag.M | Flag.G, Encapsulation.GRE),
        (Flag.M, Encapsulation.MINIMAL),
    ):
        assert home.device.register(COLOCATED, flags=Flag.T | Flag.D | flags) == Code.ACCEPTED
        home.start()  # and a restart keeps it
        assert [tunnel.encapsulation for tunnel in home.state.bindings[HOA].tunnels] == [wanted]


def test_each_direction_has_its_own_spi() -> None:
    pair = Pair(at_device=AT_DEVICE, at_home=AT_HOME)
    pair.begin()
    assert pair.client.registered is not None
    sent = RegistrationRequest.decode(pair.requests[-1]).authentication(AuthKind.MN_HA)
    answered = RegistrationReply.decode(pair.replies[-1]).authentication(AuthKind.MN_HA)
    assert sent is not None and answered is not None and (sent.spi, answered.spi) == (300, 301)
    pair.revoke()
    assert len(pair.requests) == 2


def test_exchanged_spis_are_not_authentic() -> None:
    for at_device, at_home in ((AT_DEVICE, AT_DEVICE), (AT_HOME, AT_HOME), (AT_HOME, AT_DEVICE)):
        pair = Pair(at_device=at_device, at_home=at_home)
        pair.begin()
        assert (pair.client.registered is not None) is (at_device is AT_HOME and at_home is AT_DEVICE)
