"""Rules for connections that go to a stand-in while the device sleeps: they come before the page rules that would take them.

Without them an open connection to a wished port would wake the device (P1). A page rule that names exactly one
connection pages still. This module must not know how rules are sent, nor how connections are found.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Selector
from locum.roles.flow_selectors import flow_selector
from locum.roles.rules import both_families, overlap
from locum.wire.control import Flow
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.paging.status import MAX_ITEMS, PagingStatus, StatusAnswer
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector

FIRST = 0x8000
"""Identifier of the first of these rules; those of the configuration and of wishes are below."""
NO_ROOM = f"a device has at most {MAX_ITEMS} rules"
NO_ROOM_THERE = "the home agent has no room for its rule"
NO_PRIORITY = "nothing comes before a page rule of the priority 0"


class OpenFlows:
    """The connections of one sleep, each with its stand-in. `several`: rules have to say which one."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._flows: dict[Flow, Addr] = {}
        self._items: dict[Flow, int] = {}  # identifiers of rules, the same in each message of a sleep
        self._sent: dict[int, Flow] = {}  # in the last message
        self._most = MAX_ITEMS
        self._refused: dict[Flow, str] = {}
        self._left_out: dict[Flow, str] = {}
        self._reading = _Reading(())

    def clear(self) -> None:
        """A sleep begins, or is over."""
        self._most = MAX_ITEMS
        for known in (self._flows, self._items, self._sent, self._refused, self._left_out):
            known.clear()

    def go(self, flows: Iterable[Flow], stand_in: Addr) -> None:
        """These connections go there. Those that end meanwhile need no change: nothing else has their packets."""
        self._flows |= dict.fromkeys(flows, stand_in)

    def stay(self, flows: Iterable[Flow]) -> None:
        """These connections stay here after all."""
        for flow in flows:
            self._flows.pop(flow, None)

    def before(self, rules: Sequence[PageRule], elsewhere: Mapping[Flow, Addr]) -> tuple[PageRule, ...]:
        """These rules, behind those for connections; `elsewhere` are connections that were given before."""
        first: list[PageRule] = []
        self._sent, self._left_out = {}, {}
        if self._reading.rules != rules:
            self._reading = _Reading(rules)
        room = MAX_ITEMS - len(rules)
        for flow, stand_in in {**elsewhere, **self._flows}.items():
            priority = self._reading.priority(flow)
            if priority is None:
                continue
            if priority < 0:
                self._left_out[flow] = NO_PRIORITY
            elif flow in self._refused:
                self._left_out[flow] = self._refused[flow]
            elif len(first) >= min(room, self._most):
                self._left_out[flow] = NO_ROOM if len(first) >= room else NO_ROOM_THERE
            else:
                item = self._items.setdefault(flow, FIRST + len(self._items))
                self._sent[item] = flow
                agent = stand_in if self._several else None
                first.append(PageRule(item, priority, (flow_selector(flow),), PageAction.AGENT, agent))
        return (*first, *rules)

    def refused(self, answer: StatusAnswer) -> bool:
        """True if the home agent may take the rest without some of these rules, which are left out from now on."""
        if not self._sent:
            return False
        if answer.status is PagingStatus.LIMIT:
            over = len(answer.items) or len(self._sent)
            self._most = max(0, len(self._sent) - over)
            return True
        named = {self._sent[item.item]: item for item in answer.items if item.item in self._sent}
        for flow, item in named.items():
            said = item.text or item.status.name.lower().replace("_", " ")
            self._refused[flow] = f"the home agent has refused its rule: {said}"
        return bool(named)

    @property
    def problems(self) -> list[str]:
        """A sentence for each reason why connections have no rule, for users."""
        by: dict[str, list[Flow]] = {}
        for flow, reason in self._left_out.items():
            by.setdefault(reason, []).append(flow)
        return [f"{_counted(flows)} may wake the device: {reason}" for reason, flows in by.items()]


def _counted(flows: Sequence[Flow]) -> str:
    if len(flows) == 1:
        return f"the open connection {flows[0]}"
    return f"{len(flows)} open connections, such as {flows[0]},"


class _Reading:
    """Rules as the home agent reads them, in their order; each connection is compared with them once."""

    def __init__(self, rules: Sequence[PageRule]) -> None:
        self.rules = rules
        self._ordered = [
            (rule, selector)
            for rule in sorted(rules, key=lambda rule: rule.priority)
            for selector in _selectors(rule)
        ]
        self._pages = any(rule.action is PageAction.PAGE for rule in rules)
        self._known: dict[Flow, int | None] = {}

    def priority(self, flow: Flow) -> int | None:
        """The last one before a page rule takes packets of the flow; None: none does. Negative: there is no such priority."""
        if not self._pages:
            return None
        if flow not in self._known:
            self._known[flow] = self._compared(flow_selector(flow))
        return self._known[flow]

    def _compared(self, packets: Selector) -> int | None:
        takers: list[tuple[PageRule, Selector]] = []
        for rule, selector in self._ordered:
            if not overlap(selector, packets):
                continue
            takers.append((rule, selector))
            if rule.action is not PageAction.PAGE and _covers(selector, packets):
                break  # no packet gets further
        pages = [(rule, selector) for rule, selector in takers if rule.action is PageAction.PAGE]
        if not pages or any(_names(selector, packets) for _, selector in pages):
            return None
        taken = {rule.priority for rule, _ in takers}
        priority = pages[0][0].priority
        while priority in taken:  # no two rules of one priority may take the same packets
            priority -= 1
        return priority


def _selectors(rule: PageRule) -> list[Selector]:
    """As the home agent reads them: a single one is for both families, if it can be."""
    found = [one for one in rule.selectors if isinstance(one, Ipv4Selector | Ipv6Selector)]
    return list(both_families(found[0])) if len(rule.selectors) == 1 and found else found


def _covers(selector: Selector, packets: Selector) -> bool:
    """True if it takes all of these packets; it takes some."""
    for part in fields(selector):
        wide, narrow = getattr(selector, part.name), getattr(packets, part.name)
        if wide is not None and (narrow is None or wide[0] > narrow[0] or wide[1] < narrow[1]):
            return False
    return True


def _names(selector: Selector, packets: Selector) -> bool:
    """True if it names both addresses and both ports of this one connection."""
    return (selector.source, selector.destination, selector.source_port, selector.destination_port) == (
        packets.source,
        packets.destination,
        packets.source_port,
        packets.destination_port,
    )
