"""The location server on a virtual clock: rights, order, lifetimes, names, rows and queries (P6)."""

from dataclasses import dataclass, field, replace
from ipaddress import ip_address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.locations import LocationTold
from locum.roles.location.configuration import LocationConfiguration, NamedDevice
from locum.roles.location.entry import Origin
from locum.roles.location.role import AHEAD, LocationServer
from locum.wire.control.paging.location import (
    Location1212,
    LocationQuery,
    decode_query_answer,
    encode_1212,
    encode_query,
)
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, decode_status_answer
from locum.wire.control.paging.way import Way

HOME, SIX, OTHER = ip_address("10.50.0.9"), ip_address("2001:db8:50::9"), ip_address("10.50.0.10")
AN1, AN2, CARE_OF = ip_address("10.1.0.1"), ip_address("10.2.0.1"), ip_address("10.1.0.254")
MNPS, STRANGER, OWN = ip_address("10.3.0.9"), ip_address("10.9.9.9"), ip_address("10.5.0.1")
START = 1_790_000_000.0
ASLEEP = DeviceState.ASLEEP


@dataclass
class Clock:
    """A location server, its rows, its events and counters, and the time."""

    configuration: LocationConfiguration = field(
        default_factory=lambda: LocationConfiguration(
            access_nodes=frozenset((AN1, AN2)), clients=frozenset((MNPS,)), own=OWN
        )
    )
    now: float = START
    rows: dict[str, a.Persist] = field(default_factory=dict)
    kinds: list[str] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = LocationServer(self.configuration)

    def perform(self, actions: list[a.Action]) -> bytes | None:
        """Keep rows, events and counters; the body of the answer."""
        body = None
        for action in actions:
            match action:
                case a.Persist():
                    self.rows[action.key] = action
                case a.Forget():
                    del self.rows[action.key]
                case a.Emit():
                    self.kinds.append(action.kind)
                case a.Count():
                    self.counts.append(action.reason)
                case a.Answer():
                    body = action.body
        return body

    def update(
        self, location: Location1212, peer: Addr = AN1, authorised: tuple[Addr, ...] = ()
    ) -> StatusAnswer:
        """The answer to an update from that peer."""
        asked = a.Asked(1, "1212", encode_1212(location), peer, authorised)
        body = self.perform(self.server.happened(asked, now=self.now))
        assert body is not None
        return decode_status_answer(body)

    def query(
        self, query: LocationQuery, peer: Addr = MNPS, authorised: tuple[Addr, ...] = ()
    ) -> tuple[PagingStatus, tuple[Location1212, ...]]:
        """Status and entries of the answer to a query from that peer."""
        asked = a.Asked(1, "1135", encode_query(query), peer, authorised)
        body = self.perform(self.server.happened(asked, now=self.now))
        assert body is not None
        answer = decode_query_answer(body)
        return answer.status, answer.found

    def where(self, home: Addr = HOME) -> Location1212 | None:
        """The location of a home address."""
        _status, found = self.query(LocationQuery(home))
        return found[0] if found else None

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        until = self.now + seconds
        while (at := self.server.deadline()) is not None and at <= until:
            self.now = max(self.now, at)
            self.perform(self.server.timeout(now=self.now))
        self.now = until

    def restart(self) -> None:
        """Begin again with the rows."""
        self.server = LocationServer(self.configuration)
        self.perform(self.server.restore(list(self.rows.values()), now=self.now))

    def at(self, access_node: Addr = AN1, lifetime: int = 300, **more: object) -> Location1212:
        """A location as of now."""
        location = Location1212(
            (HOME,), lifetime, round(self.now * 1000), access_node=access_node, care_of=CARE_OF
        )
        return replace(location, **more)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_access_node_reports_a_device_at_itself(clock: Clock) -> None:
    assert clock.update(clock.at()) == StatusAnswer(PagingStatus.OK, lifetime=300)
    found = clock.where()
    assert found is not None
    assert (found.access_node, found.care_of, found.lifetime) == (AN1, CARE_OF, 300)
    assert clock.kinds == ["location-changed"]
    assert [entry.origin for entry in clock.server.entries()] == [Origin.ACCESS_NODE]


def test_access_node_cannot_report_a_device_elsewhere(clock: Clock) -> None:
    assert clock.update(clock.at(AN2), AN1).status is PagingStatus.NOT_AUTHORISED
    assert clock.where() is None
    assert clock.counts == ["location-not-authorised"]


@pytest.mark.parametrize("authorised", [(), (OTHER,), (SIX,)])
def test_update_for_anothers_device_is_refused(clock: Clock, authorised: tuple[Addr, ...]) -> None:
    clock.update(clock.at())
    clock.now += 1
    forged = clock.at(AN2, home_addresses=(HOME, SIX))
    assert clock.update(forged, STRANGER, authorised).status is PagingStatus.NOT_AUTHORISED
    assert clock.update(clock.at(lifetime=0), STRANGER, authorised).status is PagingStatus.NOT_AUTHORISED
    found = clock.where()
    assert found is not None and found.access_node == AN1
    assert clock.counts == ["location-not-authorised"] * 2


def test_device_speaks_for_its_own_addresses(clock: Clock) -> None:
    both = clock.at(home_addresses=(HOME, SIX), state=ASLEEP)
    assert clock.update(both, HOME, (HOME, SIX)).status is PagingStatus.OK
    for home in (HOME, SIX):
        found = clock.where(home)
        assert found is not None and found.state is ASLEEP
    assert [entry.origin for entry in clock.server.entries()] == [Origin.DEVICE]


def test_newest_update_counts(clock: Clock) -> None:
    old = clock.at(AN1)
    clock.now += 5
    assert clock.update(clock.at(AN2), AN2).status is PagingStatus.OK
    assert clock.update(old, AN1).status is PagingStatus.STALE
    found = clock.where()
    assert found is not None and found.access_node == AN2
    assert clock.counts == ["location-stale"]


def test_doubled_update_has_the_same_answer(clock: Clock) -> None:
    first = clock.at()
    assert clock.update(first) == clock.update(first) == StatusAnswer(PagingStatus.OK, lifetime=300)
    other = replace(first, care_of=None)
    assert clock.update(other).status is PagingStatus.STALE, "another place at the same time"


def test_update_from_the_future_is_refused(clock: Clock) -> None:
    late = clock.at(sent=round((clock.now + AHEAD + 1) * 1000))
    assert clock.update(late).status is PagingStatus.REFUSED
    assert clock.counts == ["location-future"]
    clock.perform(clock.server.happened(a.WallClockStepped(2.0), now=clock.now))
    assert clock.update(late).status is PagingStatus.OK, (
        "the wall clock here is ahead of steady seconds as well"
    )


def test_entry_ends_with_its_lifetime(clock: Clock) -> None:
    clock.update(clock.at(lifetime=60))
    clock.advance(59)
    found = clock.where()
    assert found is not None and found.lifetime == 1
    clock.advance(2)
    assert clock.where() is None
    assert (clock.rows, clock.kinds) == ({}, ["location-changed", "location-ended"])
    assert clock.query(LocationQuery(HOME)) == (PagingStatus.UNKNOWN, ())


def test_lifetime_is_bounded() -> None:
    clock = Clock(LocationConfiguration(access_nodes=frozenset((AN1,)), max_lifetime=100))
    assert clock.update(clock.at(lifetime=86_400)) == StatusAnswer(PagingStatus.OK, lifetime=100)
    clock.advance(101)
    assert len(clock.server.entries()) == 0


def test_end_at_an_earlier_access_node_changes_nothing(clock: Clock) -> None:
    clock.update(clock.at(AN1))
    clock.now += 1
    clock.update(clock.at(AN2), AN2)
    clock.now += 1
    assert clock.update(clock.at(AN1, lifetime=0), AN1).status is PagingStatus.OK
    found = clock.where()
    assert found is not None and found.access_node == AN2
    clock.update(clock.at(AN2, lifetime=0), AN2)
    assert clock.where() is None


def test_sleeper_stays_where_it_fell_asleep(clock: Clock) -> None:
    clock.update(clock.at(state=ASLEEP, lifetime=86_400), HOME, (HOME,))
    clock.now += 20
    clock.update(clock.at(lifetime=0))
    clock.perform(clock.server.happened(LocationTold(clock.at(lifetime=0)), now=clock.now))
    found = clock.where()
    assert found is not None and found.state is ASLEEP
    clock.now += 1
    clock.update(clock.at(lifetime=0), HOME, (HOME,))
    assert clock.where() is None, "the device itself may say that it is gone"


def test_registration_of_this_host_is_a_location(clock: Clock) -> None:
    told = Location1212((HOME, SIX), 300, 0, access_node=AN1, care_of=AN1)
    clock.perform(clock.server.happened(LocationTold(told), now=clock.now))
    found = clock.where(SIX)
    assert found is not None and (found.access_node, found.sent) == (AN1, round(START * 1000))
    assert [entry.origin for entry in clock.server.entries()] == [Origin.REGISTRATION]
    clock.now += 1
    clock.perform(clock.server.happened(LocationTold(replace(told, lifetime=0)), now=clock.now))
    assert clock.where() is None


def test_names_and_way_stay_with_the_entry(clock: Clock) -> None:
    way = Way("radio", b"\x02", 320, 0, 10)
    named = clock.at(home_addresses=(HOME, SIX), node_id="mn@ha", uris=("sip:a@b",), way=way)
    clock.update(named, HOME, (HOME, SIX))
    clock.now += 1
    clock.update(clock.at(AN2), AN2)
    found = clock.where(SIX)
    assert found is not None
    assert (found.access_node, found.node_id, found.uris, found.way) == (AN2, "mn@ha", ("sip:a@b",), way)
    for query in (LocationQuery(node_id="mn@ha"), LocationQuery(uri="sip:a@b")):
        assert clock.query(query)[1] == (found,)
    for query in (LocationQuery(uri="mn@ha"), LocationQuery(node_id="sip:a@b"), LocationQuery(uri="sip:c@d")):
        assert clock.query(query) == (PagingStatus.UNKNOWN, ())


def test_access_node_is_known_better_than_by_the_device(clock: Clock) -> None:
    clock.update(clock.at(AN1))
    clock.now += 1
    clock.update(clock.at(CARE_OF, state=ASLEEP), HOME, (HOME,))
    found = clock.where()
    assert found is not None and (found.access_node, found.state) == (AN1, ASLEEP)


def test_name_of_another_device_is_refused(clock: Clock) -> None:
    clock.update(clock.at(uris=("sip:a@b",)), HOME, (HOME,))
    thief = clock.at(home_addresses=(OTHER,), uris=("sip:a@b",))
    assert clock.update(thief, OTHER, (OTHER,)).status is PagingStatus.REFUSED
    assert clock.counts == ["location-name-taken"]
    clock.advance(301)
    assert (
        clock.update(replace(thief, sent=round(clock.now * 1000)), OTHER, (OTHER,)).status is PagingStatus.OK
    )


def test_configured_names_belong_to_their_device() -> None:
    device = NamedDevice(HOME, "mn@ha", ("sip:boss@b",))
    clock = Clock(LocationConfiguration(frozenset((AN1,)), frozenset((MNPS,)), (device,)))
    thief = clock.at(home_addresses=(OTHER,), uris=("sip:boss@b",))
    assert clock.update(thief, OTHER, (OTHER,)).status is PagingStatus.REFUSED
    clock.update(clock.at())
    assert clock.query(LocationQuery(uri="sip:boss@b"))[1] == (clock.where(),)


def test_table_is_bounded() -> None:
    clock = Clock(LocationConfiguration(access_nodes=frozenset((AN1,)), max_entries=1))
    clock.update(clock.at())
    assert clock.update(clock.at(home_addresses=(OTHER,))).status is PagingStatus.LIMIT
    clock.now += 1
    assert clock.update(clock.at()).status is PagingStatus.OK, "a known device needs no more room"
    assert clock.counts == ["location-full"]


def test_addresses_of_one_device_are_bounded(clock: Clock) -> None:
    many = tuple(ip_address(f"10.50.1.{number}") for number in range(8))
    clock.update(clock.at(home_addresses=many))
    clock.now += 1
    assert clock.update(clock.at(home_addresses=(many[0], HOME))).status is PagingStatus.LIMIT
    assert clock.where() is None


def test_entries_with_common_addresses_become_one(clock: Clock) -> None:
    clock.update(clock.at())
    clock.update(clock.at(home_addresses=(SIX,)))
    clock.now += 1
    clock.update(clock.at(home_addresses=(SIX, HOME)))
    assert len(clock.server.entries()) == 1
    assert set(clock.rows) == {entry.key for entry in clock.server.entries()}


def test_locations_survive_a_restart(clock: Clock) -> None:
    clock.update(clock.at(uris=("sip:a@b",)))
    clock.update(clock.at(home_addresses=(OTHER,), lifetime=10))
    before = clock.where()
    clock.now += 20
    clock.restart()
    found = clock.where()
    assert before is not None and found == replace(before, lifetime=280)
    assert clock.where(OTHER) is None
    assert set(clock.rows) == {str(HOME)}
    clock.advance(300)
    assert clock.rows == {}


def test_unreadable_rows_are_dropped(clock: Clock) -> None:
    clock.update(clock.at())
    good = clock.rows[str(HOME)]
    for value in (
        {},
        {**good.value, "origin": "?"},
        {**good.value, "location": "00"},
        {**good.value, "expires_at": "x"},
    ):
        clock.rows[str(HOME)] = a.Persist("entry", str(HOME), value)
        clock.restart()
        assert (clock.rows, clock.counts.pop()) == ({}, "unreadable-row")


def test_confirmed_location_is_written_rarely(clock: Clock) -> None:
    writes = 0
    for _second in range(60):
        asked = a.Asked(1, "1212", encode_1212(clock.at()), AN1, ())
        actions = clock.server.happened(asked, now=clock.now)
        writes += sum(isinstance(action, a.Persist) for action in actions)
        clock.perform(actions)
        clock.now += 10
    assert 3 <= writes <= 6, "once each half of the lifetime of 300 s"
    assert clock.kinds == ["location-changed", *["location-confirmed"] * 59]
    clock.restart()
    assert clock.where() is not None


def test_only_listed_nodes_ask_about_others(clock: Clock) -> None:
    clock.update(clock.at(uris=("sip:a@b",)))
    for query in (LocationQuery(HOME), LocationQuery(uri="sip:a@b")):
        assert clock.query(query, STRANGER) == (PagingStatus.NOT_AUTHORISED, ())
    assert clock.query(LocationQuery(HOME), OTHER, (OTHER,)) == (PagingStatus.NOT_AUTHORISED, ())
    assert clock.query(LocationQuery(uri="sip:a@b"), OTHER, (OTHER,)) == (PagingStatus.UNKNOWN, ())
    assert clock.query(LocationQuery(HOME), HOME, (HOME,))[0] is PagingStatus.OK
    assert clock.query(LocationQuery(HOME), OWN)[0] is PagingStatus.OK
    assert clock.counts == ["location-query-not-authorised"] * 3


def test_malformed_messages_are_answered_and_counted(clock: Clock) -> None:
    for path in ("1212", "1135"):
        asked = a.Asked(1, path, b"\xa1", AN1, ())
        body = clock.perform(clock.server.happened(asked, now=clock.now))
        assert body is not None and body[:3] == bytes((body[0], 0, PagingStatus.MALFORMED))
    assert clock.counts == ["location-truncated", "location-query-truncated"]


def asleep_at(access_node: Addr, sent: float) -> LocationTold:
    """A 1208 shows a sleeper where it registered then."""
    homes, lasts = (HOME, SIX), 86_400
    place = Location1212(homes, lasts, round(sent * 1000), access_node=access_node, care_of=access_node)
    return LocationTold(replace(place, state=ASLEEP))


def test_rules_of_an_agent_show_where_a_device_sleeps(clock: Clock) -> None:
    clock.perform(clock.server.happened(asleep_at(AN1, START - 3600), now=clock.now))
    found = clock.where(SIX)
    assert found is not None and (found.access_node, found.state) == (AN1, ASLEEP)
    assert found.sent == round((START - 3600) * 1000), "the place was seen then"


def test_rules_of_an_agent_keep_the_entry_of_a_sleeper(clock: Clock) -> None:
    told = Location1212((HOME, SIX), 600, round(START * 1000), access_node=AN1, care_of=AN1, state=ASLEEP)
    clock.update(told, HOME, (HOME, SIX))
    for _ in range(3):
        clock.now += 500
        clock.perform(clock.server.happened(asleep_at(AN1, START - 1), now=clock.now))
    found = clock.where()
    assert found is not None and (found.sent, found.lifetime) == (round(START * 1000), 86_400)
    assert [entry.origin for entry in clock.server.entries()] == [Origin.DEVICE]
    kinds = len(clock.kinds)
    short = replace(asleep_at(AN1, START - 1).location, lifetime=60)
    clock.perform(clock.server.happened(LocationTold(short), now=clock.now))
    assert len(clock.kinds) == kinds, "it lasts longer already"


@pytest.mark.parametrize("state", DeviceState)
def test_older_place_of_a_sleeper_moves_no_entry(clock: Clock, state: DeviceState) -> None:
    clock.update(clock.at(AN2, state=state, lifetime=300), AN2)
    before = clock.where()
    clock.now += 10
    for place in (AN1, AN2) if state is DeviceState.AWAKE else (AN1,):
        clock.perform(clock.server.happened(asleep_at(place, START - 1), now=clock.now))
        assert clock.counts[-1] == "location-stale"
    found = clock.where()
    assert before is not None and found is not None
    assert replace(found, lifetime=0) == replace(before, lifetime=0) and found.lifetime == 290


def test_newer_registration_of_a_sleeper_counts(clock: Clock) -> None:
    clock.update(clock.at(AN2), AN2)
    clock.now += 10
    clock.perform(clock.server.happened(asleep_at(AN1, START + 5), now=clock.now))
    found = clock.where()
    assert found is not None and (found.access_node, found.state) == (AN1, ASLEEP)
