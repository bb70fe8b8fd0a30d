"""The messages of paging: a vector of each, round trips, the CDDL, and damaged bytes."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from ipaddress import IPv4Network, ip_address
from typing import Any

import pycddl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from locum.wire.control import Flow, cddl
from locum.wire.control.context import ContextBlock
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
from locum.wire.control.paging.cause import ApplicationEvent, PacketCause
from locum.wire.control.paging.entry import (
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Limits,
    Operator,
    Pattern,
)
from locum.wire.control.paging.page_request import Order
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.provision import Allocation, Pointer, Provision
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError
from locum.wire.traffic_selector import Ipv4Selector, address_range
from tests.wire.control.paging import strategies
from tests.wire.strategies import damaged

HOME, NODE, AGENT = ip_address("192.0.2.10"), ip_address("192.0.2.1"), ip_address("192.0.2.7")
PAGE = bytes(range(8))
SSH = Ipv4Selector(destination_port=(22, 22), protocol=(6, 6))
WEB = Ipv4Selector(source=address_range(IPv4Network("198.51.100.0/24")))
RADIO = Way("radio", b"\x02\x00\x00\x00\x00\x01", 320, 40, 10)
MAIL = ApplicationEvent("mail", "arrived", {"from": "boss@example.org"})
ENTRY = Entry(
    7,
    (Pattern("mail", "arr*", (Condition("from", Operator.EQUAL, "boss@example.org"),)),),
    (EntryAction(ActionKind.PAGE, Order.WITH), EntryAction(ActionKind.STORE)),
    limits=Limits(600, ((1320, 360),)),
    name="boss",
)


@dataclass(frozen=True)
class Message:
    """One message: its CDDL rule, its codec and its values."""

    rule: str
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    values: st.SearchStrategy[Any]
    vectors: tuple[tuple[str, object], ...]


MESSAGES = (
    Message(
        "page-1170",
        page.encode_1170,
        page.decode_1170,
        strategies.pages1170,
        (
            (
                "a4 00 480001020304050607 01 44c000020a"
                "02 84 01 05 85 06 44c000020a 16 44c6336401 19d431 4145 03 181e",
                page.Page1170(
                    PAGE, HOME, PacketCause(5, Flow(6, HOME, 22, ip_address("198.51.100.1"), 54321), b"E"), 30
                ),
            ),
        ),
    ),
    Message(
        "page-answer",
        outcome.encode_page_answer,
        outcome.decode_page_answer,
        strategies.answers,
        (
            (
                "a3 00 480001020304050607 01 00 02 02",
                outcome.PageAnswer(PAGE, outcome.Outcome.REACHED, outcome.AnsweredBy.ACCESS_NODE),
            ),
        ),
    ),
    Message(
        "page-request-1172",
        page_request.encode_1172,
        page_request.decode_1172,
        strategies.requests1172,
        (
            (
                "a4 00 480001020304050607 01 44c000020a"
                "02 83 646d61696c 6761727269766564 a1 6466726f6d 70626f7373406578616d706c652e6f7267 03 02",
                page_request.PageRequest1172(PAGE, HOME, MAIL, Order.WITH),
            ),
        ),
    ),
    Message(
        "direct-page-1172a",
        direct_page.encode_1172a,
        direct_page.decode_1172a,
        strategies.direct_pages,
        (
            (
                "a6 00 480001020304050607 01 44c000020a 03 0a"
                "04 85 65726164696f 46020000000001 190140 1828 0a"
                "06 82 44c0000207 61 64 08 43 010203",
                direct_page.DirectPage1172A(
                    PAGE, HOME, 10, b"\x01\x02\x03", RADIO, Provision(pointer=Pointer(AGENT, "d"))
                ),
            ),
        ),
    ),
    Message(
        "direct-answer",
        direct_page.encode_1172a_answer,
        direct_page.decode_1172a_answer,
        strategies.answers,
        (
            (
                "a4 00 480001020304050607 01 00 02 01 08 43 010203",
                outcome.PageAnswer(
                    PAGE, outcome.Outcome.REACHED, outcome.AnsweredBy.MOBILE_NODE, proof=b"\x01\x02\x03"
                ),
            ),
        ),
    ),
    Message(
        "direct-call",
        direct_page.encode_call,
        direct_page.decode_call,
        strategies.direct_calls,
        (
            (
                "a5 00 83 6161 6162 a0 01 07 02 02 03 01 04 a1 6173 01",
                direct_page.DirectCall(ApplicationEvent("a", "b"), 7, 2, direct_page.LeftOut.STATE, {"s": 1}),
            ),
        ),
    ),
    Message(
        "direct-decision",
        direct_page.encode_decision,
        direct_page.decode_decision,
        strategies.decisions,
        (
            (
                "a2 00 01 01 81 a5 00 07"
                "01 81 83 646d61696c 64617272 2a 81 84 6466726f6d 01 70626f7373406578616d706c652e6f7267 f4"
                "02 82 82 01 02 82 03 f6 04 a2 00 190258 01 81 82 190528 190168 05 64626f7373",
                direct_page.DirectDecision(direct_page.Decision.GO_ON, direct_page.Directions((ENTRY,))),
            ),
        ),
    ),
    Message(
        "page-rules-1204",
        page_rules.encode_1204,
        page_rules.decode_1204,
        strategies.messages1204,
        (
            (
                "a6 00 81 44c000020a 01 82"
                "a4 00 01 01 0a 02 81 82 01 47 00880000 0016 06 03 01"
                "a5 00 02 01 14 02 81 82 01 4c c0000000 c6336400 c63364ff 03 02 04 44c0000207"
                "02 03 03 190e10 04 01 05 1903e8",
                page_rules.PageRules1204(
                    (HOME,),
                    (
                        PageRule(1, 10, (SSH,), PageAction.PAGE),
                        PageRule(2, 20, (WEB,), PageAction.AGENT, AGENT),
                    ),
                    PageAction.DROP,
                    3600,
                    DeviceState.ASLEEP,
                    1000,
                ),
            ),
        ),
    ),
    Message(
        "event-table-change",
        event_table.encode_1206,
        event_table.decode_1206,
        strategies.changes1206,
        (
            (
                "a6 00 81 44c000020a 01 01 02 1903e8"
                "03 81 a3 00 01 01 81 83 612a 612a 81 84 6172 04 616c f5 02 81 82 04 6468656c64"
                "05 a1 616c 0c 06 183c",
                event_table.EventTable1206(
                    (HOME,),
                    event_table.Operation.REPLACE,
                    1000,
                    (
                        Entry(
                            1,
                            (Pattern(conditions=(Condition("r", Operator.GREATER, "l", left=True),)),),
                            (EntryAction(ActionKind.TELL, text="held"),),
                        ),
                    ),
                    information={"l": 12},
                    offset=60,
                ),
            ),
        ),
    ),
    Message(
        "event-table-removal",
        event_table.encode_1206,
        event_table.decode_1206,
        strategies.removals1206,
        (
            (
                "a4 00 81 44c000020a 01 03 02 01 04 82 01 02",
                event_table.EventTable1206((HOME,), event_table.Operation.REMOVE, 1, removed=(1, 2)),
            ),
        ),
    ),
    Message(
        "agent-rules-1208",
        agent_rules.encode_1208,
        agent_rules.decode_1208,
        strategies.messages1208,
        (
            (
                "a4 00 81 44c000020a 01 81 a3 00 01 01 0a 02 81 82 01 47 00880000 0016 06 02 1878 03 01",
                agent_rules.AgentRules1208((HOME,), (AgentRule(1, 10, (SSH,)),), 120, 1),
            ),
        ),
    ),
    Message(
        "redirect-1210",
        redirect.encode_1210,
        redirect.decode_1210,
        strategies.redirects,
        (
            (
                "a3 00 81 44c000020a 01 83 01 44c0000201 44c0000201 02 01",
                redirect.Redirect1210((HOME,), redirect.ToDevice(NODE, NODE), 1),
            ),
            (
                "a4 00 81 44c000020a 01 82 02 44c0000207 02 01 03 480001020304050607",
                redirect.Redirect1210((HOME,), redirect.ToAgent(AGENT), 1, PAGE),
            ),
            ("a3 00 81 44c000020a 01 81 03 02 01", redirect.Redirect1210((HOME,), redirect.ToPaging(), 1)),
            (
                "a4 00 81 44c000020a 01 81 03 02 01 04 44c000020a",
                redirect.Redirect1210((HOME,), redirect.ToPaging(), 1, None, HOME),
            ),
        ),
    ),
    Message(
        "location",
        location.encode_1212,
        location.decode_1212,
        strategies.locations,
        (
            (
                "a7 00 81 44c000020a 01 1878 02 01 03 66 6d6e4068612e 04 81 65 7369703a61 05 44c0000201 08 01",
                location.Location1212((HOME,), 120, 1, "mn@ha.", ("sip:a",), NODE, state=DeviceState.ASLEEP),
            ),
        ),
    ),
    Message(
        "location-query",
        location.encode_query,
        location.decode_query,
        strategies.queries,
        (
            ("a1 00 44c000020a", location.LocationQuery(HOME)),
            ("a1 01 626d6e", location.LocationQuery(node_id="mn")),
            ("a1 02 657369703a61", location.LocationQuery(uri="sip:a")),
        ),
    ),
    Message(
        "location-answer",
        location.encode_query_answer,
        location.decode_query_answer,
        strategies.found,
        (
            (
                "a2 00 00 01 81 a3 00 81 44c000020a 01 18 78 02 01",
                location.LocationAnswer(status.PagingStatus.OK, (location.Location1212((HOME,), 120, 1),)),
            ),
        ),
    ),
    Message(
        "status-answer",
        status.encode_status_answer,
        status.decode_status_answer,
        strategies.statuses,
        (
            (
                "a3 00 00 02 81 83 07 08 60 03 1878",
                status.StatusAnswer(
                    status.PagingStatus.OK,
                    items=(status.ItemStatus(7, status.PagingStatus.OVERLAPS),),
                    lifetime=120,
                ),
            ),
        ),
    ),
)
each_message = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.rule)


@cache
def schema(rule: str) -> pycddl.Schema:
    """The schema with that rule first."""
    session = files("locum.sessions").joinpath("session.cddl").read_text()
    return pycddl.Schema(f"tried = {rule}\n{cddl()}\n{session}")


@each_message
def test_vectors(message: Message) -> None:
    for vector, value in message.vectors:
        data = bytes.fromhex(vector)
        assert message.encode(value) == data
        assert message.decode(data) == value
        schema(message.rule).validate_cbor(data)


@each_message
@settings(max_examples=40)
@given(data=st.data())
def test_round_trip_and_cddl(message: Message, data: st.DataObject) -> None:
    value = data.draw(message.values)
    body = message.encode(value)
    assert message.decode(body) == value
    schema(message.rule).validate_cbor(body)


@each_message
@settings(max_examples=40)
@given(data=st.data())
def test_bytes_give_a_value_or_wire_error(message: Message, data: st.DataObject) -> None:
    body = data.draw(st.binary(max_size=60) | damaged(message.values.map(message.encode)))
    with suppress(WireError):
        again = message.encode(message.decode(body))
        assert message.encode(message.decode(again)) == again


def test_profile_travels_in_a_page() -> None:
    provision = Provision((ContextBlock(1, 3, b"\xa0"),), allocation=Allocation(HOME, AGENT))
    sent = page.Page1170(PAGE, HOME, PacketCause(5, Flow(6, HOME, 22, NODE, 9)), 30, RADIO, provision)
    assert page.decode_1170(page.encode_1170(sent)) == sent
