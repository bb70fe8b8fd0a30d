"""The location of a sleeping device, drawn from rules of its stand-in (1208), at home agent and location server (P6)."""

from typing import Any

from locum.roles.action_values.locations import LocationTold
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.device_location import LOCATED, UNDATED
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.location.role import LocationServer
from locum.security.association import Replay
from locum.wire.control.paging.location import Location1212
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.status import PagingStatus
from tests.roles.home_agent.left_site import BRIEF, HOMES, Site, agent_rule
from tests.roles.homeworld import AN1, AN2, HA, HOA


class Located(Site):
    """A home agent with a location server on its host."""

    def __init__(self, *, located: bool = True, **options: Any) -> None:
        super().__init__(configuration=HomeAgentConfiguration(HA, located=located), **options)
        self.server = LocationServer(LocationConfiguration(frozenset((AN1, AN2))))

    def told(self) -> list[Location1212]:
        """New locations that the home agent tells; the server hears them."""
        told, self.home.located = [one.location for one in self.home.located], []
        for location in told:
            self.server.happened(LocationTold(location), now=self.home.now)
        return told

    def sleep(self) -> None:
        """The device was at AN1, and its short registration runs out."""
        self.home.device.register(AN1)
        self.told()
        self.home.now += 10
        self.home.device.register(AN1, BRIEF)
        self.home.advance(BRIEF + 1)

    def place(self) -> tuple[object, ...]:
        [entry] = self.server.entries()
        return entry.location.access_node, entry.location.state


def test_rules_show_that_the_device_sleeps_where_it_was() -> None:
    site = Located()
    site.sleep()
    registered = site.home.now - BRIEF - 1
    assert site.place() == (AN1, DeviceState.AWAKE)
    site.agent(agent_rule(443))
    [location] = site.told()
    assert (location.home_addresses, location.lifetime, location.care_of) == (HOMES, LOCATED, AN1)
    assert abs(location.sent - registered * 1000) < 2, "the place was seen when it registered"
    assert site.place() == (AN1, DeviceState.ASLEEP)


def test_refreshed_rules_outlast_the_registration() -> None:
    site = Located()
    site.sleep()
    for _ in range(8):
        site.home.advance(1800)
        site.server.timeout(now=site.home.now)
        site.agent(agent_rule(443))
        site.told()
        assert site.place() == (AN1, DeviceState.ASLEEP)
    site.home.advance(86_400)
    site.server.timeout(now=site.home.now)
    assert site.place() == (AN1, DeviceState.ASLEEP)


def test_device_that_moved_in_its_sleep_stays_there() -> None:
    site = Located()
    site.sleep()
    site.home.advance(60)
    moved = Location1212(HOMES, 3600, 0, access_node=AN2, care_of=AN2, state=DeviceState.ASLEEP)
    site.server.happened(LocationTold(moved), now=site.home.now)
    site.home.advance(60)
    site.agent(agent_rule(443))
    site.told()
    assert site.place() == (AN2, DeviceState.ASLEEP), "its report is the later observation"


def test_rules_of_an_awake_device_show_nothing() -> None:
    site = Located()
    site.agent(agent_rule(443))
    assert site.told() == [], "it was never here"
    site.home.device.register(AN1)
    site.told()
    site.home.now += 1
    site.agent(agent_rule(443))
    assert site.told() == [] and site.place() == (AN1, DeviceState.AWAKE)


def test_only_accepted_rules_show_a_location() -> None:
    site = Located()
    site.sleep()
    sent = site.time
    assert site.agent(agent_rule(443), sent=sent).status is PagingStatus.OK
    assert len(site.told()) == 1
    assert site.agent(agent_rule(443), sent=sent).status is PagingStatus.OK, "it came twice"
    assert site.agent(agent_rule(22), sent=sent - 1).status is PagingStatus.STALE
    assert site.agent(agent_rule(22), sent=sent + 1, peer=HOA).status is PagingStatus.NOT_AUTHORISED
    assert site.agent(lifetime=0, sent=sent + 2).status is PagingStatus.OK
    assert site.told() == []


def test_without_a_location_server_nothing_is_told() -> None:
    site = Located(located=False)
    site.sleep()
    site.agent(agent_rule(443))
    assert site.told() == []


def test_nonces_tell_no_time() -> None:
    site = Located(replay=Replay.NONCE)
    for _ in range(2):  # the first is refused, and brings the nonce
        site.home.device.register(AN1)
    site.sleep()
    site.agent(agent_rule(443))
    [location] = site.told()
    assert (location.sent, location.access_node) == (UNDATED, AN1)
    assert site.place() == (AN1, DeviceState.AWAKE), "every report is later"
    site.home.advance(1800)
    site.server.timeout(now=site.home.now)
    site.agent(agent_rule(443))
    site.told()
    assert site.place() == (AN1, DeviceState.ASLEEP), "no other place is known"
