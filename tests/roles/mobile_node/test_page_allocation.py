"""Address and mobility agent that a page allocates: signed by the home agent, used by the device's next registration (P9)."""

from dataclasses import replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import Source
from locum.roles.action_values.page_calls import CallReason, PageCall
from locum.roles.actions import Action, Ask, Count, SendRegistration
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.mobile_ipv4.page_calls import read_call, write_call
from locum.roles.mobile_node.page_calls import PageCalls
from locum.roles.registrant.attachment import RegistrationTarget
from locum.security.association import Association
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.provision import Allocation
from locum.wire.mobile_ip.registration import RegistrationRequest
from tests.roles.home_agent.test_profiles import Server
from tests.roles.policyworld import AN1, FULL, HA, HOA, KEY, NAI, NOBODY, POOL, POOLED, PolicyWorld

PUBLIC, OTHER = IPv4Address("198.51.100.7"), IPv4Address("10.50.0.101")
CALLER = Source(AN1, 434, "radio", b"\2" * 6)


def sleeping(**changes: object) -> PolicyWorld:
    """A device that had an address of a pool, and whose registration is over."""
    server = Server()
    server.profiles = {NAI: replace(POOLED, lifetime=None), str(HOA): replace(FULL, lifetime=None)}
    world = PolicyWorld(server, HomeAgentConfiguration(HA, public_address=PUBLIC))
    world.start_device(**changes)
    assert registered(world)
    world.perform("mn", world.device.set_target(RegistrationTarget.NOTHING, now=world.now))
    world.advance(400)
    assert not registered(world)
    return world


def registered(world: PolicyWorld) -> bool:
    return world.device.registered is not None


def paged(world: PolicyWorld) -> tuple[PageCall, Allocation | None, bytes]:
    """The call of a page by command, the allocation beside it, and the call's bytes."""
    home = world.device.configuration.home_address
    [ask] = [it for it in world.home.paging.command(home, now=world.now) if isinstance(it, Ask)]
    page = decode_1170(ask.body)
    return read_call(page.call), page.provision.allocation, page.call


def woken(world: PolicyWorld, call: bytes) -> RegistrationRequest:
    """The request that the device sends after this call."""
    PageCalls(world.device).called(call, CALLER, asleep=True)
    return request(world.device.set_target(RegistrationTarget.ORDINARY, now=world.now))


def request(actions: list[Action]) -> RegistrationRequest:
    return RegistrationRequest.decode(
        next(action.message for action in actions if isinstance(action, SendRegistration))
    )


def test_device_registers_with_the_allocated_address() -> None:
    world = sleeping()
    call, beside, message = paged(world)
    assert world.device.configuration.home_address == POOL.first
    assert call.allocation == (POOL.first, PUBLIC) and beside == Allocation(POOL.first, PUBLIC)
    assert woken(world, message).home_address == POOL.first


def test_without_an_allocation_any_address_is_asked_for() -> None:
    world = sleeping()
    woke = request(world.device.set_target(RegistrationTarget.ORDINARY, now=world.now))
    assert woke.home_address == NOBODY


def test_fresh_address_takes_the_place_of_the_former_one() -> None:
    world = sleeping()
    call, _, _ = paged(world)
    fresh = write_call(replace(call, allocation=(OTHER, HA), proof=None), KEY)
    assert woken(world, fresh).home_address == OTHER


def test_allocated_mobility_agent_is_asked_first() -> None:
    world = sleeping(dynamic=True)
    _, _, message = paged(world)
    woken(world, message)
    assert world.device.home_agent.address == PUBLIC


def test_access_node_cannot_change_an_allocation() -> None:
    world = sleeping()
    _, _, message = paged(world)
    for place in range(24, 32):
        forged = message[:place] + bytes((message[place] ^ 1,)) + message[place + 1 :]
        actions, wakes = PageCalls(world.device).called(forged, CALLER, asleep=True)
        assert actions == [Count("call-not-authentic")] and not wakes
    assert world.device.home_agent.allocated == NOBODY


def test_allocation_holds_for_one_registration() -> None:
    world = sleeping()
    _, _, message = paged(world)
    PageCalls(world.device).called(message, CALLER, asleep=True)
    world.perform("mn", world.device.set_target(RegistrationTarget.ORDINARY, now=world.now))
    world.settle()
    assert registered(world)
    assert world.device.configuration.home_address == POOL.first
    assert world.device.home_agent.allocated == NOBODY


def test_device_that_is_awake_keeps_what_it_has() -> None:
    world = sleeping()
    _, _, message = paged(world)
    PageCalls(world.device).called(message, CALLER, asleep=False)
    assert world.device.home_agent.allocated == NOBODY


def test_address_of_a_profile_needs_no_allocation() -> None:
    world = sleeping(nai=None, home_address=HOA)
    call, beside, _ = paged(world)
    assert call.allocation is None and beside is None


def test_call_of_another_home_agent_allocates_nothing() -> None:
    world = sleeping()
    home = world.device.configuration.home_address
    call = PageCall(b"page-one", home, 1 << 63, CallReason.PACKET, allocation=(OTHER, HA))
    forged = write_call(call, Association(300, b"x" * 16))
    assert PageCalls(world.device).called(forged, CALLER, asleep=True) == (
        [Count("call-not-authentic")],
        False,
    )
