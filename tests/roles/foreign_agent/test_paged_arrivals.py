"""An access node holds packets for a paged device from its request on: they overtake the home agent's reply (P17)."""

from ipaddress import IPv4Address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.forwarding import InstallBinding, ReleaseHeld, Verdict
from locum.roles.foreign_agent.paged_arrivals import MOST, WAKING, PagedArrivals
from locum.roles.foreign_agent.relay import PENDING_TIMEOUT
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.control.paging.cause import CommandCause
from locum.wire.control.paging.page import Page1170, encode_1170
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from tests.roles.world import AN1, HA, HOA, HOA6, MAC, World

DEVICE, AGENT = Association(300, b"k" * 16), Association(400, b"a" * 16)
SOURCE = Source(HOA, 434, "radio0", MAC, AN1)


class Arriving:
    """An access node whose device has no registration there."""

    def __init__(self, *, keyed: bool = True) -> None:
        self.world = World(agents_keyed=keyed)
        self.node = self.world.an1

    def page(self, body: bytes | None = None, *authorised: Addr) -> None:
        page = Page1170(b"page-one", HOA, CommandCause(), 10, call=b"call")
        said = encode_1170(page) if body is None else body
        asked = a.Asked(7, "1170", said, HA, authorised or (HOA, HOA6))
        self.node.role.happened(asked, now=self.world.clock(self.node))

    def request(self, lifetime: int = 300, after: float = 0.0) -> set[Addr]:
        """Home addresses whose packets are held after a request."""
        now = self.world.clock(self.node) + after
        asked = RegistrationRequest(lifetime, HOA, HA, AN1, ntp64(now), Flag.T)
        message = signed(asked.encode(), AuthKind.MN_HA, DEVICE)
        message = signed(message, AuthKind.MN_FA, Association(500, b"f" * 16))
        actions = self.node.role.receive(message, SOURCE, now=now)
        for action in actions:
            if not isinstance(action, a.SendRegistration):
                self.world.perform(self.node, [action])
        entries = [action.entry for action in actions if isinstance(action, InstallBinding)]
        return {entry.home_address for entry in entries if entry.verdict is Verdict.HOLD}


@pytest.fixture
def arriving() -> Arriving:
    return Arriving()


def test_packets_of_a_paged_device_are_held_from_its_request_on(arriving: Arriving) -> None:
    arriving.page()
    assert arriving.request() == {HOA}


def test_repeated_request_prolongs_the_hold(arriving: Arriving) -> None:
    """The home agent answers late under load: its packets come first, and wait for its reply."""
    arriving.page()
    arriving.request()
    arriving.request(after=PENDING_TIMEOUT - 1)
    begin = arriving.world.clock(arriving.node)
    for after, held in (
        (PENDING_TIMEOUT, True),
        (2 * PENDING_TIMEOUT - 2, True),
        (2 * PENDING_TIMEOUT, False),
    ):
        actions = arriving.node.role.timeout(now=begin + after)
        rest: list[a.Action] = [action for action in actions if not isinstance(action, a.Answer)]
        arriving.world.perform(arriving.node, rest)
        entries = [entry.verdict for entry in arriving.node.bindings.values()]
        assert (Verdict.HOLD in entries) is held


def test_others_are_not_held(arriving: Arriving) -> None:
    assert arriving.request() == set(), "it was not paged"
    arriving.page(b"\xff")
    assert arriving.request() == set()
    arriving.page(None, IPv4Address("10.50.0.10"))
    assert arriving.request() == set(), "the home agent does not speak for it"
    arriving.page()
    assert arriving.request(0) == set(), "it goes away"
    assert arriving.request(after=10 + WAKING + 1) == set(), "the page is long over"


def test_without_keys_of_the_home_agent_nothing_is_held() -> None:
    """A request may name any home agent."""
    arriving = Arriving(keyed=False)
    arriving.page()
    assert arriving.request() == set()


def test_held_packets_go_to_the_device_when_it_is_registered() -> None:
    world = World(agents_keyed=True)
    released: list[a.Action] = []
    perform = world.perform

    def watched(host: object, actions: list[a.Action]) -> None:
        if host is world.an1:
            released.extend(action for action in actions if isinstance(action, ReleaseHeld))
        perform(host, actions)  # type: ignore[arg-type]

    page = Page1170(b"page-one", HOA, CommandCause(), 10, call=b"call")
    world.an1.role.happened(a.Asked(7, "1170", encode_1170(page), HA, (HOA,)), now=world.now)
    world.perform = watched  # type: ignore[method-assign]
    world.advance(5)
    assert isinstance(world.an1.role, ForeignAgent)
    assert [visitor.home_address for visitor in world.an1.role.visitors()] == [HOA]
    assert {action.home_address for action in released if isinstance(action, ReleaseHeld)} >= {HOA, HOA6}
    held = [entry for entry in world.an1.bindings.values() if entry.verdict is Verdict.HOLD]
    assert held == []


def test_paged_devices_are_bounded() -> None:
    world = World(agents_keyed=True)
    assert isinstance(world.an1.role, ForeignAgent)
    part = next(part for part in world.an1.role._parts._parts if isinstance(part, PagedArrivals))
    for number in range(MOST + 10):
        home = IPv4Address(0x0A320000 + number)
        page = Page1170(b"page-one", home, CommandCause(), 10, call=b"call")
        part.happened(a.Asked(1, "1170", encode_1170(page), HA, (home,)), now=world.now)
    assert len(part._paged) == MOST
