"""Routing messages of Fig. 12 in every order of arrival, each lost, doubled or delayed: the final state is the same (P12).

A lost message comes later, as the repetition of its sender, and so does a delayed one: both are orders of arrival. A doubled one
comes once more, at once or after all others.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.paging import DropPaged, PageTriggered
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.location.role import LocationServer
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.location import Location1212, encode_1212
from locum.wire.control.paging.outcome import (
    AnsweredBy,
    Outcome,
    PageAnswer,
    decode_page_answer,
    encode_page_answer,
)
from locum.wire.control.paging.page import decode_1170
from locum.wire.control.paging.page_request import PageRequest1172, encode_1172
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.flow import Flow
from tests.roles.home_agent.test_page_rules import BRIEF, PAGE, added
from tests.roles.homeworld import AN1, AN2, AN3, HOA, HOA6, ONE, Home
from tests.roles.world import care_of_addresses

PEER = AN3
SSH = PageTriggered(HOA, 1, Flow(6, HOA, 22, PEER, 4000), b"first", 60)
MAIL = ApplicationEvent("mail", "message", {"from": "boss@example.org"})
URI = "sip:mn@example.org"
STEP = 0.05
"""Seconds between two arrivals."""


class PagingHome(Home):
    """A home agent that pages by an access node which answers for its device."""

    def __init__(self) -> None:
        self.asked: list[a.Ask] = []
        super().__init__()

    def _perform(self, action: a.Action) -> None:
        match action:
            case a.Ask():
                self.asked.append(action)
            case DropPaged():
                raise AssertionError("a packet is lost")
            case _:
                super()._perform(action)


class Network:
    """Home agent and location server of a device that sleeps at the first access node and wakes at the second."""

    def __init__(self) -> None:
        self.home = added(PagingHome(), PAGE)
        assert isinstance(self.home, PagingHome)
        self.paging: PagingHome = self.home
        self.home.device.register(AN1)
        self.home.device.register(AN1, BRIEF)
        self.home.advance(BRIEF + 1)
        nodes = LocationConfiguration(frozenset((AN1, AN2)), frozenset((ONE,)))
        self.location = LocationServer(nodes)
        self.exchange = 0
        self.messages = {name: make(self) for name, make in MESSAGES.items()}

    def asks(self, role: a.Role, path: str, body: bytes, peer: Addr, *authorised: Addr) -> list[a.Action]:
        """The actions that follow from a request."""
        self.exchange += 1
        return role.happened(a.Asked(self.exchange, path, body, peer, authorised), now=self.home.now)

    def sent(self, later: float) -> int:
        """The time in a message that is sent so many seconds after the sleep."""
        return round((self.home.now + later) * 1000)

    def arrive(self, name: str) -> None:
        """One message, and the access node's answers to all pages that follow."""
        self.messages[name]()
        while self.paging.asked:
            asked = self.paging.asked.pop()
            said = PageAnswer(decode_1170(asked.body).page, Outcome.REACHED, AnsweredBy.ACCESS_NODE)
            answered = a.Answered(asked.request, encode_page_answer(said))
            self.home.perform(self.home.role.happened(answered, now=self.home.now))
        self.home.advance(STEP)

    def state(self) -> dict[str, object]:
        """Everything that must not depend on the order."""
        [entry] = self.location.entries()
        location = entry.location
        answers = [decode_page_answer(answer.body).outcome for answer in self.home.answers]
        return {
            "care-of": care_of_addresses(self.home.rows["binding", str(HOA)]),
            "forwarding": self.home.forwarding(),
            "pages": self.home.role.paging.routine.pages(),
            "outcomes of events": set(answers),
            "outcomes of pages": {
                event.detail["outcome"] for event in self.home.events if event.kind == "page-ended"
            }
            <= {"reached"},
            "location": (location.access_node, location.care_of, location.state, location.uris),
        }


def registration(network: Network) -> Callable[[], None]:
    """1202 of the device that has woken at the second access node."""
    message = network.home.device.request(AN2, 300)
    return lambda: void(network.home.give(message))


def location(peer: Addr, place: Addr, state: DeviceState, later: float) -> "Maker":
    """1212 of an access node, or of the device with its name."""

    def make(network: Network) -> Callable[[], None]:
        uris = (URI,) if peer == HOA else ()
        said = Location1212(
            (HOA, HOA6), 300, network.sent(later), uris=uris, access_node=place, care_of=place, state=state
        )
        own = (HOA, HOA6) if peer == HOA else ()
        return lambda: void(network.asks(network.location, "1212", encode_1212(said), peer, *own))

    return make


def request(network: Network) -> Callable[[], None]:
    """1172 of the stand-in."""
    body = encode_1172(PageRequest1172(b"stand-in", HOA, MAIL))
    return lambda: network.home.perform(network.asks(network.home.role, "1172", body, ONE, HOA, HOA6))


def packet(network: Network) -> Callable[[], None]:
    """A packet for the device is held. The kernel reports it while the rule is there only."""

    def arrive() -> None:
        if network.home.flow_rules():
            network.home.perform(network.home.role.happened(SSH, now=network.home.now))

    return arrive


def void(_result: object) -> None:
    """Leave an answer out: it is seen in the state."""


Maker = Callable[[Network], Callable[[], None]]
MESSAGES: dict[str, Maker] = {
    "packet": packet,
    "1172": request,
    "1202": registration,
    "1212 asleep": location(HOA, AN1, DeviceState.ASLEEP, 0.01),
    "1212 awake": location(AN2, AN2, DeviceState.AWAKE, 0.02),
    "1212 named": location(HOA, AN2, DeviceState.AWAKE, 0.03),
}


def orders() -> Iterator[tuple[str, ...]]:
    """Every order of arrival; in each one message is doubled, another one in the next."""
    names = tuple(MESSAGES)
    for number, order in enumerate(permutations(names)):
        twice = names[number % len(names)]
        yield order
        yield (*order, twice)
        place = order.index(twice) + 1
        yield (*order[:place], twice, *order[place:])


def final(order: Sequence[str]) -> dict[str, object]:
    """The state after these arrivals, and some time."""
    network = Network()
    for name in order:
        network.arrive(name)
    network.home.advance(10)
    return network.state()


@dataclass(frozen=True)
class Wanted:
    """The state that there is one of."""

    state: dict[str, object]


@pytest.fixture(scope="module")
def wanted() -> Wanted:
    """The order of the figure."""
    state = final(("1212 asleep", "packet", "1172", "1202", "1212 awake", "1212 named"))
    assert state["location"] == (AN2, AN2, DeviceState.AWAKE, (URI,))
    assert state["outcomes of events"] == {Outcome.REACHED} and state["pages"] == ()
    return Wanted(state)


def test_every_order_ends_in_the_same_state(wanted: Wanted) -> None:
    different = {order: state for order in orders() if (state := final(order)) != wanted.state}
    assert not different, next(iter(different.items()))


def test_a_message_that_never_comes_leaves_the_rest(wanted: Wanted) -> None:
    """The parts of the state that are not its own are there."""
    own = {
        "packet": (),
        "1172": ("outcomes of events",),
        "1202": ("care-of", "forwarding", "pages", "outcomes of events"),
        "1212 asleep": (),
        "1212 awake": (),
        "1212 named": (),
    }
    for missing, parts in own.items():
        state = final([name for name in MESSAGES if name != missing])
        changed = {part for part, value in wanted.state.items() if state[part] != value}
        assert changed <= set(parts), f"without {missing}"
        assert changed or not parts, f"without {missing}, it has no effect"
