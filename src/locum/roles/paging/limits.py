"""Bounds on the pages of a device: an outsider who sends packets that match its rules is a load on its battery (P1).

Values and one budget for each device. It must not know a page's course.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

HOUR = 3600.0
MOST_BUDGETS: Final = 65_536
"""Devices whose pages are counted; beyond, full budgets are forgotten, and then the oldest half."""

Device = TypeVar("Device", bound=Hashable)


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Seconds and numbers of pages; `[home_agent.paging]` has the same names."""

    seconds: float = 20.0  # to go on trying until a device that does not answer is given up
    wake_seconds: float = 45.0  # from a device's answer to its registration: below the age of held packets
    per_hour: int = 60  # pages of one device that packets or events cause
    burst: int = 6  # of them at once, after a quiet time
    rule_interval: float = 5.0  # between two pages that one rule causes, from the end of the first


@dataclass(slots=True)
class Budget:
    """Pages that one device may still have now, in parts of one."""

    left: float
    at: float
    rules: dict[int, float] = field(default_factory=dict)  # when the last page of each rule ended

    def wait(self, limits: PageLimits, rule: int | None, now: float) -> float:
        """Seconds until a page with this cause is allowed; 0: now."""
        self.left = min(limits.burst, self.left + (now - self.at) * limits.per_hour / HOUR)
        self.at = now
        wait = 0.0 if self.left >= 1 else (1 - self.left) * HOUR / limits.per_hour
        ended = None if rule is None else self.rules.get(rule)
        return wait if ended is None else max(wait, ended + limits.rule_interval - now)

    def ended(self, limits: PageLimits, rule: int, now: float) -> None:
        """A page of this rule has ended; rules whose interval is over are forgotten."""
        self.rules = {other: at for other, at in self.rules.items() if now < at + limits.rule_interval} | {
            rule: now
        }

    def is_full(self, limits: PageLimits, now: float) -> bool:
        """True if the budget is that of a device without any page."""
        full = self.left + (now - self.at) * limits.per_hour / HOUR >= limits.burst
        return full and all(now >= at + limits.rule_interval for at in self.rules.values())


class Budgets(Generic[Device]):
    """The budgets of all devices, by what names a device. Times are steady seconds."""

    def __init__(self, limits: PageLimits, most: int) -> None:
        self._limits, self._most = limits, most
        self._budgets: dict[Device, Budget] = {}

    def __len__(self) -> int:
        return len(self._budgets)

    def take(self, device: Device, rule: int | None, now: float) -> float:
        """Seconds until the limits allow a page of this device with this cause; 0: now, and it is counted."""
        budget = self._budgets.get(device)
        if budget is None:
            if len(self._budgets) >= self._most:
                self._forget(now)
            budget = self._budgets[device] = Budget(self._limits.burst, now)
        wait = budget.wait(self._limits, rule, now)
        if wait <= 0:
            budget.left -= 1
        return max(wait, 0.0)

    def ended(self, device: Device, rule: int | None, now: float) -> None:
        """A page of this device and rule has ended."""
        if rule is not None and (budget := self._budgets.get(device)) is not None:
            budget.ended(self._limits, rule, now)

    def _forget(self, now: float) -> None:
        """Full ones; if all are in use, the oldest half: their devices begin anew."""
        kept = {it: left for it, left in self._budgets.items() if not left.is_full(self._limits, now)}
        self._budgets = kept if len(kept) < self._most else dict([*kept.items()][self._most // 2 :])
