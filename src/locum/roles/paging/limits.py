"""Bounds on the pages of a device: an outsider who sends packets that match its rules is a load on its battery (P1).

Values and one budget for each device. It must not know a page's course.
"""

from dataclasses import dataclass, field

HOUR = 3600.0


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
