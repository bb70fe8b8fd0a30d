"""Hypothesis strategies for the messages of paging: every value they give can be encoded."""

from dataclasses import replace

from hypothesis import strategies as st

from locum.wire.control.context import ContextBlock
from locum.wire.control.paging.agent_rules import AgentRules1208
from locum.wire.control.paging.cause import ApplicationEvent, CommandCause, EventCause, PacketCause
from locum.wire.control.paging.direct_page import (
    Decision,
    DirectCall,
    DirectDecision,
    Directions,
    DirectPage1172A,
    LeftOut,
)
from locum.wire.control.paging.entry import (
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Limits,
    Operator,
    Pattern,
)
from locum.wire.control.paging.event_table import EventTable1206
from locum.wire.control.paging.event_table import Operation as TableOperation
from locum.wire.control.paging.location import Location1212, LocationAnswer, LocationQuery
from locum.wire.control.paging.outcome import AnsweredBy, Outcome, PageAnswer
from locum.wire.control.paging.page import Page1170
from locum.wire.control.paging.page_request import Order, PageRequest1172
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204
from locum.wire.control.paging.provision import Allocation, Pointer, Provision
from locum.wire.control.paging.redirect import Redirect1210, ToAgent, ToDevice, ToPaging
from locum.wire.control.paging.rules import OTHERWISE_ACTIONS, AgentRule, PageAction, PageRule
from locum.wire.control.paging.status import ItemStatus, PagingStatus, StatusAnswer
from locum.wire.control.paging.way import Way
from tests.wire.strategies import addresses, configuration, flows, selectors, u16, u32

pages = st.binary(min_size=8, max_size=8)
names = st.text(min_size=1, max_size=12)
seconds = st.integers(1, 3600)
times = st.integers(0, (1 << 53) - 1)
lifetimes = st.integers(0, 30 * 86400)
identifiers = st.integers(1, 0xFFFF)
homes = st.lists(addresses, min_size=1, max_size=3, unique=True).map(tuple)


@st.composite
def _slotted(draw: st.DrawFn) -> Way:
    cycle = draw(st.integers(1, 86_400_000))
    offset, length = draw(st.integers(0, cycle - 1)), draw(st.integers(1, cycle))
    return Way(draw(names), draw(st.binary(max_size=8)), cycle, offset, length)


ways = st.none() | st.builds(Way, names, st.binary(max_size=32)) | _slotted()
causes = st.one_of(
    st.builds(PacketCause, identifiers, flows, st.binary(max_size=128)),
    st.builds(EventCause, names, names),
    st.just(CommandCause()),
)
events = st.builds(ApplicationEvent, names, names, configuration)
blocks = st.builds(ContextBlock, st.integers(1, 255), u32, st.binary(max_size=20))
profiles = st.lists(blocks, max_size=3, unique_by=lambda block: block.kind).map(tuple)
allocations = st.none() | st.builds(Allocation, addresses, addresses)
provisions = st.builds(Provision, profiles, st.none(), allocations) | st.builds(
    Provision, st.just(()), st.builds(Pointer, addresses, names), allocations
)
pages1170 = st.builds(Page1170, pages, addresses, causes, seconds, ways, provisions)
orders = st.none() | st.sampled_from(Order)
requests1172 = st.builds(PageRequest1172, pages, addresses, events, orders)
sealed = st.binary(min_size=1, max_size=60)
direct_pages = st.builds(DirectPage1172A, pages, addresses, seconds, sealed, ways, provisions)
small = st.dictionaries(st.text(max_size=8), st.integers(-9, 9) | st.text(max_size=8), max_size=3)
direct_calls = st.builds(
    DirectCall,
    st.builds(ApplicationEvent, names, names, small),
    identifiers,
    st.integers(1, 1 << 63),
    st.sampled_from(LeftOut),
    small,
)
answers = st.builds(
    PageAnswer,
    pages,
    st.sampled_from(Outcome),
    st.none() | st.sampled_from(AnsweredBy),
    st.text(max_size=20),
)

of_a_rule = st.lists(selectors, min_size=1, max_size=2).map(tuple)


def _page_rule(rule: PageRule) -> PageRule:
    return rule if rule.action is PageAction.AGENT else replace(rule, agent=None)


page_rules = st.builds(
    PageRule,
    identifiers,
    u16,
    of_a_rule,
    st.sampled_from(PageAction).filter(lambda action: action is not PageAction.FORWARD),
    st.none() | addresses,
).map(_page_rule)
agent_rules = st.builds(AgentRule, identifiers, u16, of_a_rule, st.none() | addresses)


def _page_rules(value: PageRules1204) -> PageRules1204:
    return value if value.otherwise is PageAction.AGENT else replace(value, agent=None)


some_page_rules = st.lists(page_rules, max_size=3, unique_by=lambda rule: rule.identifier).map(tuple)
some_agent_rules = st.lists(agent_rules, max_size=3, unique_by=lambda rule: rule.identifier).map(tuple)
messages1204 = st.builds(
    PageRules1204,
    homes,
    some_page_rules,
    st.sampled_from(OTHERWISE_ACTIONS),
    lifetimes,
    st.sampled_from(DeviceState),
    times,
    ways,
    st.none() | addresses,
).map(_page_rules)
messages1208 = st.builds(AgentRules1208, homes, some_agent_rules, lifetimes, times)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
)
conditions = st.builds(Condition, names, st.sampled_from(Operator), scalars) | st.builds(
    Condition, names, st.sampled_from(Operator), names, st.just(True)
)
patterns = st.builds(Pattern, names, names, st.lists(conditions, max_size=2).map(tuple))
actions = st.one_of(
    st.builds(EntryAction, st.just(ActionKind.PAGE), orders),
    st.just(EntryAction(ActionKind.PAGE_DIRECT)),
    st.just(EntryAction(ActionKind.STORE)),
    st.builds(EntryAction, st.just(ActionKind.TELL), st.none(), names),
)
minutes = st.integers(0, 1439)
quiet_hours = st.tuples(minutes, minutes).filter(lambda hours: hours[0] != hours[1])
limits = st.builds(
    Limits, st.integers(0, 604800), st.lists(quiet_hours, max_size=2).map(tuple), st.booleans()
)
entries = st.builds(
    Entry,
    identifiers,
    st.lists(patterns, min_size=1, max_size=2).map(tuple),
    st.lists(actions, min_size=1, max_size=3, unique_by=lambda action: action.kind).map(tuple),
    st.none() | st.integers(1, 604800),
    limits,
    st.text(max_size=12),
)
some_entries = st.lists(entries, max_size=2, unique_by=lambda entry: entry.identifier).map(tuple)
information = st.dictionaries(names, scalars, max_size=3)
changes1206 = st.builds(
    EventTable1206,
    homes,
    st.sampled_from((TableOperation.REPLACE, TableOperation.PUT)),
    times,
    some_entries,
    st.just(()),
    information,
    st.integers(-1440, 1440),
    some_agent_rules,
)
removals1206 = st.builds(
    EventTable1206,
    homes,
    st.just(TableOperation.REMOVE),
    times,
    removed=st.lists(identifiers, max_size=3).map(tuple),
)
directions = st.builds(Directions, some_entries, information, some_agent_rules)
decisions = st.builds(DirectDecision, st.sampled_from(Decision), directions)

redirects = st.builds(
    Redirect1210,
    homes,
    st.builds(ToDevice, addresses, addresses) | st.builds(ToAgent, addresses) | st.just(ToPaging()),
    times,
    st.none() | pages,
    st.none() | addresses,
)
locations = st.builds(
    Location1212,
    homes,
    lifetimes,
    times,
    st.text(max_size=12),
    st.lists(names, max_size=3, unique=True).map(tuple),
    st.none() | addresses,
    st.none() | addresses,
    ways,
    st.sampled_from(DeviceState),
)
queries = st.one_of(
    st.builds(LocationQuery, addresses),
    st.builds(LocationQuery, node_id=names),
    st.builds(LocationQuery, uri=names),
)
found = st.builds(LocationAnswer, st.sampled_from(PagingStatus), st.lists(locations, max_size=3).map(tuple))
statuses = st.builds(
    StatusAnswer,
    st.sampled_from(PagingStatus),
    st.text(max_size=12),
    st.lists(
        st.builds(ItemStatus, identifiers, st.sampled_from(PagingStatus), st.text(max_size=12)), max_size=3
    ).map(tuple),
    st.none() | lifetimes,
)
