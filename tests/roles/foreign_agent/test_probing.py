"""A visitor that stops answering: detection by its access node, and requests to stand-ins (C8, C11)."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.roles.action_values.addresses import Addr
from locum.roles.actions import Action, Answered, Ask, Emit, Forget, NoAnswer, Persist, Probe, ProbeAnswered
from locum.roles.foreign_agent.configuration import ProbingConfiguration
from locum.roles.foreign_agent.probing import Probing
from locum.roles.foreign_agent.visitor import Visitor
from locum.roles.trigger_requests import MAX_RELEASES, RETRY_MAX, TriggerRequest, TriggerRequests
from locum.wire.control.answer import Status
from locum.wire.control.trigger import Operation, Reason, Trigger, decode_trigger, encode_trigger_answer

HOME, AGENT = IPv4Address("10.36.0.4"), IPv4Address("10.36.0.1")
HOME_V6 = IPv6Address("2001:db8::4")
ACCESS_NODE = IPv4Address("10.2.0.1")
FIRST, SECOND = IPv4Address("10.3.0.2"), IPv4Address("10.3.1.2")
CARD, OTHER_CARD = b"\x02\0\0\0\0\4", b"\x02\0\0\0\0\5"
INTERVAL, MISSES = 1.0, 3
CONFIGURATION = ProbingConfiguration(INTERVAL, MISSES, (FIRST, SECOND), short_lifetime=10)


def visitor(lifetime: int = 300, link_layer: bytes | None = CARD) -> Visitor:
    return Visitor(HOME, AGENT, "radio0", link_layer, lifetime, 1e9, 0, HOME_V6)


def answer(link_layer: bytes = CARD, link: str = "radio0") -> ProbeAnswered:
    return ProbeAnswered(link, HOME, link_layer)


class AccessNode:
    """Probing on a clock that the test moves, with a visitor that answers or does not."""

    def __init__(self, configuration: ProbingConfiguration = CONFIGURATION) -> None:
        self.present: dict[IPv4Address, Visitor] = {}
        self.configuration = configuration
        self.probing = Probing(configuration, self.present.get, self.present.values, ACCESS_NODE)
        self.rows: dict[tuple[str, str], Persist] = {}
        self.done: list[Action] = []
        self.answers = True
        self.now = 0.0

    def perform(self, actions: list[Action] | None) -> list[Action]:
        for action in actions or []:
            self.done.append(action)
            if isinstance(action, Persist):
                self.rows[action.table, action.key] = action
            elif isinstance(action, Forget):
                del self.rows[action.table, action.key]
            elif isinstance(action, Probe) and self.answers:
                self.perform(self.probing.happened(answer(), now=self.now))
        return actions or []

    def register(self, lifetime: int = 300) -> None:
        self.present[HOME] = visitor(lifetime)
        self.perform(self.probing.registered(self.present[HOME], now=self.now))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.probing.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.perform(self.probing.timeout(now=self.now))
        self.now = until

    def restarted(self) -> "AccessNode":
        """Another run with the rows of this one."""
        again = AccessNode(self.configuration)
        again.present, again.rows, again.now, again.answers = (
            self.present,
            dict(self.rows),
            self.now,
            self.answers,
        )
        again.probing = Probing(self.configuration, again.present.get, again.present.values, ACCESS_NODE)
        again.perform(again.probing.restore(tuple(again.rows.values()), now=again.now))
        return again

    def asked(self) -> list[tuple[Addr, Trigger]]:
        return [(action.peer, decode_trigger(action.body)) for action in self.done if isinstance(action, Ask)]

    def last(self) -> Ask:
        return [action for action in self.done if isinstance(action, Ask)][-1]

    def answer_last(self, status: Status) -> None:
        body = encode_trigger_answer(status)
        self.perform(self.probing.happened(Answered(self.last().request, body), now=self.now))

    def kinds(self) -> list[str]:
        return [action.kind for action in self.done if isinstance(action, Emit) and action.kind != "sent"]


@pytest.fixture
def node() -> AccessNode:
    made = AccessNode()
    made.register()
    return made


TAKE = Trigger(Operation.TAKE, (HOME, HOME_V6), (), Reason.LOST, ACCESS_NODE)
RELEASE = Trigger(Operation.RELEASE, (HOME, HOME_V6), (), Reason.BACK)


def test_answering_visitor_is_never_lost(node: AccessNode) -> None:
    node.advance(60.5)
    assert [action for action in node.done if isinstance(action, Probe)] == [Probe("radio0", HOME, CARD)] * 60
    assert (node.asked(), node.probing.lost()) == ([], frozenset())


def test_visitor_is_lost_after_misses_and_released_by_an_answer(node: AccessNode) -> None:
    node.advance(5.5)
    node.answers = False
    node.advance(MISSES * INTERVAL)
    assert node.asked() == []
    node.advance(INTERVAL)
    assert node.asked() == [(FIRST, TAKE)]
    assert node.probing.lost() == {HOME}
    node.answer_last(Status.OK)
    node.advance(20)
    assert len(node.asked()) == 1
    node.answers = True
    node.advance(INTERVAL)
    assert node.asked()[1:] == [(FIRST, RELEASE), (SECOND, RELEASE)]
    assert (node.probing.lost(), node.rows) == (frozenset(), {})
    assert node.kinds() == ["visitor-lost", "trigger-done", "visitor-back"]


def test_answer_resets_the_count_of_misses(node: AccessNode) -> None:
    for _ in range(10):
        node.answers = False
        node.advance((MISSES - 1) * INTERVAL)
        node.answers = True
        node.advance(INTERVAL)
    assert node.asked() == []


def test_link_down_loses_its_visitors_at_once(node: AccessNode) -> None:
    node.perform(node.probing.link_down("radio9", now=node.now))
    assert node.asked() == []
    node.perform(node.probing.link_down("radio0", now=node.now))
    assert node.asked() == [(FIRST, TAKE)]
    node.advance(10)
    assert not any(isinstance(action, Probe) for action in node.done)
    node.probing.link_up("radio0", now=node.now)
    node.advance(0)
    assert node.asked()[1:] == [(FIRST, RELEASE), (SECOND, RELEASE)]


def test_registration_ends_the_loss(node: AccessNode) -> None:
    node.answers = False
    node.advance(5)
    node.register()
    assert node.asked() == [(FIRST, TAKE), (FIRST, RELEASE), (SECOND, RELEASE)]
    node.advance(MISSES * INTERVAL)
    assert len(node.asked()) == 3  # counted from the registration on


def test_answer_of_another_link_layer_address_is_ignored(node: AccessNode) -> None:
    node.answers = False
    for _ in range(10):
        node.advance(INTERVAL)
        for other in (answer(OTHER_CARD), answer(CARD, "radio9")):
            node.perform(node.probing.happened(other, now=node.now))
    assert node.probing.lost() == {HOME}


@pytest.mark.parametrize(
    "prepare",
    [
        lambda node: node.register(lifetime=10),  # asleep, or about to be
        lambda node: node.perform(node.probing.deregistered(HOME)),
        lambda node: node.present.clear(),  # expired, revoked, moved
    ],
)
def test_prepared_device_is_not_declared_lost(
    node: AccessNode, prepare: Callable[[AccessNode], object]
) -> None:
    prepare(node)
    node.answers = False
    node.advance(60)
    assert node.asked() == []


def test_lost_visitor_stays_with_its_stand_in_after_expiry(node: AccessNode) -> None:
    node.answers = False
    node.advance(5)
    node.answer_last(Status.OK)
    node.present.clear()
    node.advance(5)
    assert (node.asked(), node.rows, node.probing.deadline()) == ([(FIRST, TAKE)], {}, None)


def test_visitor_reached_by_its_stand_in_is_elsewhere(node: AccessNode) -> None:
    node.answers = False
    node.advance(5)
    node.answer_last(Status.WRONG_STATE)
    node.advance(100)
    assert (node.asked(), node.rows) == ([(FIRST, TAKE)], {})
    assert node.kinds()[-1] == "visitor-elsewhere"
    node.answers = True  # it has come back
    node.advance(5)
    node.answers = False
    node.advance(5)
    assert node.asked() == [(FIRST, TAKE), (FIRST, TAKE)]


def test_lost_visitors_survive_a_restart(node: AccessNode) -> None:
    node.answers = False
    node.advance(5)
    again = node.restarted()
    assert again.asked() == [(FIRST, TAKE)]
    assert again.probing.lost() == {HOME}
    again.answers = True
    again.advance(INTERVAL)
    assert again.asked()[1:] == [(FIRST, RELEASE), (SECOND, RELEASE)]
    gone = node.restarted()
    gone.present.clear()
    assert gone.restarted().rows == {}


@pytest.mark.parametrize("configuration", [ProbingConfiguration(0, 3, (FIRST,)), CONFIGURATION])
def test_no_probes_without_interval_or_link_layer_address(configuration: ProbingConfiguration) -> None:
    node = AccessNode(configuration)
    node.present[HOME] = visitor(link_layer=CARD if configuration.interval == 0 else None)
    node.perform(node.probing.registered(node.present[HOME], now=0))
    node.perform(node.probing.link_down("radio0", now=0))
    assert (node.done, node.probing.deadline()) == ([], None)


# Trigger requests: receivers and repetitions ------------------------------------------------------------------------------


class Sender:
    """Trigger requests on a clock."""

    def __init__(self) -> None:
        self.ended: list[Status | None] = []
        self.trigger_requests = TriggerRequests(self.concluded)
        self.asks: list[Ask] = []
        self.now = 0.0

    def concluded(self, trigger_request: TriggerRequest, status: Status | None) -> list[Action]:
        self.ended.append(status)
        return []

    def perform(self, actions: list[Action] | None) -> None:
        self.asks += [action for action in actions or [] if isinstance(action, Ask)]

    def no_answer(self) -> None:
        self.perform(self.trigger_requests.happened(NoAnswer(self.asks[-1].request, "silence"), now=self.now))

    def answered(self, status: Status, ask: Ask | None = None) -> None:
        event = Answered((ask or self.asks[-1]).request, encode_trigger_answer(status))
        self.perform(self.trigger_requests.happened(event, now=self.now))

    def next_round(self) -> float:
        due = self.trigger_requests.deadline()
        assert due is not None
        waited, self.now = due - self.now, due
        self.perform(self.trigger_requests.timeout(now=self.now))
        return waited


@pytest.fixture
def sender() -> Sender:
    return Sender()


def test_next_stand_in_is_asked_after_a_refusal(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_one(TAKE, (FIRST, SECOND)))
    sender.answered(Status.NOT_AUTHORISED)
    assert [ask.peer for ask in sender.asks] == [FIRST, SECOND]
    sender.answered(Status.OK)
    assert (sender.ended, sender.trigger_requests.deadline()) == ([Status.OK], None)


def test_take_is_retried_with_backoff_until_dropped(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_one(TAKE, (FIRST,)))
    waits = []
    for _ in range(30):
        sender.no_answer()
        waits.append(sender.next_round())
    assert waits == sorted(waits) and waits[0] < 1 and waits[-1] == RETRY_MAX
    sender.trigger_requests.drop(HOME)
    sender.no_answer()
    assert (sender.ended, sender.trigger_requests.deadline()) == ([], None)


def test_release_ends_after_the_last_retry(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_all(RELEASE, (FIRST,)))
    for _ in range(MAX_RELEASES - 1):
        sender.no_answer()
        sender.next_round()
    sender.no_answer()
    assert (sender.ended, len(sender.asks)) == ([None], MAX_RELEASES)


def test_each_stand_in_is_asked_until_it_has_released(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_all(RELEASE, (FIRST, SECOND)))
    first, second = sender.asks
    sender.answered(Status.OK, second)
    sender.answered(Status.BUSY, first)
    sender.next_round()
    assert [ask.peer for ask in sender.asks] == [FIRST, SECOND, FIRST]
    sender.answered(Status.OK)
    assert sender.ended == [Status.OK, Status.OK]


@pytest.mark.parametrize("status", [Status.REFUSED, Status.NOT_AUTHORISED, Status.MALFORMED])
def test_refusal_of_the_only_stand_in_is_final(sender: Sender, status: Status) -> None:
    sender.perform(sender.trigger_requests.ask_one(TAKE, (FIRST,)))
    sender.answered(status)
    assert (sender.ended, len(sender.asks)) == ([status], 1)


def test_answer_to_a_superseded_request_is_ignored(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_one(TAKE, (FIRST,)))
    take = sender.asks[-1]
    sender.perform(sender.trigger_requests.ask_all(RELEASE, (FIRST,)))
    sender.answered(Status.OK, take)  # too late
    assert sender.ended == []
    sender.answered(Status.OK)
    assert sender.ended == [Status.OK]


def test_malformed_answer_is_retried_and_a_foreign_one_ignored(sender: Sender) -> None:
    assert sender.trigger_requests.happened(Answered(1, b""), now=0) is None
    assert sender.trigger_requests.happened(NoAnswer(1, ""), now=0) is None
    sender.perform(sender.trigger_requests.ask_one(TAKE, (FIRST,)))
    sender.perform(sender.trigger_requests.happened(Answered(sender.asks[-1].request, b"\xff"), now=0))
    assert sender.trigger_requests.deadline() is not None


def test_request_without_stand_ins_sends_nothing(sender: Sender) -> None:
    sender.perform(sender.trigger_requests.ask_one(TAKE, ()))
    assert (sender.asks, sender.trigger_requests.deadline()) == ([], None)
