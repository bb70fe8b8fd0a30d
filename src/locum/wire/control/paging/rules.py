"""Rules of the first (1204) and second (1208) paging information, as CBOR by paging.cddl. The effect is the home agent's."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Protocol, TypeAlias, TypeVar

from locum.wire import cbor
from locum.wire.control.paging.status import MAX_ITEM, MAX_ITEMS
from locum.wire.control.selectors import selector_from_cbor, selector_to_cbor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import TrafficSelector

Address: TypeAlias = IPv4Address | IPv6Address

MAX_HOMES = 8
"""Home addresses of one device in one message."""
MAX_PRIORITY = 0xFFFF
MAX_SELECTORS = 2
"""One of each address family."""
MAX_TIME = (1 << 53) - 1
"""Milliseconds since 1970 that every decoder holds exactly."""
MAX_RULES_BODY = MAX_ITEMS * 256 + 1024  # bytes: a rule has at most two selectors of 96 bytes


class PageAction(IntEnum):
    """Treatment of a packet to a sleeping device."""

    PAGE = 1  # page the device; the packet waits until it is awake. Only in rules
    AGENT = 2  # to an application agent
    DROP = 3
    HOLD = 4  # it waits until the device is awake, without a page
    FORWARD = 5  # as if the device were awake. Only for packets that match no rule


RULE_ACTIONS = (PageAction.PAGE, PageAction.AGENT, PageAction.DROP, PageAction.HOLD)
OTHERWISE_ACTIONS = (PageAction.AGENT, PageAction.DROP, PageAction.HOLD, PageAction.FORWARD)


class Numbered(Protocol):
    """Rule or entry with an identifier."""

    @property
    def identifier(self) -> int:
        """Unique in its message."""


Item = TypeVar("Item", bound=Numbered)


@dataclass(frozen=True, slots=True)
class PageRule:
    """Rule of the first paging information. The lowest priority is tried first."""

    identifier: int  # 1 to MAX_ITEM
    priority: int  # 0 to MAX_PRIORITY
    selectors: tuple[TrafficSelector, ...]  # 1 or 2
    action: PageAction
    agent: Address | None = None  # with AGENT: a stand-in; None: the device's own

    def to_map(self) -> dict[int, object]:
        """The CDDL rule `page-rule`."""
        return _to_map(self) | {3: int(self.action)}

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "PageRule":
        """Raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, field)
        identifier, priority, selectors, agent = _read(reader)
        action = PageAction(reader.integer(3, "action", 1, max(RULE_ACTIONS)))
        reader.done()
        if agent is not None and action is not PageAction.AGENT:
            raise WireError(f"{field}.agent", 0, "not-to-an-agent")
        return cls(identifier, priority, selectors, action, agent)


@dataclass(frozen=True, slots=True)
class AgentRule:
    """Rule of the second paging information: packets that go to an agent."""

    identifier: int
    priority: int
    selectors: tuple[TrafficSelector, ...]
    agent: Address | None = None  # None: the sender itself

    def to_map(self) -> dict[int, object]:
        """The CDDL rule `agent-rule`."""
        return _to_map(self)

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "AgentRule":
        """Raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, field)
        found = cls(*_read(reader))
        reader.done()
        return found


def _to_map(rule: PageRule | AgentRule) -> dict[int, object]:
    selectors = [selector_to_cbor(selector) for selector in rule.selectors]
    body: dict[int, object] = {0: rule.identifier, 1: rule.priority, 2: selectors}
    return body if rule.agent is None else body | {4: rule.agent.packed}


def _read(reader: cbor.Reader) -> tuple[int, int, tuple[TrafficSelector, ...], Address | None]:
    selectors = reader.array(2, "selectors", MAX_SELECTORS)
    if not selectors:
        raise WireError(f"{reader.field}.selectors", 0, "range")
    return (
        reader.integer(0, "identifier", 1, MAX_ITEM),
        reader.integer(1, "priority", 0, MAX_PRIORITY),
        tuple(selector_from_cbor(item, f"{reader.field}.selector") for item in selectors),
        None if reader.absent(4) else reader.address(4, "agent"),
    )


def numbered(items: list[object], field: str, from_cbor: Callable[[object, str], Item]) -> tuple[Item, ...]:
    """Rules or entries, each with an identifier of its own. Raises WireError."""
    found = tuple(from_cbor(item, field) for item in items)
    if len({item.identifier for item in found}) != len(found):
        raise WireError(field, 0, "repeated")
    return found


def home_addresses(reader: cbor.Reader, key: int) -> tuple[Address, ...]:
    """1 to MAX_HOMES different home addresses. Raises WireError."""
    field = f"{reader.field}.home-addresses"
    homes = tuple(cbor.address(home, field) for home in reader.array(key, "home-addresses", MAX_HOMES))
    if not homes:
        raise WireError(field, 0, "range")
    if len(set(homes)) != len(homes):
        raise WireError(field, 0, "repeated")
    return homes
