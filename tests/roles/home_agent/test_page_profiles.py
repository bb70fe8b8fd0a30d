"""Profiles and pointers in the pages of a home agent (P8)."""

from dataclasses import replace

import pytest

from locum.roles.action_values.flows import FilterRule, FilterVerdict
from locum.roles.action_values.paging import PageProfile
from locum.roles.actions import Ask
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.profile import Policing, policy_blocks
from locum.wire.control.context_blocks import BlockKind, decode_block, kind_of
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.provision import NO_PROVISION, Pointer, Provision
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.home_agent.test_profiles import Server
from tests.roles.policyworld import AN1, FULL, HA, HOA, NAI, PolicyWorld

DROP = FilterRule(7, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP)
PROFILE = replace(FULL, lifetime=None, to_visitor=Policing((DROP,)))
SERVER = AN1 + 100


def provision(form: PageProfile, nai: str | None = NAI) -> Provision:
    """The provision of a page for a device that was registered, and is not any more."""
    server = Server()
    server.profiles = {NAI: PROFILE, str(HOA): PROFILE}
    configuration = HomeAgentConfiguration(HA, page_profile=form, policy_server=SERVER)
    world = PolicyWorld(server, configuration)
    world.start_device(nai=nai, home_address=HOA)
    assert world.home.visitor_list(now=world.now)
    world.now += 3600.0
    asked = [action for action in world.home.paging.command(HOA, now=world.now) if isinstance(action, Ask)]
    assert [ask.peer for ask in asked] == [AN1]
    return decode_1170(asked[0].body).provision


def test_page_brings_the_policing_of_a_profile() -> None:
    found = provision(PageProfile.WHOLE)
    contents = [decode_block(BlockKind(block.kind), block.data or b"") for block in found.profile]
    assert tuple(contents) == policy_blocks(PROFILE) and found.pointer is None
    assert [block.kind for block in found.profile] == [int(kind_of(content)) for content in contents]


def test_page_points_to_the_policy_server() -> None:
    assert provision(PageProfile.POINTER) == Provision(pointer=Pointer(SERVER, NAI))
    assert provision(PageProfile.POINTER, None) == Provision(pointer=Pointer(SERVER, str(HOA)))


@pytest.mark.parametrize("form", [PageProfile.NONE])
def test_page_brings_nothing_unless_it_is_configured(form: PageProfile) -> None:
    assert provision(form) == NO_PROVISION
