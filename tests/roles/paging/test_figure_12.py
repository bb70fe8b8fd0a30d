"""The routing messages of Fig. 12 in every permitted order, each lost, doubled and delayed: the final state is the same (P12).

A device sleeps at one access node and has woken at another. A message that is lost or delayed comes later, so that both are
orders; a doubled one comes again, at once or after all others. 1208 follows 1206, which makes it: every other order is permitted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from random import Random

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.locations import LocationTold
from locum.roles.action_values.paging import DropPaged
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.location.role import LocationServer
from locum.roles.mnps.role import StandIn
from locum.roles.paging.left_rules import TABLE as LEFT
from locum.wire.control.paging.entry import ActionKind, Entry, EntryAction, Pattern
from locum.wire.control.paging.event_table import EventTable1206, Operation, encode_1206
from locum.wire.control.paging.location import Location1212, encode_1212
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204, encode_1204
from locum.wire.control.paging.redirect import Redirect1210, ToDevice, encode_1210
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule
from locum.wire.control.paging.status import (
    PagingStatus,
    StatusAnswer,
    decode_status_answer,
    encode_status_answer,
)
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.homeworld import AN1, AN2, HA, HOA, HOA6, MOBILE, ONE, Home
from tests.roles.mnps.paging.table_bench import CONFIGURATION
from tests.roles.world import care_of_addresses

BRIEF = 5
STEP = 0.05
"""Seconds between two arrivals."""
HOMES: tuple[Addr, ...] = (HOA, HOA6)
SSH = Ipv4Selector(protocol=(6, 6), destination_port=(22, 22))
MAIL = Ipv4Selector(protocol=(6, 6), source_port=(993, 993))
ENTRY = Entry(1, (Pattern("mail", "*"),), (EntryAction(ActionKind.PAGE),))
_MOVING = ("expires_at", "sent", "digest", "answer")
MESSAGES = ("1202", "1204", "1206", "1208", "1210", "1212")


class Agent(Home):
    """The home agent, and what it asks."""

    def __init__(self) -> None:
        self.asked: list[a.Ask] = []
        super().__init__(MOBILE, HomeAgentConfiguration(HA, located=True))

    def _perform(self, action: a.Action) -> None:
        match action:
            case a.Ask():
                self.asked.append(action)
            case DropPaged():
                raise AssertionError("a packet is lost")
            case _:
                super()._perform(action)


class Network:
    """Home agent, stand-in and location server, and the messages on their way to them."""

    def __init__(self) -> None:
        self.home = Agent()
        self.home.device.register(AN1)
        self.home.device.register(AN1, BRIEF)
        self.home.advance(BRIEF + 1)
        self.location = LocationServer(LocationConfiguration(frozenset((AN1, AN2)), frozenset((ONE,))))
        self.stand_in = StandIn(CONFIGURATION, Random(1), lambda _order, _others: None)
        self.stand_in_rows: dict[tuple[str, str], a.Persist] = {}
        self.stand_in.restore([], now=self.home.now)
        self.rules: list[a.Ask] = []  # 1208 on their way
        self.late: list[a.Ask] = []  # those that have come, and may come again
        self.statuses: dict[str, set[PagingStatus]] = {}
        self.exchange = 0
        self._tell()
        at = round(self.home.now * 1000)
        rule = PageRule(1, 10, (SSH,), PageAction.PAGE)
        left = PageRules1204(HOMES, (rule,), PageAction.AGENT, 3600, DeviceState.ASLEEP, at + 1)
        agent_rule = AgentRule(7, 20, (MAIL,))
        table = EventTable1206(HOMES, Operation.REPLACE, at + 2, (ENTRY,), rules=(agent_rule,))
        redirect = Redirect1210(HOMES, ToDevice(AN2, AN2), at + 3, b"page-one")
        place = Location1212(HOMES, 300, at + 3, access_node=AN2, care_of=AN2)
        self.bodies = {
            "1204": encode_1204(left),
            "1206": encode_1206(table),
            "1210": encode_1210(redirect),
            "1212": encode_1212(place),
        }
        self.home.now += 0.01
        self.request = self.home.device.request(AN2, 300)  # the device sends it last
        self.receive: dict[str, Callable[[], None]] = {
            "1202": self._registration,
            "1204": self._page_rules,
            "1206": lambda: self._stand_in(self._asked("1206", self.bodies["1206"], HOA)),
            "1208": self._agent_rules,
            "1210": self._redirect,
            "1212": lambda: self._at_location(self._asked("1212", self.bodies["1212"], AN2)),
        }

    def _asked(self, path: str, body: bytes, peer: Addr) -> a.Asked:
        self.exchange += 1
        return a.Asked(self.exchange, path, body, peer, HOMES)

    def _registration(self) -> None:
        assert self.home.give(self.request) in (0, 133), "accepted, or a repetition"
        self._tell()

    def _tell(self) -> None:
        """Let the location server hear what the home agent's messages have shown."""
        told, self.home.located = self.home.located, []
        for action in told:
            self._at_location(LocationTold(action.location))

    def _page_rules(self) -> None:
        self._home("1204", self.bodies["1204"], HOA)

    def _home(self, path: str, body: bytes, peer: Addr) -> bytes:
        before = len(self.home.answers)
        asked = replace(self._asked(path, body, peer), may_trigger=peer == ONE)
        self.home.perform(self.home.role.happened(asked, now=self.home.now))
        self._hold()
        self._tell()
        [answer] = self.home.answers[before:]
        self._note(path, answer.body)
        return answer.body

    def _stand_in(self, event: a.Event) -> None:
        for action in self.stand_in.happened(event, now=self.home.now):
            match action:
                case a.Ask():
                    assert action.path == "1208"
                    self.rules.append(action)
                case a.Persist():
                    self.stand_in_rows[action.table, action.key] = action
                case a.Forget():
                    self.stand_in_rows.pop((action.table, action.key), None)
                case a.Answer():
                    self._note("1206", action.body)

    def _agent_rules(self) -> None:
        """The stand-in's 1208, or the same one again, and its answer."""
        asked = self.rules.pop() if self.rules else self.late[-1]
        self.late.append(asked)
        body = self._home("1208", asked.body, ONE)
        self._stand_in(a.Answered(asked.request, body))

    def _redirect(self) -> None:
        self._home("1210", self.bodies["1210"], ONE)

    def _hold(self) -> None:
        """The access node consents to hold packets, and to let go of them."""
        asked, self.home.asked = self.home.asked, []
        for ask in asked:
            assert (ask.peer, ask.path) == (AN2, "1210")
            answer = a.Answered(ask.request, encode_status_answer(StatusAnswer(PagingStatus.OK)))
            self.home.perform(self.home.role.happened(answer, now=self.home.now))

    def _at_location(self, event: a.Event) -> None:
        for action in self.location.happened(event, now=self.home.now):
            if isinstance(action, a.Answer):
                self._note("1212", action.body)

    def _note(self, path: str, body: bytes) -> None:
        self.statuses.setdefault(path, set()).add(decode_status_answer(body).status)

    def state(self) -> dict[str, object]:
        """Everything at the three nodes that must not depend on the order."""
        [entry] = self.location.entries()
        place = entry.location
        left = {key[1]: _lasting(row) for key, row in self.home.rows.items() if key[0] == LEFT}
        tables = {
            key: _lasting(row) for key, row in self.stand_in_rows.items() if not key[1].endswith("rules")
        }
        return {
            "care-of": care_of_addresses(self.home.rows["binding", str(HOA)]),
            "forwarding": self.home.forwarding(),
            "rules": left,
            "tables": tables,
            "location": (place.access_node, place.care_of, place.state),
            "redirection": self.home.role.paging.redirections.of(HOA),
            "answers": {path: said for path, said in self.statuses.items() if path != "1212"},
        }


def _lasting(row: a.Persist) -> dict[str, object]:
    """A row without its times: they are those of the writing."""
    return {name: value for name, value in row.value.items() if name not in _MOVING}


def permitted() -> Iterator[tuple[str, ...]]:
    """Every order in which 1208 follows 1206."""
    return (order for order in permutations(MESSAGES) if order.index("1206") < order.index("1208"))


def doubled() -> Iterator[tuple[str, ...]]:
    """Every permitted order with all messages doubled at once."""
    return (tuple(name for name in order for _ in range(2)) for order in permitted())


def delayed() -> Iterator[tuple[str, ...]]:
    """Every permitted order, with every single message again after all others."""
    return ((*order, name) for order in permitted() for name in order)


def final(order: Sequence[str]) -> dict[str, object]:
    """The state after these arrivals, and some time."""
    network = Network()
    for name in order:
        network.receive[name]()
        network.home.advance(STEP)
    network.home.advance(10)
    return network.state()


@pytest.fixture(scope="module")
def wanted() -> dict[str, object]:
    """The state after the order of the figure: preparation, then what follows a page."""
    state = final(("1204", "1206", "1208", "1210", "1212", "1202"))
    assert state["care-of"] == {str(AN2)} and state["location"] == (AN2, AN2, DeviceState.AWAKE)
    answers = state["answers"]
    assert isinstance(answers, dict) and answers.keys() == {"1204", "1206", "1208", "1210"}
    assert all(said == {PagingStatus.OK} for said in answers.values()) and state["redirection"] is None
    assert len(state["rules"]) == 2 and len(state["tables"]) == 1  # type: ignore[arg-type]
    return state


@pytest.mark.parametrize(
    "arrivals", [permitted, doubled, pytest.param(delayed, marks=pytest.mark.exhaustive)]
)
def test_every_permitted_order_ends_in_the_same_state(
    wanted: dict[str, object], arrivals: Callable[[], Iterator[tuple[str, ...]]]
) -> None:
    for order in arrivals():
        state = final(order)
        different = [part for part in wanted if state[part] != wanted[part]]
        assert not different, (order, {part: (state[part], wanted[part]) for part in different})
