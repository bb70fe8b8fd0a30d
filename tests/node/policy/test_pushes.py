"""Pushed changes on a virtual clock: what is dropped, refused, answered again, and what roles get (RFC 5176; P7)."""

from collections import Counter
from ipaddress import IPv4Address
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.node.config.policy_settings import PushClient, PushSettings
from locum.node.events import EventStream
from locum.node.policy.profile_attributes import dictionary
from locum.node.policy.push_requests import ERROR_CAUSE, Itself
from locum.node.policy.pushes import PATIENCE, Pushes
from locum.roles.action_values.flows import FilterVerdict, RuleVerdict
from locum.roles.actions import Event
from locum.roles.paging.events import FIRST_PUSHED
from locum.roles.profile import PolicingChange
from locum.roles.profile_requests import AnswerPush, DisconnectAsked, ProfilePushed, PushOutcome, Session
from locum.security.radius import answer_authentic, signed_request
from locum.wire.radius import Attribute, Code, RadiusPacket, decode_radius, encode_radius, encode_vendor

SECRET, OWN = b"replace-this-by-32-random-letters", IPv4Address("192.0.2.1")
CLIENT, PLACE, HOME = IPv4Address("192.0.2.53"), ("192.0.2.53", 40_000), IPv4Address("203.0.113.4")
NOW = 1_790_000_000.0
KNOWN, ENTERPRISE = dictionary(None), 32473
NAI, NAS, FRAMED = Attribute(1, b"alice@example.org"), Attribute(32, b"ha"), Attribute(8, HOME.packed)
RULE = 'id = 5, priority = 3, action = "page", protocol = "tcp", destination_port = 22'


def ours(name: str, value: bytes | str | int) -> Attribute:
    """One attribute of our enterprise number."""
    known = KNOWN.attributes[name]
    if isinstance(value, int):
        value = value.to_bytes(8 if known.type == "integer64" else 4, "big")
    data = value.encode() if isinstance(value, str) else value
    return encode_vendor(ENTERPRISE, [Attribute(known.code, data)])


def stamp(at: float = NOW) -> Attribute:
    return Attribute(55, int(at).to_bytes(4, "big"))


VERSION, PAGE = ours("Locum-Version", 7), ours("Locum-Rule", RULE)


class World:
    """The server with roles that a test answers for."""

    def __init__(self, *roles: str) -> None:
        self.counts: Counter[str] = Counter()
        self.emitted: list[dict[str, Any]] = []
        self.fed: list[tuple[str, Event]] = []
        self.sent: list[tuple[bytes, tuple[str, int]]] = []
        self.pushes = Pushes(
            PushSettings(3799, 300.0, (PushClient(CLIENT, SECRET),)),
            KNOWN,
            Itself("ha", OWN),
            roles or ("home_agent",),
            cast("EventStream", self),
            lambda role, event: self.fed.append((role, event)),
            lambda data, place: self.sent.append((data, place)),
            NOW - 1000,
        )

    def count(self, reason: str) -> None:
        self.counts[reason] += 1

    def emit(self, kind: str, *, detail: dict[str, Any]) -> None:
        self.emitted.append({"kind": kind, **detail})

    def ask(
        self, *attributes: Attribute, code: Code = Code.COA_REQUEST, identifier: int = 1, now: float = NOW
    ) -> bytes:
        """A signed request with the right time; its bytes."""
        data = signed_request(code, identifier, (stamp(now), *attributes), SECRET)
        self.pushes.received(data, PLACE, now=now, wall=now)
        return data

    def cause(self) -> int:
        """That of the last answer, which is a NAK."""
        answer = decode_radius(self.sent[-1][0])
        assert answer.code in (Code.COA_NAK, Code.DISCONNECT_NAK)
        (value,) = answer.all(ERROR_CAUSE)
        return int.from_bytes(value, "big")

    def answer(self, outcome: PushOutcome, role: str = "home_agent") -> None:
        event = self.fed[-1][1]
        assert isinstance(event, ProfilePushed | DisconnectAsked)
        self.pushes.answered(role, AnswerPush(event.push, outcome, "because"))


def test_a_change_goes_to_the_role_and_is_acknowledged() -> None:
    world = World()
    data = world.ask(NAI, NAS, FRAMED, VERSION, PAGE)
    ((role, event),) = world.fed
    assert isinstance(event, ProfilePushed) and role == "home_agent"
    assert event.session == Session("alice@example.org", HOME)
    assert event.change.version == 7 and event.change.rules is not None
    assert [(rule.identifier, rule.verdict) for rule in event.change.rules] == [(5, RuleVerdict.PAGE)]
    assert world.sent == [], "it waits for the role"
    world.answer(PushOutcome.DONE)
    ((answer, place),) = world.sent
    assert place == PLACE and answer_authentic(answer, data, SECRET)
    assert decode_radius(answer).code == Code.COA_ACK


def test_filters_and_their_removal_are_changes() -> None:
    world = World()
    world.ask(
        FRAMED,
        VERSION,
        ours("Locum-Rule", "none"),
        ours("Locum-Filter-To-Otherwise", 2),
        ours("Locum-Paging", 'id = 1, action = "page", protocol = "udp"'),
        ours("Locum-Asleep-Otherwise", 3),
    )
    event = world.fed[-1][1]
    assert isinstance(event, ProfilePushed)
    assert event.change.rules == () and event.change.from_visitor == PolicingChange()
    assert event.change.to_visitor == PolicingChange(None, FilterVerdict.DROP)
    assert event.change.paging.rules is not None
    assert [rule.verdict for rule in event.change.paging.rules] == [FilterVerdict.PAGE] * 2
    assert event.change.asleep_otherwise is RuleVerdict.HOLD


EVENT = (
    'id = 5, app = "mail", kind = "new", where = [{ field = "from", is = "glob", value = "*@example.org" }]'
)


def test_entries_of_an_event_table_are_changes() -> None:
    world = World("mnps")
    world.ask(FRAMED, VERSION, ours("Locum-Event", EVENT), ours("Locum-Event", 'id = 6, kind = "*"'))
    ((role, event),) = world.fed
    assert isinstance(event, ProfilePushed) and role == "mnps" and event.change.empty
    assert event.change.entries is not None
    numbers = [entry.identifier for entry in event.change.entries]
    assert numbers == [FIRST_PUSHED + 5, FIRST_PUSHED + 6]
    [condition] = event.change.entries[0].patterns[0].conditions
    assert (condition.field, condition.value) == ("from", "*@example.org")
    world.ask(FRAMED, VERSION, ours("Locum-Event", "none"), identifier=2)
    event = world.fed[-1][1]
    assert isinstance(event, ProfilePushed) and event.change.entries == ()


def test_a_disconnection_goes_to_the_role() -> None:
    world = World()
    world.ask(Attribute(1, str(HOME).encode()), Attribute(49, b"\0\0\0\6"), code=Code.DISCONNECT_REQUEST)
    assert world.fed == [("home_agent", DisconnectAsked(1, Session(str(HOME), None)))]
    world.answer(PushOutcome.DONE)
    assert decode_radius(world.sent[0][0]).code == Code.DISCONNECT_ACK


def test_state_and_proxy_states_come_back_in_order() -> None:
    world = World()
    proxies = (Attribute(33, b"b"), Attribute(24, b"state"), Attribute(33, b"a"), Attribute(33, b"b"))
    world.ask(NAI, *proxies, VERSION, PAGE)
    world.answer(PushOutcome.DONE)
    assert decode_radius(world.sent[0][0]).attributes[1:] == proxies
    world.ask(NAI, *proxies, Attribute(77, b""), identifier=2)
    assert decode_radius(world.sent[1][0]).attributes[2:] == proxies


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [
        (PushOutcome.STALE, 407),
        (PushOutcome.INVALID, 407),
        (PushOutcome.NO_ROOM, 506),
        (PushOutcome.UNKNOWN, 503),
        (PushOutcome.NOT_REMOVABLE, 504),
    ],
)
def test_refusals_of_roles_have_causes(outcome: PushOutcome, cause: int) -> None:
    world = World()
    world.ask(NAI, VERSION, PAGE)
    world.answer(outcome)
    assert world.cause() == cause
    assert world.counts[f"push-refused-{cause}"] == 1
    assert world.emitted == [
        {"kind": "push-refused", "client": str(CLIENT), "cause": cause, "reason": "because"}
    ]


def test_one_role_of_several_is_enough() -> None:
    world = World("home_agent", "foreign_agent")
    world.ask(NAI, VERSION, PAGE)
    assert [role for role, _ in world.fed] == ["home_agent", "foreign_agent"]
    world.answer(PushOutcome.UNKNOWN)
    world.answer(PushOutcome.UNKNOWN)
    assert world.sent == [], "the same role answers once"
    world.answer(PushOutcome.DONE, "foreign_agent")
    assert decode_radius(world.sent[0][0]).code == Code.COA_ACK
    world.answer(PushOutcome.DONE, "foreign_agent")
    assert len(world.sent) == 1


@pytest.mark.parametrize(
    ("attributes", "cause"),
    [
        ((VERSION, PAGE), 402),
        ((NAI, VERSION), 402),
        ((NAI, PAGE), 402),
        ((NAI, Attribute(32, b"other"), VERSION, PAGE), 403),
        ((NAI, Attribute(4, HOME.packed), VERSION, PAGE), 403),
        ((NAI, Attribute(95, bytes(16)), VERSION, PAGE), 403),
        ((NAI, Attribute(4, b"\0"), VERSION, PAGE), 407),
        ((NAI, Attribute(18, b"hello"), VERSION, PAGE), 401),
        ((NAI, Attribute(49, b"\0\0\0\6"), VERSION, PAGE), 401),
        ((NAI, ours("Locum-Key", b"\x80\0" + bytes(16)), VERSION, PAGE), 401),
        ((NAI, encode_vendor(9, [Attribute(1, b"x")]), VERSION, PAGE), 401),
        ((NAI, Attribute(26, b"\0\0\x7e"), VERSION, PAGE), 404),
        ((NAI, NAI, VERSION, PAGE), 404),
        ((FRAMED, ours("Locum-Home-Address", b"\1\2\3\4"), VERSION, PAGE), 404),
        ((NAI, Attribute(6, b"\0\0\0\x11"), Attribute(24, b"s"), VERSION, PAGE), 405),
        ((NAI, Attribute(6, b"\0\0\0\1"), VERSION, PAGE), 405),
        ((Attribute(1, b""), VERSION, PAGE), 407),
        ((Attribute(1, b"\xff"), VERSION, PAGE), 407),
        ((NAI, VERSION, VERSION, PAGE), 407),
        ((NAI, VERSION, ours("Locum-Rule", "id = 5")), 407),
        ((NAI, VERSION, ours("Locum-Rule", b"\xff\xfe")), 407),
        ((NAI, VERSION, PAGE, ours("Locum-Rule", "none")), 407),
        ((NAI, VERSION, ours("Locum-Paging-Otherwise", 9)), 407),
        ((NAI, VERSION, ours("Locum-Asleep-Otherwise", 0)), 407),
        ((NAI, VERSION, ours("Locum-Event", 'id = 5, app = "mail"')), 407),
        ((NAI, VERSION, ours("Locum-Event", 'id = 4096, kind = "new"')), 407),
        ((NAI, VERSION, ours("Locum-Filter-To", 'id = 1, action = "page"')), 407),
        ((NAI, ours("Locum-Version", b"\1"), PAGE), 404),
        ((Attribute(8, b"\1\2"), VERSION, PAGE), 407),
        ((ours("Locum-Home-Address", b"\xe0\0\0\1"), VERSION, PAGE), 407),
    ],
)
def test_senseless_requests_are_refused(attributes: tuple[Attribute, ...], cause: int) -> None:
    world = World()
    world.ask(*attributes)
    assert world.cause() in ((cause, 407) if cause == 404 else (cause,))
    assert world.fed == []


def test_a_disconnection_has_nothing_to_change() -> None:
    world = World()
    world.ask(NAI, VERSION, code=Code.DISCONNECT_REQUEST)
    assert world.cause() == 401 and world.fed == []
    world.ask(NAS, code=Code.DISCONNECT_REQUEST, identifier=2)
    assert world.cause() == 402


def test_a_repetition_is_answered_again_without_effect() -> None:
    world = World()
    data = world.ask(NAI, VERSION, PAGE)
    world.pushes.received(data, PLACE, now=NOW, wall=NOW)
    assert world.sent == [] and world.counts["push-in-progress"] == 1
    world.answer(PushOutcome.DONE)
    world.pushes.received(data, ("192.0.2.53", 41_000), now=NOW + 1, wall=NOW + 1)
    assert len(world.fed) == 1 and world.counts["push-duplicate"] == 1
    assert [sent for sent, _ in world.sent] == [world.sent[0][0]] * 2
    assert world.sent[1][1] == ("192.0.2.53", 41_000)


def test_a_recorded_request_does_nothing_ever() -> None:
    world = World()
    data = world.ask(NAI, code=Code.DISCONNECT_REQUEST)
    world.answer(PushOutcome.DONE)
    for later in range(0, 2000, 50):
        world.pushes.received(data, PLACE, now=NOW + later, wall=NOW + later)
    assert len(world.fed) == 1
    assert world.counts["push-old"] > 0 and world.counts["push-duplicate"] > 0


@pytest.mark.parametrize(
    ("at", "reason"),
    [(NOW - 301, "old"), (NOW + 301, "future"), (NOW - 1001, "old")],
)
def test_requests_of_another_time_are_dropped(at: float, reason: str) -> None:
    world = World()
    data = signed_request(Code.COA_REQUEST, 1, (stamp(at), NAI, VERSION, PAGE), SECRET)
    world.pushes.received(data, PLACE, now=NOW, wall=NOW)
    assert world.counts == {f"push-{reason}": 1} and world.fed == []


def test_requests_from_before_the_start_are_dropped() -> None:
    world = World()
    data = signed_request(Code.DISCONNECT_REQUEST, 1, (stamp(NOW - 1001), NAI), SECRET)
    world.pushes.received(data, PLACE, now=NOW - 900, wall=NOW - 900)
    assert world.counts == {"push-before-start": 1} and world.fed == []


def made(code: int, *attributes: Attribute, secret: bytes = SECRET, signed: bool = True) -> bytes:
    data = signed_request(code, 1, attributes, secret)
    if signed:
        return data
    packet = decode_radius(data)
    bare = RadiusPacket(packet.code, 1, bytes(16), packet.attributes[1:])
    from hashlib import md5

    blank = encode_radius(bare)
    return blank[:4] + md5(blank + secret).digest() + blank[20:]


@pytest.mark.parametrize(
    ("data", "place", "reason"),
    [
        (made(43, stamp(), NAI), ("192.0.2.99", 1), "stranger"),
        (made(43, stamp(), NAI, secret=b"another secret!!"), PLACE, "not-authentic"),
        (made(43, stamp(), NAI, signed=False), PLACE, "no-message-authenticator"),
        (made(1, stamp(), NAI), PLACE, "code"),
        (made(44, stamp(), NAI), PLACE, "code"),
        (made(43, NAI), PLACE, "no-timestamp"),
        (made(43, stamp(), stamp(), NAI), PLACE, "malformed-timestamp"),
        (made(43, Attribute(55, b"\1"), NAI), PLACE, "malformed-timestamp"),
        (made(43, stamp(), NAI)[:-1], PLACE, "malformed-truncated"),
        (b"", PLACE, "malformed-truncated"),
        (b"\x2b\1\0\5" + bytes(16), PLACE, "malformed-range"),
    ],
)
def test_datagrams_that_are_no_request_are_dropped(data: bytes, place: Any, reason: str) -> None:
    world = World()
    world.pushes.received(data, place, now=NOW, wall=NOW)
    assert world.counts == {f"push-{reason}": 1}
    assert world.sent == [] and world.fed == []


def test_a_role_that_does_not_decide_is_not_waited_for() -> None:
    world = World()
    world.ask(NAI, VERSION, PAGE)
    world.pushes.timeout(now=NOW + PATIENCE - 1)
    assert world.sent == [] and world.pushes.under_way
    world.pushes.timeout(now=NOW + PATIENCE)
    assert world.cause() == 506
    world.answer(PushOutcome.DONE)
    assert len(world.sent) == 1


def test_a_clock_that_is_set_back_does_not_forget() -> None:
    world = World()
    data = world.ask(NAI, code=Code.DISCONNECT_REQUEST)
    world.answer(PushOutcome.DONE)
    world.pushes.received(data, PLACE, now=NOW + 599, wall=NOW)
    world.pushes.received(data, PLACE, now=NOW + 599, wall=NOW - 3000)
    assert len(world.fed) == 1 and world.counts == {"push-duplicate": 2}


def test_memory_of_requests_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.node.policy.pushes.MOST_REMEMBERED", 3)
    world = World()
    for number in range(5):
        world.ask(NAI, code=Code.DISCONNECT_REQUEST, identifier=number)
    assert len(world.fed) == 3 and world.counts["push-too-many"] == 2
    world.ask(NAI, code=Code.DISCONNECT_REQUEST, identifier=9, now=NOW + 601)
    assert len(world.fed) == 4


# Any bytes ----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=120))
def test_any_bytes_change_nothing(data: bytes) -> None:
    world = World()
    world.pushes.received(data, PLACE, now=NOW, wall=NOW)
    assert world.fed == [] and world.sent == [] and sum(world.counts.values()) == 1


anything = st.builds(Attribute, st.integers(1, 255), st.binary(max_size=40))
of_ours = st.builds(
    lambda kind, value: encode_vendor(ENTERPRISE, [Attribute(kind, value)]),
    st.integers(1, 30),
    st.binary(max_size=40) | st.sampled_from([RULE.encode(), b"none", (9).to_bytes(8, "big")]),
)


@given(st.lists(anything | of_ours | st.sampled_from([NAI, NAS, FRAMED, VERSION, PAGE]), max_size=8))
def test_authentic_requests_of_any_content_are_answered(attributes: list[Attribute]) -> None:
    """A client that is known gets an answer, whatever it says, and roles get whole changes alone."""
    for code in (Code.COA_REQUEST, Code.DISCONNECT_REQUEST):
        world = World()
        data = world.ask(*attributes, code=code)
        if world.counts["push-malformed-timestamp"] or world.counts["push-not-authentic"]:
            assert world.fed == [] and world.sent == []  # a second time, or a second signature
            continue
        if world.fed:
            world.answer(PushOutcome.DONE)
        ((answer, _),) = world.sent
        assert answer_authentic(answer, data, SECRET)


def test_clock_that_was_ahead_at_the_start_locks_nobody_out() -> None:
    """The daemon began a minute ago, when the clock was an hour ahead."""
    world = World()
    ask = signed_request(Code.COA_REQUEST, 1, (stamp(NOW - 3600), NAI, VERSION, PAGE), SECRET)
    world.pushes.received(ask, PLACE, now=NOW - 940, wall=NOW - 3600)
    assert world.counts == {} and len(world.fed) == 1
    old = signed_request(Code.COA_REQUEST, 2, (stamp(NOW - 3661), NAI, VERSION, PAGE), SECRET)
    world.pushes.received(old, PLACE, now=NOW - 940, wall=NOW - 3600)
    assert world.counts == {"push-before-start": 1}
