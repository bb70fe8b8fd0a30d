"""Paging information that a device (1204) and its agents (1208) leave at the home agent (P1, P2, P14): values and rows.

Each sender has one set, which its next message replaces as a whole. A set that has ended keeps the time of its last message,
so that an older one does not bring it back. It must not know messages, nor whether a set is permitted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import RuleVerdict, Selector
from locum.roles.actions import Action, Emit, Forget, Persist
from locum.roles.rules import LEFT, selectors_of_row, selectors_overlap, selectors_to_row
from locum.wire.control.paging.status import MAX_ITEMS
from locum.wire.control.paging.way import Way

TABLE: Final = "left"  # the key is the home address, and the address of an agent or "device"
DEVICE_KEY: Final = "device"
OTHERWISE: Final = (RuleVerdict.AGENT, RuleVerdict.DROP, RuleVerdict.HOLD, RuleVerdict.FORWARD)
_DEVICE_NUMBERS: Final = range(LEFT.start, LEFT.start + MAX_ITEMS)
_AGENT_NUMBERS: Final = range(_DEVICE_NUMBERS.stop, LEFT.stop)


@dataclass(frozen=True, slots=True)
class LeftRule:
    """One rule of a set."""

    item: int  # the sender's identifier
    number: int  # the home agent's, of LEFT: unique for the home address
    priority: int
    verdict: RuleVerdict  # PAGE, AGENT, DROP or HOLD
    selectors: tuple[Selector, ...]  # one of each family that the rule is about
    agent: Addr | None = None  # with AGENT: a stand-in; None: the device's own

    def same_packets(self, other: "LeftRule") -> bool:
        """True if both have a selector in common."""
        return not set(self.selectors).isdisjoint(other.selectors)

    def contends(self, other: "LeftRule") -> bool:
        """True if a packet can match both, and no priority decides."""
        return self.priority == other.priority and selectors_overlap(self.selectors, other.selectors)

    def to_row(self) -> JSON:
        """The item of a set's row."""
        return {
            "item": self.item,
            "number": self.number,
            "priority": self.priority,
            "verdict": self.verdict.value,
            "selectors": selectors_to_row(self.selectors),
            "agent": None if self.agent is None else str(self.agent),
        }

    @classmethod
    def from_row(cls, row: JSON) -> "LeftRule":
        """The rule in an item of our own; raises ValueError, KeyError or TypeError for anything else."""
        if not isinstance(row, Mapping):
            raise ValueError("not a rule")
        selectors, agent, number = row["selectors"], row["agent"], _number(row["number"])
        if not isinstance(selectors, list) or number not in LEFT:
            raise ValueError("not a rule that was left")
        return cls(
            _number(row["item"]),
            number,
            _number(row["priority"]),
            RuleVerdict(row["verdict"]),
            selectors_of_row((_number(kind), str(data)) for kind, data in selectors),
            None if agent is None else ip_address(str(agent)),
        )


@dataclass(frozen=True, slots=True)
class LeftSet:
    """The set of one sender: the device, or the agent at `agent`. Without a lifetime it has ended."""

    sent: int  # milliseconds since 1970, of its last message
    digest: str  # of that message: the same one again changes nothing
    agent: Addr | None = None  # its address; None: the device
    rules: tuple[LeftRule, ...] = ()
    lifetime: int = 0  # seconds granted
    expires_at: float = 0.0  # steady seconds
    # The device's alone, as all that follows: for packets that nothing names
    otherwise: RuleVerdict = RuleVerdict.AGENT
    otherwise_agent: Addr | None = None
    asleep: bool = False  # the device has said so, and has not registered in full since
    asleep_at: float | None = None  # steady seconds from which on that holds
    way: Way | None = None  # to reach it while it sleeps

    def ended(self) -> "LeftSet":
        """Only its time and its agent are left."""
        return LeftSet(self.sent, self.digest, self.agent)

    @property
    def key(self) -> str:
        """The last part of its row's key."""
        return DEVICE_KEY if self.agent is None else str(self.agent)

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "left"."""
        way = self.way
        row: dict[str, JSON] = {"sent": self.sent, "digest": self.digest, "lifetime": self.lifetime}
        if not self.lifetime:
            return row
        row |= {"expires_at": self.expires_at, "rules": [rule.to_row() for rule in self.rules]}
        if self.agent is not None:
            return row
        row |= {"otherwise": self.otherwise.value, "asleep": self.asleep}
        if self.asleep_at is not None:
            row["asleep_at"] = self.asleep_at
        if self.otherwise_agent is not None:
            row["otherwise_agent"] = str(self.otherwise_agent)
        if way is not None:
            row["way"] = [way.name, way.link_address.hex(), way.cycle, way.offset, way.length]
        return row

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "LeftSet":
        """The set in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        agent = None if key == DEVICE_KEY else ip_address(key)
        sent, digest, lifetime = _number(row["sent"]), str(row["digest"]), _number(row["lifetime"])
        if not lifetime:
            return cls(sent, digest, agent)
        rules, expires_at = row["rules"], row["expires_at"]
        if not isinstance(rules, list) or not isinstance(expires_at, int | float):
            raise ValueError("not a set of rules")
        found = cls(sent, digest, agent, tuple(map(LeftRule.from_row, rules)), lifetime, float(expires_at))
        if agent is not None:
            return found
        otherwise = RuleVerdict(row["otherwise"])
        if otherwise not in OTHERWISE:
            raise ValueError(f"{otherwise.value} is nothing for the rest")
        named, asleep_at = row.get("otherwise_agent"), row.get("asleep_at")
        if asleep_at is not None and not isinstance(asleep_at, int | float):
            raise ValueError("asleep_at is a time")
        return replace(
            found,
            otherwise=otherwise,
            otherwise_agent=None if named is None else ip_address(str(named)),
            asleep=bool(row["asleep"]),
            asleep_at=asleep_at,
            way=_way(row.get("way")),
        )


@dataclass(frozen=True, slots=True)
class Left:
    """All sets of one device's home addresses: its own, and those of its agents, the oldest first."""

    device: LeftSet | None = None
    agents: tuple[LeftSet, ...] = ()

    @property
    def sets(self) -> tuple[LeftSet, ...]:
        """Every set."""
        return self.agents if self.device is None else (self.device, *self.agents)

    @property
    def asleep(self) -> bool:
        """True if the device sleeps by its own word."""
        return self.device is not None and self.device.asleep

    @property
    def way(self) -> Way | None:
        """The way to reach the device while it sleeps, as it has said."""
        return None if self.device is None else self.device.way

    @property
    def rules(self) -> tuple[LeftRule, ...]:
        """The rules of all sets."""
        return tuple([rule for found in self.sets for rule in found.rules])

    @property
    def in_force(self) -> LeftSet | None:
        """The device's own set, unless it has ended."""
        return self.device if self.device is not None and self.device.lifetime else None

    def of(self, agent: Addr | None) -> LeftSet | None:
        """The set of a sender; None: it has never sent one."""
        return next((found for found in self.sets if found.agent == agent), None)

    def with_set(self, new: LeftSet) -> "Left":
        """With this set in place of its sender's earlier one, and of its age if that has not ended."""
        if new.agent is None:
            return replace(self, device=new)
        before = self.of(new.agent)
        if before is not None and before.lifetime and new.lifetime:
            return replace(self, agents=tuple([new if found is before else found for found in self.agents]))
        return replace(self, agents=(*[found for found in self.agents if found is not before], new))

    def without(self, agent: Addr | None) -> "Left":
        """The set of a sender has ended; the same object where it has none."""
        found = self.of(agent)
        return self if found is None or not found.lifetime else self.with_set(found.ended())

    def expired(self, now: float) -> "Left":
        """Without sets whose lifetime is over; the same object where there are none."""
        left = self
        for found in self.sets:
            if found.lifetime and found.expires_at <= now:
                left = left.without(found.agent)
        return left

    def asleep_by(self, now: float) -> "Left":
        """With the device asleep if the time has come that it has named; the same object where it has not."""
        device = self.device
        if device is None or device.asleep_at is None or device.asleep_at > now:
            return self
        return replace(self, device=replace(device, asleep=True, asleep_at=None))

    def awake(self) -> "Left":
        """The device has registered in full; the same object where it has not said that it sleeps."""
        device = self.device
        if device is None or not (device.asleep or device.asleep_at is not None):
            return self
        return replace(self, device=replace(device, asleep=False, asleep_at=None))

    def numbered(self, agent: Addr | None, rules: Iterable[LeftRule]) -> tuple[LeftRule, ...]:
        """The rules of a sender with numbers: one that is the same as before keeps its own, for its counter goes on."""
        known = self.of(agent)
        before = {} if known is None else {replace(rule, number=0): rule.number for rule in known.rules}
        kept = [replace(rule, number=before.get(replace(rule, number=0), 0)) for rule in rules]
        taken = {rule.number for rule in (*self.rules, *kept)}
        numbers = _DEVICE_NUMBERS if agent is None else _AGENT_NUMBERS
        # Those of rules that leave come last: packets may still be under way with them.
        leaving = [number for number in before.values() if all(rule.number != number for rule in kept)]
        free = iter([*(number for number in numbers if number not in taken), *leaving])
        return tuple([rule if rule.number else replace(rule, number=next(free)) for rule in kept])


NOTHING_LEFT: Final = Left()


def left_changed(home: Addr, before: Left, after: Left, reason: str) -> list[Action]:
    """The rows and events of a change; `reason` is for users, why sets have ended."""
    actions: list[Action] = []
    for now in after.sets:
        was = before.of(now.agent)
        if now is was:
            continue
        actions.append(Persist(TABLE, f"{home} {now.key}", now.to_row()))
        if now.lifetime and (was is None or now.sent != was.sent):
            actions.append(Emit("paging-rules-changed", _message(now), home, None, _detail(now)))
        elif was is not None and was.lifetime and not now.lifetime:
            detail: dict[str, JSON] = {"by": now.key, "rules": len(was.rules), "reason": reason}
            actions.append(Emit("paging-rules-ended", _message(now), home, None, detail))
    return actions


def left_forgotten(home: Addr, left: Left) -> list[Action]:
    """The home address is not served any more."""
    return [Forget(TABLE, f"{home} {found.key}") for found in left.sets]


def _detail(found: LeftSet) -> dict[str, JSON]:
    detail: dict[str, JSON] = {"by": found.key, "rules": len(found.rules), "lifetime": found.lifetime}
    if found.agent is None:
        asleep = found.asleep or found.asleep_at is not None
        detail |= {"otherwise": found.otherwise.value, "state": "asleep" if asleep else "awake"}
    return detail


def _message(found: LeftSet) -> str:
    return "1204" if found.agent is None else "1208"


def _way(row: JSON) -> Way | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 5:
        raise ValueError("not a way")
    name, link_address, cycle, offset, length = row
    return Way(str(name), bytes.fromhex(str(link_address)), _number(cycle), _number(offset), _number(length))


def _number(value: JSON) -> int:
    if not isinstance(value, int):
        raise ValueError(f"{value!r} is not a whole number")
    return value
