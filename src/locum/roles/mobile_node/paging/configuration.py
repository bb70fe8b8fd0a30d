"""The part of a device's paging information that its configuration has. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from locum.roles.action_values.addresses import Addr
from locum.wire.control.paging.entry import Entry
from locum.wire.control.paging.rules import AgentRule, PageAction, PageRule

LAST_CONFIGURED = 0x3FFF
"""The highest identifier of a rule or an entry of the configuration; those of wishes are above."""


@dataclass(frozen=True, slots=True)
class PagingConfiguration:
    """Page rules, entries of the event table, and information for it.

    `otherwise` is for packets that match no rule; `agent` is its agent, if it leads to one other than the device's own.
    """

    rules: tuple[PageRule, ...] = ()
    otherwise: PageAction = PageAction.AGENT
    agent: Addr | None = None
    entries: tuple[Entry, ...] = ()
    information: Mapping[str, object] = field(default_factory=dict)
    agent_rules: tuple[AgentRule, ...] = ()
    offset: int | None = None  # minutes that the device's clock is ahead of UTC; None: as this host says
    peers: frozenset[Addr] | None = None  # nodes with which there is an association; None: any


NO_PAGING = PagingConfiguration()
