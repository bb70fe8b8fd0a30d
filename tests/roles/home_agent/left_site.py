"""A home agent, and those who leave rules there (1204, 1208)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import OTHERWISE_RULE, RuleVerdict
from locum.roles.home_agent.binding import Mobile
from locum.wire.control.paging.agent_rules import AgentRules1208, encode_1208
from locum.wire.control.paging.page_rules import DeviceState, PageRules1204, encode_1204
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule
from locum.wire.control.paging.status import (
    StatusAnswer,
    decode_status_answer,
)
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.homeworld import AN1, AN2, HOA, HOA6, MOBILE, ONE, Home

BRIEF, HOUR = 5, 3600
HOMES: tuple[Addr, ...] = (HOA, HOA6)
NOBODY: Addr = AN2.__class__("10.9.9.9")
PAGE, AGENT, DROP, HOLD, FORWARD = PageAction


def tcp(port: int) -> Ipv4Selector:
    return Ipv4Selector(protocol=(6, 6), destination_port=(port, port))


def page_rule(
    item: int,
    action: PageAction = PAGE,
    port: int | None = None,
    agent: Addr | None = None,
    priority: int = 10,
) -> PageRule:
    return PageRule(item, priority, (tcp(port or item),), action, agent)


def agent_rule(
    item: int, port: int | None = None, agent: Addr | None = None, priority: int = 20
) -> AgentRule:
    return AgentRule(item, priority, (tcp(port or item),), agent)


SSH, CALL = page_rule(22), page_rule(5060, AGENT)


class Site:
    """A home agent, and those who leave rules there. `sent` of each message is now unless named."""

    def __init__(self, mobile: Mobile = MOBILE, **options: Any) -> None:
        self.home = Home(mobile, **options)
        self.exchange = 0

    def give(self, path: str, body: bytes, peer: Addr, authorised: Sequence[Addr] = HOMES) -> StatusAnswer:
        self.exchange += 1
        asked = a.Asked(self.exchange, path, body, peer, tuple(authorised))
        actions = self.home.role.happened(asked, now=self.home.now)
        stored = [place for place, one in enumerate(actions) if isinstance(one, a.Persist)]
        [answered] = [place for place, one in enumerate(actions) if isinstance(one, a.Answer)]
        assert all(place < answered for place in stored), "a promise is stored before it is given"
        self.home.perform(actions)
        answer = self.home.answers[-1]
        assert answer.exchange == self.exchange
        return decode_status_answer(answer.body)

    @property
    def time(self) -> int:
        return round(self.home.now * 1000)

    def message(self, *rules: PageRule, **changes: Any) -> PageRules1204:
        return replace(PageRules1204(HOMES, rules, AGENT, HOUR, DeviceState.AWAKE, self.time), **changes)

    def device(self, *rules: PageRule, peer: Addr = HOA, **changes: Any) -> StatusAnswer:
        return self.give("1204", encode_1204(self.message(*rules, **changes)), peer)

    def agent(self, *rules: AgentRule, peer: Addr = ONE, **changes: Any) -> StatusAnswer:
        said = replace(AgentRules1208(HOMES, rules, HOUR, self.time), **changes)
        return self.give("1208", encode_1208(said), peer)

    def sleep(self) -> None:
        """The device was at AN1, and its short registration runs out."""
        self.home.device.register(AN1)
        self.home.device.register(AN1, BRIEF)
        self.home.advance(BRIEF + 1)

    def in_force(self, address: Addr = HOA) -> dict[str, RuleVerdict]:
        """Rules in the kernel by owner and the sender's identifier."""
        lines = {line.rule.identifier: line for line in self.home.role.list_rules(HOA)}
        found = {}
        for rule in self.home.flow_rules(address):
            line = lines[rule.identifier]
            found[f"{line.rule.owner} {line.item}"] = rule.verdict
        return found

    def to(self, address: Addr = HOA) -> dict[str, list[Addr]]:
        """Destinations of their packets."""
        lines = {line.rule.identifier: line for line in self.home.role.list_rules(HOA)}
        return {
            f"{lines[identifier].rule.owner} {lines[identifier].item}": ways
            for identifier, ways in self.home.rules(address).items()
        }

    def rest(self, address: Addr = HOA) -> tuple[RuleVerdict, list[Addr]] | None:
        """The rule for packets that nothing names: its action and destinations."""
        for rule in self.home.entry(address).rules:
            if rule.identifier == OTHERWISE_RULE:
                assert rule == self.home.entry(address).rules[-1]
                return rule.verdict, [one.tunnel.destination for one in rule.candidates]
        return None

    def ended(self) -> list[tuple[str | None, Any]]:
        events = [event for event in self.home.events if event.kind == "paging-rules-ended"]
        return [(event.message, event.detail["reason"]) for event in events]
