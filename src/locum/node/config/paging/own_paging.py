"""The tables of a device about paging: [mobile_node.paging], [[mobile_node.page_rule]], agent_rule and event."""

from locum.node.config.paging.event_table import entries, information
from locum.node.config.rule_table import selectors
from locum.node.config.toml_table import Table
from locum.roles.mobile_node.paging.configuration import LAST_CONFIGURED, PagingConfiguration
from locum.wire.control.paging.entry import MINUTES
from locum.wire.control.paging.rules import (
    MAX_PRIORITY,
    OTHERWISE_ACTIONS,
    RULE_ACTIONS,
    Address,
    AgentRule,
    PageAction,
    PageRule,
)
from locum.wire.control.paging.status import MAX_ITEMS
from locum.wire.traffic_selector import TrafficSelector

_ACTIONS = {action.name.lower(): action for action in RULE_ACTIONS}
_OTHERWISE = {action.name.lower(): action for action in OTHERWISE_ACTIONS}


def own_paging(table: Table) -> PagingConfiguration:
    """All of them. Raises ConfigError."""
    rules, led = _page_rules(table.tables("page_rule")), agent_rules(table.tables("agent_rule"))
    events = entries(table.tables("event"))
    below = table.table("paging")
    if below is None:
        return PagingConfiguration(rules, entries=events, agent_rules=led)
    otherwise = _OTHERWISE[below.choice("otherwise", tuple(_OTHERWISE), "agent")]
    found = PagingConfiguration(
        rules,
        otherwise,
        _agent(below, otherwise is PageAction.AGENT, 'otherwise = "agent"'),
        events,
        information(below.table("information")),
        led,
        _offset(below),
    )
    below.close()
    if found.information and not found.entries:
        raise below.error(
            "information", "is for the conditions of [[mobile_node.event]], of which there is none"
        )
    return found


def _offset(table: Table) -> int | None:
    """Minutes of `utc_offset` = "+02:00"; "host" (the default): as this host says."""
    text = table.string("utc_offset", "host")
    if text == "host":
        return None
    sign, hours, colon, minutes = text[:1], text[1:3], text[3:4], text[4:]
    if sign not in ("+", "-") or colon != ":" or not (hours + minutes).isdecimal() or len(text) != 6:
        raise table.error("utc_offset", f'{text!r} is neither "host" nor an offset such as "+02:00"')
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > MINUTES:
        raise table.error("utc_offset", f"{text!r} is more than a day, or has more than 59 minutes")
    return found if sign == "+" else -found


def _page_rules(tables: tuple[Table, ...]) -> tuple[PageRule, ...]:
    found: list[PageRule] = []
    for table in tables:
        identifier, priority, packets = _rule(table, {rule.identifier for rule in found})
        action = _ACTIONS[table.choice("action", tuple(_ACTIONS), "page")]
        agent = _agent(table, action is PageAction.AGENT, 'action = "agent"')
        table.close()
        found.append(PageRule(identifier, priority, packets, action, agent))
    _check_number(tables, "page_rule")
    return tuple(found)


def agent_rules(tables: tuple[Table, ...]) -> tuple[AgentRule, ...]:
    """All tables agent_rule. Raises ConfigError."""
    found: list[AgentRule] = []
    for table in tables:
        identifier, priority, packets = _rule(table, {rule.identifier for rule in found})
        agent = table.optional("agent")
        table.close()
        found.append(AgentRule(identifier, priority, packets, agent))
    _check_number(tables, "agent_rule")
    return tuple(found)


def _rule(table: Table, taken: set[int]) -> tuple[int, int, tuple[TrafficSelector, ...]]:
    free = next(number for number in range(1, LAST_CONFIGURED + 1) if number not in taken)
    identifier = table.integer("id", free, least=1, most=LAST_CONFIGURED)
    if identifier in taken:
        raise table.error("id", f"{identifier} is that of another table")
    return identifier, table.integer("priority", least=0, most=MAX_PRIORITY), selectors(table)


def _agent(table: Table, leads_there: bool, needed: str) -> Address | None:
    agent = table.optional("agent")
    if agent is not None and not leads_there:
        raise table.error("agent", f"is for {needed}")
    return agent


def _check_number(tables: tuple[Table, ...], key: str) -> None:
    if len(tables) > MAX_ITEMS:
        raise tables[MAX_ITEMS].error(None, f"there are at most {MAX_ITEMS} tables {key}")
