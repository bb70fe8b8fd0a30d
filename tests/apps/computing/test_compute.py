"""Computations over time: rows in packets, windows, conditions, messages, crashes and handovers (A8, A10)."""

import json
import re
import tomllib
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest

from locum.apps.computing.compute import Compute
from locum.apps.computing.proxy import MAX_PEERS, MAX_SESSIONS
from locum.apps.computing.spreadsheet import Spreadsheet
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import AppSession, Keep, Leave, Replace, SettingError, Tell
from locum.roles.app_network import (
    Abort,
    Accepted,
    Connect,
    Data,
    Datagram,
    Ended,
    Finish,
    Listen,
    Opened,
    Send,
    SendTo,
)
from tests.apps.computing.timeline import LISTENER, PEER, Kind, Timeline, flow

UDP_LISTENER: Mapping[str, JSON] = {"listen": {"port": 5005}}
ATTENDED: Mapping[str, JSON] = {"ports": list(range(7000, 7032))}
CSV: Mapping[str, JSON] = {"columns": ["sensor", "celsius"], "values": ["celsius"]}


def test_operations_over_several_packets() -> None:
    one = Timeline(**ATTENDED, **CSV)
    for packet in (b"sensor,celsius\na,2", b"0.5\nb,", b"10\nc,-3e1\n"):
        one.says(packet)
    assert one.wakes() == {
        "rows": 3,
        "results": {"count": 3, "sum": 0.5, "mean": 0.5 / 3, "min": -30.0, "max": 20.5},
        "progress": 3,
    }


def test_sums_of_any_numbers_are_exact() -> None:
    random = Random(3)
    values = [random.uniform(-1, 1) * 10.0 ** random.randrange(-20, 20) for _ in range(500)]
    one = Timeline(**UDP_LISTENER, **CSV)
    for value in values:
        one.datagram(f"a,{value!r}".encode())
    results = one.wakes()["results"]
    exact = sum(map(Fraction, values), Fraction(0))
    assert results["sum"] == float(exact) and results["mean"] == float(exact / 500)


def test_groups_and_several_columns() -> None:
    one = Timeline(
        **ATTENDED,
        columns=["sensor", "celsius", "volt"],
        values=["celsius", "volt"],
        operations=["sum", "max"],
        group_by="sensor",
        groups=2,
    )
    one.says(b"a,1,2\nb,3,4\na,5,6\nc,7,8\n")
    result = one.wakes()
    assert result["groups"] == {
        "a": {"sum(celsius)": 6.0, "max(celsius)": 5.0, "sum(volt)": 8.0, "max(volt)": 6.0},
        "b": {"sum(celsius)": 3.0, "max(celsius)": 3.0, "sum(volt)": 4.0, "max(volt)": 4.0},
    }
    assert result["rows"] == 3 and result["errors"] == {"groups": 1}


def test_bad_lines_are_counted_and_noted() -> None:
    one = Timeline(**ATTENDED, **CSV)
    one.says(b"a,1\na\na,x\n\xff,1\na,nan\n" + b"x" * 5000 + b"\na,2\n")
    assert one.wakes()["errors"] == {"too_long": 1, "columns": 1, "number": 2, "encoding": 1}
    assert "a cell is not a finite number: b'a,x'" in one.notes()


def test_bad_line_may_end_the_computation() -> None:
    one = Timeline(**ATTENDED, **CSV, on_error="end")
    one.says(b"a,1\na,x\na,3\n")
    assert one.told("computation_failed") == [{"reason": "a cell is not a finite number: b'a,x'"}]
    assert [type(effect) for effect in one.effects if isinstance(effect, Leave)] == [Leave]
    result = one.wakes()
    assert result["rows"] == 1 and "finite number" in result["failed"]


def test_complete_after_so_many_rows() -> None:
    one = Timeline(**UDP_LISTENER, **CSV, until={"rows": 3})
    assert one.effects == [Listen(LISTENER, 5005, 17)]
    one.datagram(b"a,1\na,2\n")
    assert one.told() == []
    one.datagram(b"a,3\na,4\n")
    assert one.told() == [
        {
            "why": "complete",
            "complete": "rows",
            "rows": 3,
            "results": {"count": 3, "sum": 6.0, "mean": 2.0, "min": 1.0, "max": 3.0},
        }
    ]
    assert Finish(LISTENER) in one.effects and one.app.deadline() is None
    result = one.wakes()
    assert result["done"] is True and result["late"] == 1 and one.state == {}


def test_complete_by_time_and_by_mark() -> None:
    one = Timeline(**ATTENDED, **CSV, until={"seconds": 60, "mark": "END"})
    one.says(b"a,1\n")
    one.passes(59.9)
    assert one.told() == []
    one.passes(0.2)
    assert [event["complete"] for event in one.told()] == ["seconds"]
    other = Timeline(**ATTENDED, **CSV, until={"mark": "END"})
    other.says(b"a,1\nEND\na,2\n")
    assert [event["complete"] for event in other.told()] == ["mark"] and other.wakes()["rows"] == 1


def test_condition_with_hysteresis_by_group() -> None:
    one = Timeline(**ATTENDED, **CSV, group_by="sensor", when="mean > 30", again="mean < 25", window={
        "rows": 2, "kind": "sliding",
    })  # fmt: skip
    for value in (20, 50, 40, 26, 30, 10, 70):
        one.says(f"a,{value}\n".encode())
    one.says(b"b,31\n")
    assert [(event["groups"], event["condition"]) for event in one.told()] == [
        ({"a": {"count": 2, "sum": 70.0, "mean": 35.0, "min": 20.0, "max": 50.0}}, "mean > 30"),
        ({"a": {"count": 2, "sum": 80.0, "mean": 40.0, "min": 10.0, "max": 70.0}}, "mean > 30"),
        ({"b": {"count": 1, "sum": 31.0, "mean": 31.0, "min": 31.0, "max": 31.0}}, "mean > 30"),
    ]


def test_sliding_window_by_time() -> None:
    one = Timeline(**ATTENDED, **CSV, window={"seconds": 10, "kind": "sliding"}, when="count == 0")
    one.says(b"a,1\n")
    one.passes(6)
    one.says(b"a,5\n")
    one.passes(5)
    assert one.app.computing.engine.result("")["sum"] == 5.0
    one.passes(20)
    assert [event["results"] for event in one.told()] == [
        {"count": 0, "sum": 0.0, "mean": None, "min": None, "max": None}
    ]


def test_tumbling_windows_have_results_at_their_ends() -> None:
    emit: JSON = {"to": "correspondent", "on": ["window"], "template": "{count} {sum}"}
    by_rows = Timeline(**ATTENDED, **CSV, window={"rows": 2}, emit=emit)
    by_rows.says(b"a,1\na,2\na,3\na,4\na,5\n")
    assert by_rows.sent() == [b"2 3.0\n", b"2 7.0\n"]
    by_time = Timeline(**ATTENDED, **CSV, window={"seconds": 10}, emit=emit)
    by_time.says(b"a,1\na,2\n")
    by_time.passes(10)
    by_time.passes(100)
    by_time.says(b"a,3\n")
    by_time.passes(10)
    assert by_time.sent() == [b"2 3.0\n", b"1 3.0\n"]


def test_sliding_windows_hold_a_bounded_number_of_rows() -> None:
    one = Timeline(**ATTENDED, **CSV, window={"seconds": 3600, "kind": "sliding"})
    for _ in range(12):
        one.says(b"a,1\n" * 100)
    result = one.wakes()
    assert result["results"]["count"] == 1000 and result["left_early"] == 200


def test_one_message_from_many_packets() -> None:
    """To the correspondent that spoke last, from the port at which it was heard."""
    one = Timeline(**UDP_LISTENER, **CSV, emit={"to": "correspondent", "rows": 3})
    for number in range(6):
        one.datagram(f"a,{number}".encode(), port=4000 + number)
    messages = [effect for effect in one.effects if isinstance(effect, SendTo)]
    assert [(effect.listener, effect.host, effect.port) for effect in messages] == [
        (LISTENER, str(PEER), 4002),
        (LISTENER, str(PEER), 4005),
    ]
    assert json.loads(messages[1].data) == {
        "rows": 6,
        "results": {"count": 6, "sum": 15.0, "mean": 2.5, "min": 0.0, "max": 5.0},
    }
    assert one.wakes()["sent"] == 2


@pytest.mark.parametrize(
    "form, wanted",
    [
        ({"form": "csv"}, b"group,count,sum,mean,min,max\na,2,4.0,2.0,1.0,3.0\nb,1,2.0,2.0,2.0,2.0\n"),
        ({"form": "lines"}, b"a,1\nb,2\na,3\n"),
        ({"template": '{"{group}": {mean( celsius )}} {nothing}'.replace(" {nothing}", "")}, b'{"a": 2.0}\n{"b": 2.0}\n'),
    ],
)  # fmt: skip
def test_forms_of_messages(form: dict[str, JSON], wanted: bytes) -> None:
    one = Timeline(**ATTENDED, **CSV, group_by="sensor", emit={"to": "correspondent", "rows": 3, **form})
    one.says(b"a,1\nb,2\na,3\n")
    assert one.sent() == [wanted]


def test_message_for_the_device_waits_for_it() -> None:
    one = Timeline(**ATTENDED, **CSV, emit={"to": "device", "rows": 2, "form": "lines"})
    one.says(b"a,1\n" * 12)
    result = one.wakes()
    assert result["messages"] == ["a,1\na,1\n"] * 4 and result["messages_left_out"] == 2
    assert one.sent() == []


def test_message_to_another_host() -> None:
    udp = Timeline(**UDP_LISTENER, **CSV, emit={"to": "[2001:db8::1]:9", "seconds": 5, "template": "{sum}"})
    udp.datagram(b"a,1")
    udp.passes(5)
    assert [effect for effect in udp.effects if isinstance(effect, SendTo)] == [
        SendTo(LISTENER, "2001:db8::1", 9, b"1.0\n")
    ]
    tcp = Timeline(**ATTENDED, **CSV, emit={"to": "host.example:9", "protocol": "tcp", "rows": 1, "form": "lines"})  # fmt: skip
    tcp.says(b"a,1\n")
    assert Connect(2, "host.example", 9) in tcp.effects
    assert tcp.happens(Opened(2, "192.0.2.9")) == [Send(2, b"a,1\n"), Finish(2)]
    tcp.happens(Ended(2))
    tcp.says(b"a,2\n")
    tcp.happens(Ended(2, "ECONNREFUSED"))
    result = tcp.wakes()
    assert result["sent"] == 1 and result["unsent"] == 1 and "ECONNREFUSED" in tcp.notes()


def test_too_large_message_is_not_sent() -> None:
    one = Timeline(**ATTENDED, **CSV, group_by="sensor", groups=64, emit={"to": "correspondent", "rows": 64})
    one.says(b"".join(b"sensor-%d,1\n" % number for number in range(64)))
    assert one.sent() == [] and one.wakes()["unsent"] == 1


def test_message_without_a_correspondent_is_not_sent() -> None:
    one = Timeline(**ATTENDED, **CSV, emit={"to": "correspondent", "seconds": 5})
    one.says(b"a,1\n")
    one.did(one.app.closed(0, 104, now=one.now))
    one.passes(5)
    assert one.sent() == [] and one.wakes()["unsent"] == 1


def test_event_has_as_many_groups_as_it_may() -> None:
    one = Timeline(**ATTENDED, **CSV, group_by="sensor", groups=64, until={"rows": 64})
    one.says(b"".join(b"%s-%d,1\n" % (b"x" * 60, number) for number in range(64)))
    (event,) = one.told()
    assert len(json.dumps(event)) <= 4096 and len(event["groups"]) + event["left_out"] == 64
    assert len(one.wakes()["groups"]) == 64


# Connections


def test_connections_have_lines_of_their_own() -> None:
    one = Timeline(
        Compute, 0, listen={"port": 5005, "protocol": "tcp"}, **CSV, emit={"to": "correspondent", "rows": 4}
    )
    for connection in (-1, -2):
        one.happens(Accepted(LISTENER, connection, str(PEER), 4000))
    for connection, data in ((-1, b"a,"), (-2, b"b,2\nb"), (-1, b"1\n"), (-2, b",3\nb,4")):
        one.happens(Data(connection, data))
    assert not any(isinstance(effect, Send) for effect in one.effects)
    one.happens(Data(-2, b""))
    assert [effect.connection for effect in one.effects if isinstance(effect, Send)] == [-2]
    one.happens(Ended(-2))
    one.happens(Data(-1, b"a,cut"))
    one.happens(Ended(-1, "ECONNRESET"))
    result = one.wakes()
    assert result["results"]["sum"] == 10.0 and result["cut"] == 1


def test_connection_of_a_finished_peer_is_ended() -> None:
    one = Timeline(Compute, 0, listen={"port": 5005, "protocol": "tcp"}, **CSV)
    one.happens(Accepted(LISTENER, -1, str(PEER), 4000))
    one.happens(Data(-1, b"a,1"))
    assert Finish(-1) in one.happens(Data(-1, b"")) and one.wakes()["rows"] == 1


def test_too_many_connections_and_sessions_are_left() -> None:
    one = Timeline(Compute, MAX_SESSIONS + 2, **ATTENDED, listen={"port": 5005, "protocol": "tcp"}, **CSV)
    left = [effect.session for effect in one.effects if isinstance(effect, Leave)]
    assert left == [MAX_SESSIONS, MAX_SESSIONS + 1]
    for number in range(MAX_PEERS + 1):
        one.happens(Accepted(LISTENER, -1 - number, str(PEER), 4000))
    assert [effect.connection for effect in one.effects if isinstance(effect, Abort)] == [-1 - MAX_PEERS]


def test_listener_is_tried_again() -> None:
    one = Timeline(**UDP_LISTENER, **CSV)
    one.happens(Ended(LISTENER, "EADDRINUSE"))
    assert one.told("listener_ended") == [{"reason": "EADDRINUSE"}]
    one.passes(5)
    assert one.effects[-1] == Listen(LISTENER, 5005, 17)
    assert one.wakes()["problem"] == "port 5005 of the home address: EADDRINUSE"
    one = Timeline(**UDP_LISTENER, **CSV)
    one.happens(Ended(LISTENER, "EADDRINUSE"))
    one.happens(Opened(LISTENER))
    assert "problem" not in one.wakes()


# Crashes and handovers


@pytest.mark.parametrize("window", [None, {"rows": 3}, {"rows": 3, "kind": "sliding"}, {"seconds": 5}])
def test_answered_bytes_survive_a_crash(window: JSON) -> None:
    """Each packet is shown to another process, in the middle of lines: the result is that of one process."""
    extra: dict[str, JSON] = {} if window is None else {"window": window}
    data = b"".join(b"%s,%d.25\n" % (b"ab"[n % 2 : n % 2 + 1], n * n) for n in range(40))
    whole, killed = (
        Timeline(**ATTENDED, **CSV, group_by="sensor", when="mean > 200", **extra) for _ in range(2)
    )
    for at in range(0, len(data), 7):
        whole.says(data[at : at + 7])
        killed.says(data[at : at + 7])
        killed.begin()
        for one in (whole, killed):
            one.passes(0.3)
    assert killed.told() == whole.told() != []
    result = killed.wakes()
    assert result.pop("restarts") > 30
    assert result == whole.wakes()


def test_unanswered_packet_is_shown_again_and_counts_once() -> None:
    one = Timeline(**ATTENDED, **CSV)
    one.says(b"a,1\na,")
    state = one.state
    one.says(b"2\n")
    one.state = state  # the stand-in has not had its answer
    one.begin()
    one.says(b"2\n")
    assert one.wakes()["results"]["sum"] == 3.0


def test_rows_that_were_computed_with_are_consumed() -> None:
    """Whole lines of packets that have no other lines; the result stands in the place of the last ones."""
    one = Timeline(**ATTENDED, **CSV, until={"rows": 6}, emit={"to": "device", "template": "{sum}"})
    for data in (b"a,1\na,2\na", b",3", b"\n", b"a,4\nbad\n", b"a,5\n"):
        one.says(data)
    one.begin()
    one.says(b"a,6\na,")
    replaced = [
        (effect.start, effect.length, effect.data) for effect in one.effects if isinstance(effect, Replace)
    ]
    assert replaced == [(0, 8, b""), (8, 4, b""), (20, 4, b""), (24, 4, b"21.0\n")]


def test_message_goes_out_when_it_is_counted() -> None:
    """A process that dies in between sends nothing twice."""
    one = Timeline(**UDP_LISTENER, **CSV, emit={"to": "correspondent", "rows": 1}, until={"rows": 1})
    kept = one.app.happened(Datagram(LISTENER, str(PEER), 9, b"a,1"), now=one.now)
    assert [type(effect) for effect in kept] == [Keep, Tell, Leave]
    assert one.app.deadline() == one.now
    assert [type(effect) for effect in one.app.timeout(now=one.now)] == [SendTo, Finish]
    assert one.app.deadline() is None and one.wakes()["sent"] == 1
    other = Timeline(**UDP_LISTENER, **CSV, emit={"to": "correspondent", "rows": 1})
    other.app.happened(Datagram(LISTENER, str(PEER), 9, b"a,1"), now=one.now)
    assert other.wakes()["unsent"] == 1


def test_rows_of_a_listener_are_kept_soon() -> None:
    one = Timeline(**UDP_LISTENER, **CSV)
    kept = [any(isinstance(effect, Keep) for effect in one.datagram(b"a,1")) for _ in range(100)]
    assert kept == [True] + [False] * 99
    one.passes(0.25)
    one.begin()
    result = one.wakes()
    assert result["rows"] == 100 and result["restarts"] == 1


def test_time_counts_while_the_device_sleeps() -> None:
    one = Timeline(**ATTENDED, **CSV, until={"seconds": 100})
    one.passes(60)
    one.says(b"a,1\n")
    one.wakes()
    one.now += 5000
    one.begin()
    one.passes(39)
    assert one.told() == []
    one.passes(2)
    assert one.told() != []


def test_five_sleeps_make_one_sum() -> None:
    one = Timeline(**ATTENDED, **CSV)
    for sleep in range(5):
        one.says(b"a,0.1\na,%d\nhalf" % sleep)
        result = one.wakes()
        one.begin()
    assert result["results"]["count"] == 10 and result["results"]["sum"] == 10.5 and result["cut"] == 5


def test_unknown_beginning_of_a_line_may_be_left_out() -> None:
    one = Timeline(**ATTENDED, **CSV, first_line="skip")
    one.says(b"1\na,2\n")
    assert one.wakes()["results"]["sum"] == 2.0


@pytest.mark.parametrize(
    "state",
    [{"x": 1}, {"running": True, "at": 1.0, "partials": [], "progress": {}, "engine": {}, "alarms": [], "peer": []}],
)  # fmt: skip
def test_foreign_state_is_left_out(state: dict[str, Any]) -> None:
    one = Timeline(**ATTENDED, **CSV)
    one.state = state
    one.begin()
    one.says(b"a,1\n")
    assert "begins anew" in one.notes() and one.wakes()["rows"] == 1


def test_largest_state_is_kept() -> None:
    """All groups, windows, messages and beginnings of lines at once."""
    one = Timeline(
        Compute,
        MAX_SESSIONS,
        **ATTENDED,
        **CSV,
        group_by="sensor",
        groups=62,
        window={"rows": 16, "kind": "sliding"},
        emit={"to": "device", "rows": 100, "form": "lines"},
        when="mean > 0",
    )
    random = Random(1)
    values = [random.uniform(-1, 1) * 10.0 ** random.randrange(-300, 300) for _ in range(1100)]
    rows = [f"{'é' * 60}{number % 62},{value!r}\n".encode() for number, value in enumerate(values)]
    for at in range(0, len(rows), 100):
        one.says(b"".join(rows[at : at + 100]))
    for session in range(MAX_SESSIONS):
        one.says(b"x" * 2000, session)
    one.begin()
    result = one.wakes()
    assert result["rows"] == 1100 and result["restarts"] == 1


def test_sessions_by_port() -> None:
    settings = Compute.settings({**ATTENDED, **CSV})
    assert Compute.wants(settings, flow(7001)) and not Compute.wants(settings, flow(80))
    assert not Compute.wants(settings, flow(7001, 17))
    one = Timeline(**ATTENDED, **CSV)
    assert one.app.received(99, b"a,1\n", now=0.0) == [] == one.app.closed(99, 0, now=0.0)
    assert AppSession(0, flow()).whole


@pytest.mark.parametrize(
    "change, key",
    [
        ({"ports": None}, "ports"),
        ({"ports": [0]}, "ports"),
        ({"listen": {}}, "listen.port"),
        ({"listen": {"port": 0}}, "listen.port"),
        ({"listen": {"port": 1, "protocol": "sctp"}}, "listen.protocol"),
        ({"listen": {"port": 1, "x": 1}}, "listen.x"),
        ({"listen": 5}, "listen"),
        ({"format": "xml"}, "format"),
        ({"columns": None}, "columns"),
        ({"columns": ["a", "a"]}, "columns"),
        ({"columns": ["a(b)", "celsius"]}, "columns"),
        ({"separator": '"'}, "separator"),
        ({"separator": ",,"}, "separator"),
        ({"values": None}, "values"),
        ({"values": ["volt"]}, "values"),
        ({"values": "celsius"}, "values"),
        ({"group_by": "volt"}, "group_by"),
        ({"groups": 65}, "groups"),
        ({"operations": ["median"]}, "operations"),
        ({"window": {}}, "window.rows"),
        ({"window": {"rows": 1, "seconds": 1}}, "window.rows"),
        ({"window": {"rows": 1001, "kind": "sliding"}}, "window.rows"),
        ({"window": {"rows": True}}, "window.rows"),
        ({"window": {"seconds": 0}}, "window.seconds"),
        ({"window": {"rows": 1, "kind": "hopping"}}, "window.kind"),
        ({"when": "mean >"}, "when"),
        ({"when": "median > 3"}, "when"),
        ({"when": 3}, "when"),
        ({"again": "mean < 3"}, "again"),
        ({"until": {"rows": 0}}, "until.rows"),
        ({"until": {"mark": ""}}, "until.mark"),
        ({"until": {"minutes": 1}}, "until.minutes"),
        ({"on_error": "stop"}, "on_error"),
        ({"first_line": "x"}, "first_line"),
        ({"emit": {}}, "emit.to"),
        ({"emit": {"to": "somebody"}}, "emit.to"),
        ({"emit": {"to": "a:b:9"}}, "emit.to"),
        ({"emit": {"to": "host:99999"}}, "emit.to"),
        ({"emit": {"to": "host:9"}}, "emit.to"),
        ({"emit": {"to": "device", "form": "xml"}}, "emit.form"),
        ({"emit": {"to": "device", "template": "{median}"}}, "emit.template"),
        ({"emit": {"to": "device", "template": "x", "form": "csv"}}, "emit.template"),
        ({"emit": {"to": "device", "on": ["often"]}}, "emit.on"),
        ({"emit": {"to": "device", "on": ["condition"]}}, "emit.on"),
        ({"emit": {"to": "device", "on": ["window"]}}, "emit.on"),
        ({"valeus": 1}, "valeus"),
        ({"program": "def step(state, rows): pass"}, "program"),
    ],
)
def test_wrong_settings_name_their_key(change: dict[str, JSON], key: str) -> None:
    table = {key: value for key, value in {**ATTENDED, **CSV, **change}.items() if value is not None}
    with pytest.raises(SettingError) as caught:
        Compute.settings(table)
    assert caught.value.key == key


def test_configurations_of_the_page_work() -> None:
    """As they are printed."""
    page = (Path(__file__).parents[3] / "docs" / "apps" / "compute.md").read_text()
    kinds: dict[str, Kind] = {"compute": Compute, "spreadsheet": Spreadsheet}
    orders = [
        tomllib.loads(block)["mobile_node"]["app"][0]
        for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    ]
    assert [order["kind"] for order in orders] == ["compute", "compute", "spreadsheet"]
    for order in orders:
        assert kinds[order["kind"]].settings(order["settings"])
