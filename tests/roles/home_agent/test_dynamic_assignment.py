"""Dynamic assignment of home agents (RFC 4433): a device that names none, home agents that accept or redirect, access nodes."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.foreign_agent.admission import Admission, Denied
from locum.roles.home_agent.binding import Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.home_agent_choice import MAX_REDIRECTIONS, HomeAgentChoice
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import AuthKind, DynamicHomeAgent, HomeAgentUse, Nai
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from tests.roles.world import AN1, COLOCATED, HA, HOA, START

KEY = Association(300, b"k" * 16)
NAI = "somebody@example.org"
FIRST, SECOND, THIRD = (IPv4Address(f"10.5.0.{number}") for number in range(1, 4))
ZERO, ONES = IPv4Address(0), IPv4Address("255.255.255.255")


class Several:
    """A device with a care-of address of its own that proposes FIRST, and home agents, each with its redirection."""

    def __init__(self, **redirects: IPv4Address | None) -> None:
        self.now = START
        self.homes = {
            address: HomeAgent(
                HomeAgentConfiguration(address, redirect=redirects.get(name)),
                [Mobile(HOA, KEY)],
                {},
                Random(7),
            )
            for name, address in (("first", FIRST), ("second", SECOND), ("third", THIRD))
        }
        self.asked: list[IPv4Address] = []
        self.requests: list[RegistrationRequest] = []
        self.rows: dict[tuple[str, str], a.Persist] = {}
        self.silent: set[IPv4Address] = set()
        self.start()

    def start(self) -> None:
        self.state = ForwardingState()
        self.client = RegistrationClient(
            MobileNodeConfiguration(
                HOA,
                FIRST,
                ("radio0",),
                KEY,
                colocated=True,
                care_of_address=COLOCATED,
                nai=NAI,
                dynamic=True,
                fixed=True,
            ),
            {},
            Random(8),
        )
        self._did(self.client.restore(list(self.rows.values()), now=self.now))
        self._did(self.client.happened(a.LinkUp("radio0", (COLOCATED,)), now=self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.client.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self._did(self.client.timeout(now=self.now))
        self.now = end

    def _did(self, actions: list[a.Action]) -> None:
        for action in actions:
            if type(action) in FORWARDING:
                self.state.perform(action)
            elif isinstance(action, a.Persist):
                self.rows[action.table, action.key] = action
            elif isinstance(action, a.SendRegistration):
                assert isinstance(action.to, IPv4Address)
                self.asked.append(action.to)
                self.requests.append(RegistrationRequest.decode(action.message))
                if action.to in self.silent:
                    continue
                source = Source(COLOCATED, 434, "core", None, action.to)
                for done in self.homes[action.to].receive(action.message, source, now=self.now):
                    if isinstance(done, a.Reply):
                        back = Source(action.to, 434, "radio0", None, COLOCATED)
                        self._did(self.client.receive(done.message, back, now=self.now))

    @property
    def peers(self) -> set[object]:
        return {acceptance.outer_source for acceptance in self.state.acceptances.values()}


def test_device_without_a_home_agent_gets_the_proposed_one() -> None:
    several = Several()
    assert several.client.registered is not None and several.peers == {FIRST}
    assert several.requests[0].home_agent == ZERO
    assert several.requests[0].find(DynamicHomeAgent) == DynamicHomeAgent(HomeAgentUse.REQUESTED, FIRST)
    several.advance(250)
    assert several.requests[-1].home_agent == FIRST and several.requests[-1].find(DynamicHomeAgent) is None


def test_redirected_device_stays_with_the_other_home_agent() -> None:
    several = Several(first=SECOND)
    assert several.asked == [FIRST, SECOND] and several.client.registered is not None
    assert several.peers == {SECOND} and several.client.configuration.home_agent == SECOND
    several.advance(250)
    assert several.asked == [FIRST, SECOND, SECOND] and several.requests[-1].home_agent == SECOND
    several.start()
    assert several.peers == {SECOND}
    several.advance(250)
    assert set(several.asked[2:]) == {SECOND}


def test_device_begins_anew_when_its_home_agent_is_gone() -> None:
    several = Several(first=SECOND)
    several.silent = {SECOND}
    several.homes[FIRST].configuration = several.homes[THIRD].configuration
    several.homes[FIRST] = HomeAgent(HomeAgentConfiguration(FIRST), [Mobile(HOA, KEY)], {}, Random(7))
    several.advance(400)
    assert several.client.registered is not None and several.peers == {FIRST}


def test_redirections_in_a_circle_are_bounded() -> None:
    several = Several(first=SECOND, second=FIRST)
    several.advance(600)
    assert several.client.registered is None
    assert 600 / 32 <= len(several.asked) <= (600 / 32 + 6) * (MAX_REDIRECTIONS + 1)
    own = HomeAgentChoice(FIRST, dynamic=False)
    assert not own.redirected(SECOND) and own.named == own.address == FIRST


@pytest.mark.parametrize(
    ("named", "nai", "assigned", "code"),
    [
        (ZERO, True, True, Code.ACCEPTED),
        (ONES, True, True, Code.ACCEPTED),
        (ZERO, False, True, Code.UNKNOWN_HOME_AGENT),  # it could not be told whose key this is
        (ONES, False, True, Code.UNKNOWN_HOME_AGENT),
        (ZERO, True, False, Code.UNKNOWN_HOME_AGENT),
        (SECOND, True, True, Code.UNKNOWN_HOME_AGENT),
    ],
)
def test_choices_that_a_home_agent_takes(named: IPv4Address, nai: bool, assigned: bool, code: Code) -> None:
    home = HomeAgent(HomeAgentConfiguration(HA, assigned=assigned), [Mobile(HOA, KEY)], {}, Random(7))
    said = (Nai(NAI), DynamicHomeAgent(HomeAgentUse.REQUESTED, HA)) if nai else ()
    stamp = (int(START) + 2_208_988_800) << 32
    whole = RegistrationRequest(300, HOA, named, COLOCATED, stamp, Flag.T | Flag.D, said)
    message = signed(whole.encode(), AuthKind.MN_HA, KEY)
    (reply,) = [
        RegistrationReply.decode(action.message)
        for action in home.receive(message, Source(COLOCATED, 434, "core", None, HA), now=START)
        if isinstance(action, a.Reply)
    ]
    assert (reply.code, reply.home_agent) == (code, HA)


@pytest.mark.parametrize(
    ("proposed", "served", "assigns", "found"),
    [
        (FIRST, None, None, FIRST),
        (FIRST, None, SECOND, FIRST),
        (FIRST, {FIRST}, None, FIRST),
        (FIRST, {SECOND}, SECOND, SECOND),  # not served here
        (FIRST, {SECOND}, None, None),
        (IPv4Address("224.0.0.5"), None, None, None),
        (None, None, SECOND, SECOND),
        (None, None, None, None),
    ],
)
@pytest.mark.parametrize("named", [ZERO, ONES])
def test_access_node_chooses_for_a_device_that_names_none(
    named: IPv4Address,
    proposed: IPv4Address | None,
    served: set[IPv4Address] | None,
    assigns: IPv4Address | None,
    found: IPv4Address | None,
) -> None:
    admission = Admission(AN1, 1800, False, {}, home_agents=served, assigns=assigns)
    said = () if proposed is None else (DynamicHomeAgent(HomeAgentUse.REQUESTED, proposed),)
    whole = RegistrationRequest(300, HOA, named, AN1, 7, Flag.T, (Nai(NAI), *said))
    message = signed(whole.encode(), AuthKind.MN_HA, KEY)
    asked = admission.assigned(RegistrationRequest.decode(message))
    assert asked.home_agent == (found or named)
    if found is None:
        with pytest.raises(Denied) as denied:
            admission.check(asked, ())
        assert denied.value.code == Code.FA_NON_ZERO_HOME_AGENT_REQUIRED
    else:
        assert admission.check(asked, ()) == message  # unchanged: it is signed
    own = replace(whole, home_agent=THIRD)
    assert admission.assigned(own) is own
