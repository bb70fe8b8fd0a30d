"""Lines of `locum monitor` about pages."""

from typing import Any

import pytest

from locum.cli.output import Output
from locum.cli.paging.event_lines import sentence

FLOW = "tcp 10.10.100.4:22 > 10.10.6.2:4000"
PACKET = {"cause": "packet", "rule": 7}
EVENT = {"app": "films", "event": "delivered"}


@pytest.mark.parametrize(
    ("kind", "message", "detail", "said"),
    [
        ("sent", "1170", {"to": "10.1.0.1", "attempt": 1, **PACKET},
         f"sent to the access node 10.1.0.1; packet {FLOW} by rule 7"),
        ("sent", "1170", {"to": "10.1.0.1", "attempt": 3, "cause": "command"},
         "sent to the access node 10.1.0.1 again (attempt 3); command"),
        ("calling", "1170", {"links": ["radio0"], "known": True, "way": "slots"},
         "the device is called on radio0 by slots"),
        ("calling", "1170", {"links": ["radio0", "radio1"], "known": False},
         "the device is called on radio0, radio1, by broadcast"),
        ("called", "1170", {"outcome": "reached", "calls": 1}, "reached after 1 call"),
        ("called", "1170", {"outcome": "no-answer", "calls": 9}, "no-answer after 9 calls"),
        ("paged", "1170", {"by": "10.1.0.1", "cause": "packet", "detail": FLOW, "decision": "waking"},
         f"heard by way of 10.1.0.1; packet {FLOW}; waking"),
        ("paged", "1170", {"by": "10.1.0.1", "cause": "command", "decision": "awake"},
         "heard by way of 10.1.0.1; command; awake"),
        ("page-answered", "1170", {"by": "mn", "from": "10.1.0.1"}, "answered by the device, from 10.1.0.1"),
        ("page-answered", "1170", {"by": "an", "from": "10.1.0.1"},
         "answered by the access node for it, from 10.1.0.1"),
        ("page-ended", "1170", {"outcome": "reached", "seconds": 0.5, "attempts": 1, "folded": 0, **PACKET},
         f"reached after 0.5 s, 1 attempt; packet {FLOW} by rule 7"),
        ("page-ended", "1170", {"outcome": "no-answer", "seconds": 20.0, "attempts": 4, "folded": 2,
                                "reason": "it is off", "cause": "event", **EVENT},
         "no-answer (it is off) after 20 s, 4 attempts, 2 further causes; event delivered of films"),
        ("page-asked", "1172", {"to": "10.5.0.1", **EVENT}, "asked of 10.5.0.1; event delivered of films"),
        ("page-outcome", "1172A", {"outcome": "busy", "reason": "", "again": 2.5, **EVENT},
         "busy, again in 2.5 s; event delivered of films"),
        ("sent", "1212", {"to": "10.5.0.1"}, None),
        ("asleep", "632", {}, None),
        ("called", "1170", {"calls": "some"}, None),
    ],
)  # fmt: skip
def test_events_of_a_page_are_sentences(
    kind: str, message: str, detail: dict[str, Any], said: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    event = {
        "time": 1_790_000_000.25, "node": "ha", "kind": kind, "message": message, "home_address": "10.10.100.4",
        "flow": FLOW, "detail": detail,
    }  # fmt: skip
    wanted = None if said is None else f"page of 10.10.100.4: {said}"
    assert sentence(event) == wanted
    Output(json_wanted=False).event(event, sentence(event))
    line = capsys.readouterr().out
    assert line.count("\n") == 1 and ".250 ha" in line
    assert line.endswith(f" {message:<5} {wanted}\n") if wanted else f" {kind} " in line
