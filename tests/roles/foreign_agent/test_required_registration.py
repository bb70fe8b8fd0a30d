"""The R bit (RFC 5944 sections 2.1.1 and 3.1): a co-located care-of address is registered through the access node."""

from dataclasses import replace

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.forwarding import Side
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.role import HomeAgent
from locum.security.association import Association
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag
from locum.wire.mobile_ip.extensions import UdpTunnelRequest
from locum.wire.mobile_ip.registration import REGISTRATION_REQUEST, Flag, RegistrationRequest
from tests.roles.world import AN1, COLOCATED, HA, HOA, World

AGENT_KEY, VISITOR_KEY = (
    Association(400, b"a" * 16),
    Association(500, b"f" * 16),
)  # of World(agents_keyed=True)


def require(world: World, *, keyed: bool = False, **changes: object) -> None:
    """Start an1 again, as one that requires registration (unless `changes` say otherwise)."""
    assert isinstance(world.an1.role, ForeignAgent)
    changes = {"registration_required": True, **changes}
    configuration = replace(world.an1.role.configuration, **changes)  # type: ignore[arg-type]
    home_agents: dict[Addr, Association] = {HA: AGENT_KEY} if keyed else {}
    mobiles: dict[Addr, Association] = {HOA: VISITOR_KEY} if keyed else {}
    world.an1.make = lambda: ForeignAgent(configuration, home_agents, mobiles, (), world.random)
    world.start(world.an1)


def asked(world: World) -> list[str]:
    """Agents that were asked to register, in order."""
    return [
        str(event.detail["to"]) for event in world.mn.events if (event.kind, event.message) == ("sent", "601")
    ]


def bound(world: World) -> tuple[Addr, Addr]:
    """The care-of address and the agent of the only registration."""
    assert isinstance(world.ha.role, HomeAgent)
    (line,) = world.ha.role.visitor_list(now=world.now)
    (care_of,) = line.care_of
    return care_of.address, care_of.agent


@pytest.mark.parametrize("agents_keyed", [False, True])
@pytest.mark.parametrize("challenge", [False, True])
def test_registered_through_the_agent_with_its_own_tunnel_end(agents_keyed: bool, challenge: bool) -> None:
    world = World(colocated=True, agents_keyed=agents_keyed)
    require(world, keyed=agents_keyed, challenge=challenge)
    world.advance(10)
    assert set(asked(world)[-1:]) == {str(AN1)}
    assert bound(world) == (COLOCATED, AN1)
    assert world.ha.bindings[HOA].tunnels[0].destination == COLOCATED
    assert world.mn.via is not None and world.mn.via.colocated and world.mn.via.care_of == COLOCATED
    assert (HA, HOA, Side.TO_HOME_ADDRESS) in world.mn.acceptances
    assert isinstance(world.an1.role, ForeignAgent) and not world.an1.role.visitors()
    world.advance(400)  # renewed in the same way
    assert set(asked(world)[2:]) == {str(AN1)} and bound(world) == (COLOCATED, AN1)
    assert "attachment-lost" not in world.mn.kinds()


def test_request_has_the_co_located_address_and_the_d_bit() -> None:
    world = World(colocated=True)
    require(world)
    seen: list[RegistrationRequest] = []
    receive = world.give

    def watch(host: object, message: bytes, source: Source) -> None:
        if host is world.an1 and message[0] == REGISTRATION_REQUEST:
            seen.append(RegistrationRequest.decode(message))
            assert source.address == COLOCATED
        receive(host, message, source)  # type: ignore[arg-type]

    world.give = watch  # type: ignore[method-assign]
    world.advance(5)
    assert seen and all(request.care_of_address == COLOCATED and Flag.D in request.flags for request in seen)
    assert not any(request.find(UdpTunnelRequest) for request in seen)


def test_agent_that_starts_to_require_registration_or_leaves() -> None:
    world = World(colocated=True)
    world.advance(5)
    assert set(asked(world)) == {str(HA)} and bound(world) == (COLOCATED, COLOCATED)
    via = world.mn.via
    require(world)
    world.advance(3)
    assert asked(world)[-1] == str(AN1) and bound(world) == (COLOCATED, AN1)
    assert world.mn.via is not None and via is not None and world.mn.via.care_of == via.care_of
    world.kill(world.an1)
    world.advance(10)  # no agent advertises any more; packets go on, for they never used the agent
    assert "attachment-lost" not in world.mn.kinds() and world.mn.via is not None
    world.advance(250)
    assert asked(world)[-1] == str(HA) and bound(world) == (COLOCATED, COLOCATED)


def test_device_obeys_a_refusal_of_the_agent() -> None:
    world = World(colocated=True)
    require(world, registration_lifetime=60)
    world.advance(5)
    assert world.device.mobile.registered is not None and world.device.mobile.registered.lifetime == 60
    world = World(colocated=True)
    require(world, max_visitors=0)  # busy
    world.advance(20)
    assert set(asked(world)) <= {str(HA)} and len(asked(world)) <= 1
    require(world, max_visitors=1024)
    world.advance(5)
    assert bound(world) == (COLOCATED, AN1)


def test_deregistration_after_a_restart_goes_through_the_agent() -> None:
    world = World(colocated=True)
    require(world)
    world.advance(5)
    before = len(asked(world))
    world.kill(world.mn)
    world.start(world.mn)
    world.advance(20)
    assert len(asked(world)) == before
    registered = world.device.mobile.registered
    assert registered is not None and registered.attachment.relayed and not registered.attachment.direct
    world.perform(world.mn, world.device.mobile.leave(now=world.clock(world.mn)))
    world.advance(1)
    assert asked(world)[-1] == str(AN1)
    assert isinstance(world.ha.role, HomeAgent)
    assert not world.ha.role.visitor_list(now=world.now)[0].care_of


def test_configuration_sets_the_registration_required_bit() -> None:
    world = World()
    for required in (False, True):
        require(world, registration_required=required)
        sent = world.an1.role.timeout(now=world.now + 10)
        flags = [
            AgentAdvertisement.decode(action.message).flags
            for action in sent
            if isinstance(action, a.Advertise)
        ]
        assert [AgentFlag.R in flag for flag in flags] == [required]


def test_agent_sends_its_name() -> None:
    world = World()
    for nai in (None, "an1@example.org"):
        require(world, nai=nai)
        sent = world.an1.role.timeout(now=world.now + 10)
        said = [
            AgentAdvertisement.decode(action.message).nai
            for action in sent
            if isinstance(action, a.Advertise)
        ]
        assert said == [nai]
