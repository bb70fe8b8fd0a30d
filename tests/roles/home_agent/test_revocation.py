"""Registration revocation (RFC 3543): by either end, repeated until acknowledged, refused from others."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.revocation import Acknowledgment, Revocation
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.revocation import MOVED_GRACE
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.revocations import (
    read_acknowledgment,
    read_revocation,
    write_acknowledgment,
)
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.revocation import (
    MAX_REMEMBERED,
    TRIES,
    Heard,
    Revocable,
    RevocationPeer,
    Revocations,
    Stamps,
    later,
)
from locum.security.association import Association
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment
from tests.roles.packets import care_of, ordinary
from tests.roles.world import AN1, AN2, AN3, COLOCATED, HA, HOA, Host, World

KEY, WRONG = Association(300, b"k" * 16), Association(300, b"w" * 16)
FROM_HA, FROM_AN1 = Source(HA, 434, "core"), Source(AN1, 434, "core")


def settled(**options: object) -> World:
    world = World(**{"agents_keyed": True, **options})  # type: ignore[arg-type]
    world.advance(5)
    return world


def home(world: World) -> HomeAgent:
    return cast(HomeAgent, world.ha.role)


def agent(host: Host) -> ForeignAgent:
    return cast(ForeignAgent, host.role)


def tunnels(world: World) -> list[Addr]:
    return care_of(world.ha.forwarding, ordinary(HOA))


def visits(host: Host) -> bool:
    return any(visitor.home_address == HOA for visitor in agent(host).visitors())


def said(host: Host, kind: int) -> list[bytes]:
    """Revocations (7) or acknowledgments (15) that this host has received."""
    return [message for message in host.sent if message[:1] == bytes((kind,))]


def by_home(world: World, agent_address: Addr | None = None) -> None:
    actions = home(world).revocation.revoke(HOA, agent=agent_address, reason="test", now=world.now)
    world.perform(world.ha, actions)


def test_mobile_node_registers_anew_after_a_revocation() -> None:
    world = settled()
    assert home(world).revocation.revocable(HOA)[0].revocable is not None
    by_home(world)
    assert tunnels(world) == [AN3]  # at once
    world.advance(0.05)
    assert not visits(world.an1) or "visitor-revoked" in world.an1.kinds()
    assert "revocation-acknowledged" in world.ha.kinds() and "agent-rebooted" in world.mn.kinds()
    world.advance(2)
    assert tunnels(world) == [AN1] and visits(world.an1)
    assert len(said(world.an1, 7)) == 1 and len(said(world.ha, 15)) == 1


def test_the_access_node_revokes_and_the_default_takes_over() -> None:
    world = settled()
    world.perform(world.an1, agent(world.an1).revoke(HOA, reason="test", now=world.now))
    assert not visits(world.an1) and world.an1.acceptances == {}
    world.cut("radio0")
    world.cut("radio1")
    world.advance(1)
    assert tunnels(world) == [AN3] and "revoked" in world.ha.kinds()
    assert len(said(world.an1, 15)) == 1


def test_the_mobile_node_is_told_when_the_home_agent_wants_it() -> None:
    world = settled()
    world.perform(world.an1, agent(world.an1).revoke(HOA, reason="test", now=world.now))
    world.advance(2)
    assert "agent-rebooted" in world.mn.kinds() and tunnels(world) == [AN1]


def test_access_node_revokes_its_visitors_when_it_ends() -> None:
    world = settled()
    world.perform(world.an1, agent(world.an1).farewell(now=world.now))
    assert agent(world.an1).leaving and not visits(world.an1)
    world.cut("radio0")
    world.cut("radio1")
    world.advance(0.5)
    assert not agent(world.an1).leaving and tunnels(world) == [AN3]


def test_ending_access_node_accepts_no_visitors() -> None:
    world = settled()
    world.cut("radio1")
    world.perform(world.an1, agent(world.an1).farewell(now=world.now))
    world.advance(3)  # the mobile node is told, and asks again
    assert not visits(world.an1) and tunnels(world) == [AN3] and "registration-denied" in world.mn.kinds()


def test_requests_pending_when_an_access_node_ends_are_revoked() -> None:
    world = World(agents_keyed=True)
    world.cut("radio1")
    while not any(event.message == "603" for event in world.ha.events):
        world.advance(0.005)
    world.perform(world.an1, agent(world.an1).farewell(now=world.now))
    world.advance(3)
    assert not visits(world.an1) and tunnels(world) == [AN3]


def test_a_co_located_mobile_node_takes_a_revocation_itself() -> None:
    world = settled(colocated=True)
    assert tunnels(world) == [COLOCATED]
    by_home(world)
    assert tunnels(world) == [AN3]
    world.advance(1)
    assert "registration-revoked" in world.mn.kinds() and tunnels(world) == [COLOCATED]
    assert len(said(world.ha, 15)) == 1


def test_revocation_needs_an_association_and_configuration() -> None:
    world = World(agents_keyed=False)
    world.advance(5)
    assert home(world).revocation.revocable(HOA)[0].revocable is None
    by_home(world)
    world.advance(1)
    assert tunnels(world) == [AN3] and said(world.an1, 7) == []


def test_agent_left_behind_gets_a_late_revocation() -> None:
    world = settled()
    world.cut("radio0")
    world.advance(6)
    assert tunnels(world) == [AN2]
    moved = next(event for event in reversed(world.ha.events) if event.message == "603")
    assert moved is not None and visits(world.an1) and said(world.an1, 7) == []
    assert "revocation-sent" not in world.ha.kinds()
    world.advance(MOVED_GRACE)
    assert "revocation-sent" in world.ha.kinds()
    assert not visits(world.an1) and visits(world.an2) and tunnels(world) == [AN2]


def test_revocation_is_repeated_until_acknowledged() -> None:
    world = settled()
    world.kill(world.an1)
    by_home(world)
    notices: list[int] = []
    for _ in range(20):
        before = world.now
        sent = home(world).timeout(now=world.now) if (home(world).deadline() or 1e18) <= world.now else []
        for action in sent:
            if isinstance(action, a.SendRegistration):
                notices.append(RegistrationRevocation.decode(action.message).identifier)
        world.now = max(before, home(world).deadline() or before)
    assert len(notices) == TRIES - 1 and all(later(two, one) for one, two in pairwise(notices))


def test_revocation_ends_after_the_last_retry() -> None:
    world = settled()
    world.kill(world.an1)
    by_home(world)
    world.advance(120)
    assert "revocation-unanswered" in world.ha.kinds()


def test_revocation_succeeds_over_lossy_links() -> None:
    for seed in range(5):
        world = settled(seed=seed, loss=0.3)
        world.advance(30)
        there = AN1 if tunnels(world) == [AN1] else AN2
        host = world.an1 if there == AN1 else world.an2
        by_home(world)
        world.advance(0.001)
        world.cut("radio0")
        world.cut("radio1")
        world.advance(70)
        assert tunnels(world) == [AN3] and not visits(host)


# Belief


def notice(
    identifier: int, *, by_home_agent: bool, home_address: IPv4Address = HOA
) -> RegistrationRevocation:
    return RegistrationRevocation(home_address, HA, AN1, identifier, by_home_agent, True)


def keyed(world: World) -> Association:
    return agent(world.an1)._revocation._home_agents[HA]


Change = Callable[[World, bool], bytes]


def _unsigned(world: World, home_agent: bool) -> bytes:
    return notice(0xFFFFFF00, by_home_agent=home_agent).encode()


def _wrong_key(world: World, home_agent: bool) -> bytes:
    return signed(_unsigned(world, home_agent), AuthKind.FA_HA, replace(WRONG, spi=keyed(world).spi))


def _wrong_spi(world: World, home_agent: bool) -> bytes:
    return signed(_unsigned(world, home_agent), AuthKind.FA_HA, replace(keyed(world), spi=77777))


def _wrong_kind(world: World, home_agent: bool) -> bytes:
    return signed(_unsigned(world, home_agent), AuthKind.MN_HA, keyed(world))


def _reflected(world: World, home_agent: bool) -> bytes:
    return signed(_unsigned(world, not home_agent), AuthKind.FA_HA, keyed(world))


def _old(world: World, home_agent: bool) -> bytes:
    return signed(
        notice(_ahead(world) - 600, by_home_agent=home_agent).encode(), AuthKind.FA_HA, keyed(world)
    )


def _of_another_agent(world: World, home_agent: bool) -> bytes:
    other = replace(
        notice(_ahead(world), by_home_agent=home_agent), home_domain_address=AN3, foreign_domain_address=AN3
    )
    return signed(other.encode(), AuthKind.FA_HA, keyed(world))


def _cut(world: World, home_agent: bool) -> bytes:
    return signed(notice(_ahead(world), by_home_agent=home_agent).encode(), AuthKind.FA_HA, keyed(world))[:-1]


def _ahead(world: World) -> int:
    return (int(world.now) + 2_208_988_800 + 60) & 0xFFFFFFFF


@pytest.mark.parametrize("home_agent", [True, False])
@pytest.mark.parametrize(
    "change",
    [_unsigned, _wrong_key, _wrong_spi, _wrong_kind, _reflected, _old, _of_another_agent, _cut],
)
def test_invalid_revocations_are_counted_and_ignored(change: Change, home_agent: bool) -> None:
    world = settled()
    message = change(world, home_agent)
    target, source = (world.an1, FROM_HA) if home_agent else (world.ha, FROM_AN1)
    before = (world.ha.tables(), world.an1.tables())
    actions = target.role.receive(message, source, now=world.now)
    assert [type(action) for action in actions] == [a.Count]
    assert (world.ha.tables(), world.an1.tables()) == before and visits(world.an1) and tunnels(world) == [AN1]


def test_revocation_from_a_wrong_source_or_link_is_ignored() -> None:
    world = settled()
    good = signed(notice(_ahead(world), by_home_agent=True).encode(), AuthKind.FA_HA, keyed(world))
    for source in (Source(HA, 434, "radio0"), Source(AN3, 434, "core")):
        assert [type(action) for action in world.an1.role.receive(good, source, now=world.now)] == [a.Count]
    assert visits(world.an1)


def test_a_revocation_said_again_is_answered_once() -> None:
    world = settled()
    good = signed(notice(_ahead(world), by_home_agent=True).encode(), AuthKind.FA_HA, keyed(world))
    first = world.an1.role.receive(good, FROM_HA, now=world.now)
    assert any(isinstance(action, a.Reply) for action in first) and not visits(world.an1)
    assert world.an1.role.receive(good, FROM_HA, now=world.now) == [a.Count("revocation-replayed")]
    later_one = signed(notice(_ahead(world) + 1, by_home_agent=True).encode(), AuthKind.FA_HA, keyed(world))
    (answer,) = world.an1.role.receive(later_one, FROM_HA, now=world.now)
    assert isinstance(answer, a.Reply) and len(answer.message) <= len(later_one)


def test_unmatched_acknowledgments_are_counted() -> None:
    world = settled()
    plain = RevocationAcknowledgment(HOA, 5).encode()
    for message in (plain, signed(plain, AuthKind.FA_HA, keyed(world)), plain[:6]):
        (counted,) = world.ha.role.receive(message, FROM_AN1, now=world.now)
        assert isinstance(counted, a.Count)


@pytest.mark.parametrize("between_agents", [True, False])
def test_acknowledgment_with_the_wrong_kind_of_proof_is_ignored(between_agents: bool) -> None:
    """The key is right, but the extension is of the other pair of ends (RFC 3543 section 3.4)."""
    revocations = Revocations(Stamps())
    ours = Revocation(HOA, HA, AN1, 0, from_home_agent=True)
    to = RevocationPeer(AN1, KEY, between_agents)
    (sent, _) = revocations.begin(ours, to, now=100.0, reason="test")
    assert isinstance(sent, a.SendRegistration)
    answer = Acknowledgment(HOA, read_revocation(sent.message).identifier)

    def answered(kind: bool) -> Revocation | None:
        message = write_acknowledgment(answer, KEY, between_agents=kind)
        return revocations.acknowledged(read_acknowledgment(message), FROM_AN1)[0]

    assert answered(not between_agents) is None and len(revocations) == 1
    assert answered(between_agents) == ours and len(revocations) == 0


def test_a_home_address_that_is_withdrawn_is_revoked() -> None:
    world = settled()
    world.perform(world.ha, home(world).withdraw(HOA, now=world.now))
    assert tunnels(world) == []
    world.advance(0.05)
    assert "visitor-revoked" in world.an1.kinds() and len(said(world.an1, 7)) == 1


def test_revocation_agreements_survive_a_restart() -> None:
    world = settled()
    for host in (world.ha, world.an1):
        world.kill(host)
        world.start(host)
    world.advance(1)
    by_home(world)
    world.advance(0.05)
    assert "visitor-revoked" in world.an1.kinds()


# Clocks


@given(st.integers(0, 0xFFFFFFFF), st.integers(1, (1 << 31) - 1))
def test_later_orders_two_numbers_across_the_wrap(one: int, ahead: int) -> None:
    two = (one + ahead) & 0xFFFFFFFF
    assert later(two, one) and not later(one, two) and not later(one, one)


def test_stamps_never_repeat_and_are_few() -> None:
    stamps, last = Stamps(), 0
    for now in (100.0, 100.1, 100.2, 90.0, 101.0, 200.0):
        fresh = stamps.next(HOA, now)
        assert not last or later(fresh, last)
        last = fresh
    for number in range(2 * MAX_REMEMBERED):
        stamps.next(IPv4Address(number + 1), 1000.0 + number)
    assert len(stamps._last) <= MAX_REMEMBERED + 2


def test_heard_numbers_are_bounded() -> None:
    heard = Heard()
    for number in range(MAX_REMEMBERED + 10):
        heard.set(HA, IPv4Address(number + 1), number)
    assert (
        heard.get(HA, IPv4Address(1)) is None and heard.get(HA, IPv4Address(MAX_REMEMBERED + 10)) is not None
    )


@pytest.mark.parametrize("row", [5, "x", [1], ["a", True]])
def test_foreign_rows_are_ignored(row: object) -> None:
    with pytest.raises(ValueError):
        Revocable.from_row(row)  # type: ignore[arg-type]
    assert Revocable.from_row(None) is None
    assert Revocable.from_row(Revocable(7, True).to_row()) == Revocable(7, True)
