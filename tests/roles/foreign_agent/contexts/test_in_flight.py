"""Packets in flight: any order of calls stays within the state table, and nothing waits for ever."""

from ipaddress import IPv4Address

from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles.foreign_agent.contexts.in_flight import InFlight, Mobile, Waiting
from locum.roles.foreign_agent.visitor_list import VisitorList
from tests.roles.world import AN1, AN2, AN3, HA, HOA

MOBILE = Mobile(HOA, HA)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["depart", "strand", "mend", "herald", "expect", "arrive", "accept", "open", "return", "forget"]
        ),
        st.sampled_from([AN2, AN3]),
        st.sampled_from([0.0, 0.0, 0.2, 1.0, 4.0, 15.0]),
    ),
    min_size=5,
)


def step(flights: InFlight, what: str, peer: IPv4Address, now: float) -> None:
    match what:
        case "depart":
            flights.depart(MOBILE, peer, now=now)
        case "strand":
            flights.strand(MOBILE, now=now)
        case "mend":
            flights.mend(HOA)
        case "herald":
            flights.herald(MOBILE, now=now)
        case "expect":
            flights.expect(MOBILE, peer, now=now)
        case "arrive":
            flights.arrive(MOBILE, peer, now=now)
        case "accept":
            flights.accept(MOBILE, peer, now=now)
        case "open":
            flights.open(HOA)
        case "return":
            flights.returned(HOA)
        case "forget":
            flights.forget(HOA)


@given(STEPS)
@settings(max_examples=400)
def test_any_order_of_calls_leaves_nothing_waiting(steps: list[tuple[str, IPv4Address, float]]) -> None:
    flights = InFlight(AN1, VisitorList(AN1, (), (), 16))
    now = 0.0
    for what, peer, pause in steps:
        step(flights, what, peer, now)
        assert flights.waiting(HOA) is not Waiting.OPENING
        now += pause
        flights.timeout(now=now)
    flights.timeout(now=now + 60)
    assert flights.waiting(HOA) is None
