"""Wishes of a device to be woken (`locum wake-on`): values, rows, and the rules and entries that follow from each.

A wish is for packets, which a page rule of the home agent takes (1204), or for events of proxies, which an entry of the
stand-in's event table matches (1206). This module must not know how either is sent.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.apps import AppOrder
from locum.roles.mobile_node.paging.configuration import LAST_CONFIGURED
from locum.wire import cbor
from locum.wire.control.paging.entry import MAX_PATTERNS, Entry
from locum.wire.control.paging.rules import PageAction, PageRule
from locum.wire.control.selectors import selector_from_cbor, selector_to_cbor
from locum.wire.errors import WireError
from locum.wire.traffic_selector import TrafficSelector

MAX_WISHES = 32
MAX_TEXT = 200
"""Characters of the text of a wish."""
PRIORITY = 200
"""Of the first wish's page rule: after the rules for flows that a stand-in has, so that open connections wake nobody."""
_FIRST = LAST_CONFIGURED + 1
_MOST_ENTRIES = 32  # of one wish
_LONGEST = 8 << 10  # bytes of an entry


@dataclass(frozen=True, slots=True)
class Wish:
    """One wish. `entry` gets its identifier, and with `proxy` the names of the device's proxies of that kind."""

    number: int  # 1 to MAX_WISHES; 0: a free one is given
    text: str  # as it was asked for
    selectors: tuple[TrafficSelector, ...] = ()
    entry: Entry | None = None
    proxy: str = ""
    once: bool = False  # for the next sleep only

    @property
    def rule(self) -> PageRule | None:
        """The rule for its packets."""
        if not self.selectors:
            return None
        return PageRule(_FIRST + self.number, PRIORITY + self.number, self.selectors, PageAction.PAGE)

    def entries(self, apps: Iterable[AppOrder]) -> tuple[Entry, ...]:
        """The entries for its events; none where the device has no proxy that could emit them."""
        entry = self.entry
        if entry is None:
            return ()
        patterns = entry.patterns
        if self.proxy:
            names = [app.name for app in apps if app.kind == self.proxy]
            patterns = tuple(replace(pattern, app=name) for name in names for pattern in patterns)
        first = _FIRST + _MOST_ENTRIES * self.number
        return tuple(
            replace(entry, identifier=first + place, patterns=patterns[start : start + MAX_PATTERNS])
            for place, start in enumerate(range(0, len(patterns), MAX_PATTERNS))
        )

    def owns(self, item: int) -> bool:
        """True if a rule or an entry with this identifier is of this wish."""
        first = _FIRST + _MOST_ENTRIES * self.number
        return item == _FIRST + self.number or first <= item < first + _MOST_ENTRIES

    def to_row(self) -> Mapping[str, JSON]:
        """The row of the table "wish"."""
        selectors = [selector_to_cbor(selector) for selector in self.selectors]
        return {
            "text": self.text,
            "selectors": cbor.encode(selectors).hex(),
            "entry": "" if self.entry is None else cbor.encode(self.entry.to_map()).hex(),
            "proxy": self.proxy,
            "once": self.once,
        }

    @classmethod
    def from_row(cls, number: int, row: Mapping[str, JSON]) -> "Wish":
        """The wish in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        entry, once = str(row["entry"]), row["once"]
        if not 0 < number <= MAX_WISHES or not isinstance(once, bool):
            raise ValueError("a wish has a number, and is for one sleep or for all")
        try:
            selectors = cbor.array(_decoded(str(row["selectors"])), "selectors", 2)
            return cls(
                number,
                str(row["text"]),
                tuple(selector_from_cbor(selector, "selector") for selector in selectors),
                Entry.from_cbor(_decoded(entry), "entry") if entry else None,
                str(row["proxy"]),
                once,
            )
        except WireError as problem:
            raise ValueError(str(problem)) from None


def _decoded(text: str) -> object:
    return cbor.decode(bytes.fromhex(text), limit=_LONGEST, field="row")
