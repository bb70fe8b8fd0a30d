"""Messages of paging with one field that does not fit: the refusal names the field."""

from ipaddress import ip_address
from typing import Any

import cbor2
import pytest

from locum.wire.control.paging import (
    agent_rules,
    direct_page,
    event_table,
    location,
    outcome,
    page,
    page_request,
    page_rules,
    redirect,
    status,
)
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent, carried
from locum.wire.errors import WireError

HOME = ip_address("192.0.2.10").packed
PAGE = bytes(8)
WAY = ["radio", b"", 320, 40, 10]
RULE = {0: 1, 1: 10, 2: [[1, bytes(4)]], 3: 1}
AGENT_RULE = {0: 1, 1: 10, 2: [[1, bytes(4)]]}
ENTRY = {0: 1, 1: [["a", "b", []]], 2: [[1, None]]}

VALID: dict[str, tuple[Any, dict[int, object]]] = {
    "1170": (page.decode_1170, {0: PAGE, 1: HOME, 2: [3], 3: 30}),
    "page-answer": (outcome.decode_page_answer, {0: PAGE, 1: 0}),
    "1172": (page_request.decode_1172, {0: PAGE, 1: HOME, 2: ["a", "b", {}]}),
    "1172a": (direct_page.decode_1172a, {0: PAGE, 1: HOME, 3: 30, 8: b"x"}),
    "1172a-answer": (direct_page.decode_1172a_answer, {0: PAGE, 1: 0}),
    "direct-call": (direct_page.decode_call, {0: ["a", "b", {}], 1: 1, 2: 1, 3: 0}),
    "direct-decision": (direct_page.decode_decision, {0: 1}),
    "1204": (page_rules.decode_1204, {0: [HOME], 1: [], 2: 3, 3: 60, 4: 1, 5: 1}),
    "1206": (event_table.decode_1206, {0: [HOME], 1: 1, 2: 1}),
    "1208": (agent_rules.decode_1208, {0: [HOME], 1: [], 2: 60, 3: 1}),
    "1210": (redirect.decode_1210, {0: [HOME], 1: [3], 2: 1}),
    "1212": (location.decode_1212, {0: [HOME], 1: 60, 2: 1}),
    "1135": (location.decode_query, {0: HOME}),
    "1135-answer": (location.decode_query_answer, {0: 0}),
    "status-answer": (status.decode_status_answer, {0: 0}),
}


@pytest.mark.parametrize("name", VALID)
def test_base_of_the_refusals_is_valid(name: str) -> None:
    decode, body = VALID[name]
    decode(cbor2.dumps(body, canonical=True))
    with pytest.raises(WireError) as refused:
        decode(cbor2.dumps(body | {99: 1}, canonical=True))
    assert refused.value.reason in ("unknown-key", "missing")
    with pytest.raises(WireError) as refused:
        decode(cbor2.dumps([], canonical=True))
    assert refused.value.reason == "not-a-map"
    for key in body:
        with pytest.raises(WireError, match="missing"):
            decode(cbor2.dumps({left: value for left, value in body.items() if left != key}, canonical=True))


REFUSED: list[tuple[str, dict[int, object], str, str]] = [
    ("1170", {0: bytes(7)}, "1170.page", "range"),
    ("1170", {1: bytes(5)}, "1170.home-address", "not-an-address"),
    ("1170", {2: []}, "1170.cause", "not-a-cause"),
    ("1170", {2: [4]}, "1170.cause", "not-a-cause"),
    ("1170", {2: [3, 1]}, "1170.cause", "not-a-cause"),
    ("1170", {2: [1, 0, [6, HOME, 1, HOME, 2], b""]}, "1170.cause.rule", "range"),
    ("1170", {2: [1, 1, [6, HOME, 1, bytes(16), 2], b""]}, "1170.cause.flow.peer", "family"),
    ("1170", {2: [1, 1, [6, HOME, 1, HOME, 2], bytes(129)]}, "1170.cause", "not-a-cause"),
    ("1170", {2: [2, "", "b"]}, "1170.cause.app", "range"),
    ("1170", {2: [2, "a", "b" * 65]}, "1170.cause.kind", "range"),
    ("1170", {3: 0}, "1170.seconds", "range"),
    ("1170", {3: 3601}, "1170.seconds", "range"),
    ("1170", {4: WAY[:4]}, "1170.way", "truncated"),
    ("1170", {4: ["x" * 33, *WAY[1:]]}, "1170.way.name", "range"),
    ("1170", {4: ["x", bytes(33), 0, 0, 0]}, "1170.way.link-address", "not-octets"),
    ("1170", {4: ["x", b"", 86_400_001, 0, 1]}, "1170.way.cycle", "range"),
    ("1170", {4: ["x", b"", 320, 320, 1]}, "1170.way.offset", "range"),
    ("1170", {4: ["x", b"", 320, 0, 321]}, "1170.way.length", "range"),
    ("1170", {4: ["x", b"", 320, 0, 0]}, "1170.way.length", "range"),
    ("1170", {4: ["x", b"", 0, 0, 1]}, "1170.way.length", "range"),
    ("1170", {5: []}, "1170.profile", "range"),
    ("1170", {5: [[1, 1, b""]] * 17}, "1170.profile", "too-many-items"),
    ("1170", {5: [[1, 1, b""]] * 2}, "1170.profile", "repeated"),
    ("1170", {5: [[1, 1]]}, "1170.profile", "not-a-block"),
    ("1170", {5: [[1, 1, None]]}, "1170.profile", "not-octets"),
    ("1170", {5: [[1, 1, bytes(16385)]]}, "1170.profile", "not-octets"),
    ("1170", {5: [[0, 1, b""]]}, "1170.profile.kind", "range"),
    ("1170", {5: [[1, 1 << 32, b""]]}, "1170.profile.version", "range"),
    ("1170", {5: [[1, 1, b""]], 6: [HOME, "d"]}, "1170.pointer", "profile-and-pointer"),
    ("1170", {6: [HOME]}, "1170.pointer", "truncated"),
    ("1170", {6: [HOME, "d" * 254]}, "1170.pointer.device", "range"),
    ("1170", {7: [HOME, b""]}, "1170.allocation.mobility-agent", "not-an-address"),
    ("page-answer", {1: 7}, "page-answer.outcome", "range"),
    ("page-answer", {2: 3}, "page-answer.answered-by", "range"),
    ("page-answer", {3: "x" * 201}, "page-answer.text", "range"),
    ("1172", {2: ["a", "b"]}, "1172.event", "truncated"),
    ("1172", {2: ["a", "b", {1: 1}]}, "1172.event.detail", "not-a-text-map"),
    ("1172", {2: ["a", "b", {"x": bytes(MAX_DETAIL)}]}, "1172.event.detail", "too-large"),
    ("1172", {3: 0}, "1172.order", "range"),
    ("1172a", {8: []}, "1172a.call", "not-octets"),
    ("1172a", {8: bytes(1201)}, "1172a.call", "range"),
    ("1172a-answer", {8: bytes(1201)}, "1172a-answer.proof", "range"),
    ("direct-call", {2: -1}, "direct-call.count", "range"),
    ("direct-call", {3: 3}, "direct-call.left-out", "range"),
    ("direct-call", {4: []}, "direct-call.state", "not-a-text-map"),
    ("direct-call", {4: {"x": bytes(1200)}}, "direct-call", "too-large"),
    ("direct-decision", {0: 3}, "direct-decision.decision", "range"),
    ("direct-decision", {1: []}, "direct-decision.entries", "range"),
    ("direct-decision", {2: {"a": []}}, "direct-decision.information.value", "not-a-scalar"),
    ("1204", {0: []}, "1204.home-addresses", "range"),
    ("1204", {0: [HOME, HOME]}, "1204.home-addresses", "repeated"),
    ("1204", {0: [HOME] * 9}, "1204.home-addresses", "too-many-items"),
    ("1204", {1: [RULE, RULE]}, "1204.rule", "repeated"),
    ("1204", {1: [RULE] * 65}, "1204.rules", "too-many-items"),
    ("1204", {1: [RULE | {0: 0}]}, "1204.rule.identifier", "range"),
    ("1204", {1: [RULE | {1: 65536}]}, "1204.rule.priority", "range"),
    ("1204", {1: [RULE | {2: []}]}, "1204.rule.selectors", "range"),
    ("1204", {1: [RULE | {2: [[1, bytes(4)]] * 3}]}, "1204.rule.selectors", "too-many-items"),
    ("1204", {1: [RULE | {2: [[1]]}]}, "1204.rule.selector", "truncated"),
    ("1204", {1: [RULE | {2: [[9, bytes(97)]]}]}, "1204.rule.selector", "not-octets"),
    ("1204", {1: [RULE | {3: 5}]}, "1204.rule.action", "range"),
    ("1204", {1: [RULE | {4: HOME}]}, "1204.rule.agent", "not-to-an-agent"),
    ("1204", {2: 1}, "1204.otherwise", "range"),
    ("1204", {3: 30 * 86400 + 1}, "1204.lifetime", "range"),
    ("1204", {4: 3}, "1204.state", "range"),
    ("1204", {5: 1 << 53}, "1204.sent", "range"),
    ("1204", {7: HOME}, "1204.agent", "not-to-an-agent"),
    ("1206", {1: 4}, "1206.operation", "range"),
    ("1206", {1: 3}, "1206.removed", "missing"),
    ("1206", {1: 3, 4: [0]}, "1206.removed", "range"),
    ("1206", {3: [ENTRY, ENTRY]}, "1206.entry", "repeated"),
    ("1206", {3: [ENTRY] * 65}, "1206.entries", "too-many-items"),
    ("1206", {3: [ENTRY | {1: []}]}, "1206.entry.patterns", "range"),
    ("1206", {3: [ENTRY | {1: [["a", "b", []]] * 9}]}, "1206.entry.patterns", "too-many-items"),
    ("1206", {3: [ENTRY | {1: [["a", "b"]]}]}, "1206.entry.pattern", "truncated"),
    (
        "1206",
        {3: [ENTRY | {1: [["a", "b", [["f", 1, 1]]]]}]},
        "1206.entry.pattern.condition",
        "not-a-condition",
    ),
    (
        "1206",
        {3: [ENTRY | {1: [["a", "b", [["f", 9, 1, False]]]]}]},
        "1206.entry.pattern.condition.operator",
        "range",
    ),
    (
        "1206",
        {3: [ENTRY | {1: [["a", "b", [["f", 1, "x" * 257, False]]]]}]},
        "1206.entry.pattern.condition.value",
        "not-a-scalar",
    ),
    (
        "1206",
        {3: [ENTRY | {1: [["a", "b", [["f", 1, float("nan"), False]]]]}]},
        "1206.entry.pattern.condition.value",
        "not-a-scalar",
    ),
    (
        "1206",
        {3: [ENTRY | {1: [["a", "b", [["f", 1, 7, True]]]]}]},
        "1206.entry.pattern.condition.value",
        "not-text",
    ),
    ("1206", {3: [ENTRY | {2: []}]}, "1206.entry.actions", "range"),
    ("1206", {3: [ENTRY | {2: [[3, None], [3, None]]}]}, "1206.entry.actions", "repeated"),
    ("1206", {3: [ENTRY | {2: [[5, None]]}]}, "1206.entry.action.kind", "range"),
    ("1206", {3: [ENTRY | {2: [[1, 4]]}]}, "1206.entry.action.order", "range"),
    ("1206", {3: [ENTRY | {2: [[2, 1]]}]}, "1206.entry.action.order", "not-a-page"),
    ("1206", {3: [ENTRY | {2: [[4, None]]}]}, "1206.entry.action.text", "not-text"),
    ("1206", {3: [ENTRY | {3: 0}]}, "1206.entry.within", "range"),
    ("1206", {3: [ENTRY | {4: {0: 0}}]}, "1206.entry.limits.interval", "range"),
    ("1206", {3: [ENTRY | {4: {1: [[5, 5]]}}]}, "1206.entry.limits.quiet", "range"),
    ("1206", {3: [ENTRY | {4: {1: [[0, 1440]]}}]}, "1206.entry.limits.quiet", "range"),
    ("1206", {3: [ENTRY | {5: ""}]}, "1206.entry.name", "range"),
    ("1206", {5: {"": 1}}, "1206.information.name", "range"),
    ("1206", {5: {f"n{number}": "x" * 250 for number in range(70)}}, "1206.information", "too-large"),
    ("1206", {6: 1441}, "1206.offset", "range"),
    ("1206", {7: []}, "1206.rules", "range"),
    ("1208", {1: [AGENT_RULE, AGENT_RULE]}, "1208.rule", "repeated"),
    ("1208", {1: [RULE]}, "1208.rule.3", "unknown-key"),
    ("1208", {1: [AGENT_RULE | {4: b""}]}, "1208.rule.agent", "not-an-address"),
    ("1210", {1: []}, "1210.to", "not-a-destination"),
    ("1210", {1: [1, HOME]}, "1210.to", "not-a-destination"),
    ("1210", {1: [2, b""]}, "1210.to.agent", "not-an-address"),
    ("1210", {3: bytes(9)}, "1210.page", "range"),
    ("1212", {3: "x" * 254}, "1212.node-id", "range"),
    ("1212", {4: ["a", "a"]}, "1212.uris", "repeated"),
    ("1212", {4: [str(number) for number in range(9)]}, "1212.uris", "too-many-items"),
    ("1212", {4: ["u" * 256]}, "1212.uri", "range"),
    ("1212", {5: 1}, "1212.access-node", "not-an-address"),
    ("1212", {8: 0}, "1212.state", "range"),
    ("1135", {1: "mn"}, "1135.1", "unknown-key"),
    ("1135-answer", {0: 9}, "1135-answer.status", "range"),
    ("1135-answer", {1: [{0: [HOME], 1: 1, 2: 1}] * 17}, "1135-answer.found", "too-many-items"),
    ("status-answer", {2: [[1, 1]]}, "status-answer.item", "not-a-status"),
    ("status-answer", {2: [[0, 1, ""]]}, "status-answer.item", "range"),
    ("status-answer", {3: -1}, "status-answer.lifetime", "range"),
]


@pytest.mark.parametrize(("name", "changed", "field", "reason"), REFUSED)
def test_unfit_field_is_refused(name: str, changed: dict[int, object], field: str, reason: str) -> None:
    decode, body = VALID[name]
    with pytest.raises(WireError) as refused:
        decode(cbor2.dumps(body | changed, canonical=True))
    assert (refused.value.field, refused.value.reason) == (field, reason)


def test_long_messages_are_refused_unread() -> None:
    for name, (decode, _body) in VALID.items():
        with pytest.raises(WireError, match="too-large") as refused:
            decode(bytes(1 << 20))
        assert refused.value.field == name


@pytest.mark.parametrize(
    "detail", [{"n": 1 << 70}, {"x": "y" * MAX_DETAIL}, {"deep": [[[[[[[[[[[[1]]]]]]]]]]]]}]
)
def test_detail_that_no_message_carries_is_left_out(detail: dict[str, object]) -> None:
    assert carried(ApplicationEvent("a", "b", detail)) == ApplicationEvent("a", "b")
    small = ApplicationEvent("a", "b", {"n": [1, {"x": "y"}]})
    assert carried(small) == small


def test_longest_json_detail_is_carried() -> None:
    numbers = [0.1] * 1020  # "[0.1,0.1,...]": the numbers that grow most from JSON to CBOR
    event = ApplicationEvent("a" * 64, "b" * 64, {"n": numbers})
    assert carried(event) == event
