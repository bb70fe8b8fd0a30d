"""Registration timelines: register, renew, move, expire to the default care-of address, refusals (R1, R2, R9, R10, C1)."""

import itertools

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import Side
from locum.roles.home_agent.role import HomeAgent
from locum.roles.registrant.attachment import Registering, RegistrationTarget
from locum.security.association import Algorithm, Replay
from locum.wire.mobile_ip.registration import Code
from tests.roles.packets import care_of, ordinary
from tests.roles.world import AN1, AN2, AN3, COLOCATED, HA, HOA, HOA6, STAND_IN, World


def tunnels(world: World, home: Addr = HOA) -> list[Addr]:
    return care_of(world.ha.forwarding, ordinary(home))


def test_default_care_of_address_works_before_any_registration() -> None:
    world = World()
    assert tunnels(world) == [AN3]
    assert tunnels(world, HOA6) == [AN3]
    assert (AN3, HOA, Side.FROM_HOME_ADDRESS) in world.ha.acceptances


@pytest.mark.parametrize("replay", Replay)
@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("agents_keyed", [False, True])
@pytest.mark.parametrize("challenge", [False, True])
def test_register(replay: Replay, algorithm: Algorithm, agents_keyed: bool, challenge: bool) -> None:
    world = World(replay=replay, algorithm=algorithm, agents_keyed=agents_keyed, challenge=challenge)
    world.advance(5)
    assert tunnels(world) == [AN1] and tunnels(world, HOA6) == [AN1]
    assert world.mn.via is not None and world.mn.via.agent == AN1
    assert world.mn.via.home_addresses == (HOA, HOA6)
    acceptance = world.an1.acceptances[HA, HOA, Side.TO_HOME_ADDRESS]
    assert (acceptance.link, acceptance.next_hop) == ("radio0", HOA)
    assert world.an1.outbound[HOA6, "radio0"].tunnel == Tunnel(AN1, HA)
    assert ("radio0", HOA) in world.an1.neighbours
    assert "notified" in world.mn.kinds()


def test_colocated_care_of_address() -> None:
    world = World(colocated=True)
    world.advance(3)
    assert tunnels(world) == [COLOCATED]
    assert world.mn.outbound[HOA, None].tunnel == Tunnel(COLOCATED, HA)
    assert (HA, HOA6, Side.TO_HOME_ADDRESS) in world.mn.acceptances
    assert COLOCATED in world.mn.endpoints and world.an1.acceptances == {}


def test_renewed_before_expiry_without_touching_the_data_plane() -> None:
    world = World(lifetime=60)
    world.advance(5)
    before = world.ha.tables()[1:]
    world.advance(600)
    assert world.ha.tables()[1:] == before
    assert "expired" not in world.ha.kinds()
    assert world.mn.kinds().count("registered") >= 10


def test_registration_succeeds_over_lossy_links() -> None:
    for seed in range(6):
        world = World(seed, loss=0.3, duplicate=0.2, lifetime=60)
        world.advance(400)
        assert tunnels(world) == [AN1] or tunnels(world) == [AN2]


def test_vanished_device_gets_the_default_a_second_after_expiry() -> None:
    world = World(lifetime=60)
    world.advance(5)
    world.kill(world.mn)
    world.cut("radio0")
    world.cut("radio1")
    world.advance(50)
    assert tunnels(world) == [AN1]
    world.advance(6)
    assert tunnels(world) == [AN3]
    assert world.an1.acceptances == {} and "visitor-expired" in world.an1.kinds()


def test_without_default_the_binding_is_gone() -> None:
    world = World(default=False, lifetime=60)
    world.advance(5)
    assert tunnels(world) == [AN1]
    world.kill(world.mn)
    world.advance(61)
    assert world.ha.bindings == {} and world.ha.acceptances == {}


def test_very_short_lifetime_uses_the_default_and_the_peer_rule() -> None:
    world = World()
    world.advance(5)
    world.perform(world.mn, world.device.mobile.set_target(RegistrationTarget.BRIEF, now=world.now))
    world.advance(1)
    entry = world.ha.bindings[HOA]
    assert [tunnel.destination for tunnel in entry.tunnels] == [AN3]
    assert entry.peer == STAND_IN and entry.peer_tunnel == Tunnel(HA, AN1)
    assert {AN1, AN3} == {outer for outer, home, _ in world.ha.acceptances if home == HOA}
    world.advance(60)
    assert world.ha.bindings[HOA] == entry, "it is renewed while it is the target"


def test_deregistration() -> None:
    world = World()
    world.advance(5)
    world.perform(world.mn, world.device.mobile.set_target(RegistrationTarget.WITHDRAWN, now=world.now))
    world.advance(2)
    assert tunnels(world) == [AN3]
    assert world.mn.via is None and world.an1.rows == {}
    assert world.an1.acceptances == {} and world.an1.neighbours == {}


def test_deregistration_at_exit_does_not_outlive_the_run() -> None:
    world = World()
    world.advance(5)
    world.perform(world.mn, world.device.leave(now=world.now))
    said = world.device.mobile.leaving
    world.advance(1)
    assert (said, world.device.mobile.leaving) == (True, False)
    assert tunnels(world) == [AN3] and world.an1.rows == {}
    assert world.device.leave(now=world.now) == [], "there is nothing left to take back"
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(5)
    assert tunnels(world) == [AN1], "the next run registers"


def test_unanswered_deregistration_at_exit() -> None:
    world = World()
    world.advance(5)
    world.kill(world.ha)
    world.perform(world.mn, world.device.leave(now=world.now))
    world.advance(1)
    world.kill(world.mn)
    world.start(world.mn)
    world.start(world.ha)
    world.advance(5)
    assert tunnels(world) == [AN1]
    world.cut("radio0")
    world.cut("radio1")
    assert world.device.leave(now=world.now) == [], "there is no way to say it"


def test_move_to_the_other_access_node_when_the_link_goes() -> None:
    world = World()
    world.advance(5)
    world.cut("radio0")
    world.advance(2)
    assert tunnels(world) == [AN2]
    assert world.mn.via is not None and world.mn.via.link == "radio1"
    world.mend("radio0")
    world.advance(5)
    assert tunnels(world) == [AN2], "a way that works is kept"


def test_move_when_advertisements_are_lost() -> None:
    world = World()
    world.advance(5)
    world.kill(world.an1)
    world.advance(2)
    assert tunnels(world) == [AN1]
    world.advance(4)
    assert tunnels(world) == [AN2]


def test_solicitations_back_off() -> None:
    world = World()
    world.kill(world.an1)
    world.kill(world.an2)
    sent: list[float] = []
    plain = world._transmit

    def watch(host: object, action: a.Action) -> None:
        if isinstance(action, a.Solicit) and action.link == "radio0":
            sent.append(world.now)
        plain(host, action)  # type: ignore[arg-type]

    world._transmit = watch  # type: ignore[method-assign]
    world.advance(200)
    gaps = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert min(gaps) >= 1.0 and max(gaps) > 30 and len(sent) < 14
    world.start(world.an1)
    world.advance(3)
    assert tunnels(world) == [AN1]


def test_rebooted_agent_is_registered_with_again() -> None:
    world = World()
    world.advance(20)
    world.kill(world.an1)
    world.an1.rows.clear()
    world.start(world.an1)
    world.advance(2)
    assert "agent-rebooted" in world.mn.kinds()
    assert (HA, HOA, Side.TO_HOME_ADDRESS) in world.an1.acceptances


def test_home_agent_corrects_a_wrong_clock() -> None:
    for skew in (-3600.0, 3600.0):
        world = World(skew=skew)
        world.advance(5)
        assert world.mn.counts["denied-133"] == 1
        assert tunnels(world) == [AN1]


def test_lifetime_is_limited_by_agent_and_home_agent() -> None:
    world = World(lifetime=5000, fa_lifetime=100)
    world.advance(5)
    assert world.device.mobile.registered is not None
    assert world.device.mobile.registered.lifetime == 100
    world = World(lifetime=5000, fa_lifetime=0xFFFF)
    world.advance(5)
    assert world.device.mobile.registered is not None
    assert world.device.mobile.registered.lifetime == 1800


def test_retransmissions_back_off_with_new_identifications() -> None:
    world = World()
    world.kill(world.ha)
    world.advance(3)
    seen: list[tuple[float, int]] = []
    for _ in range(60):
        state = world.device.mobile.state
        if isinstance(state, Registering) and (not seen or seen[-1][1] != state.identification):
            seen.append((state.sent_at, state.identification))
        world.advance(0.5)
    assert len({identification for _, identification in seen}) == len(seen) >= 3
    assert world.an1.counts[f"refused-{int(Code.FA_REGISTRATION_TIMEOUT)}"] >= 1
    world.start(world.ha)
    world.advance(40)
    assert tunnels(world) in ([AN1], [AN2])


def test_visitor_list_shows_the_care_of_addresses_in_force() -> None:
    world = World()
    world.advance(5)
    assert isinstance(world.ha.role, HomeAgent)
    line = world.ha.role.visitor_list(now=world.now)[0]
    assert line.in_force == (AN1,) and line.default_care_of == AN3 and line.ipv6
    assert line.care_of[0].lifetime == 300 and line.spi == 300
