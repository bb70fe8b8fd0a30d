"""Room of the data plane for a home agent's entries and an access node's filters, and the places that they take there.

Counts only: a registration that would need more than there is gets a refusal before anything is promised (RFC 5944
section 3.4, code 130). The data plane has the same limits; here they come with the configuration.
"""

from collections.abc import Iterable
from typing import Final

from locum.roles.action_values.forwarding_order import HomeEntries
from locum.wire.values import value

# Rules, and tunnels of rules, that fit in a small entry; an entry with more of either takes a large one.
SMALL_RULES: Final = 8
SMALL_TUNNELS: Final = 8


@value
class Places:
    """Numbers of entries by table: those that something takes, or the most that there may be."""

    bindings: int = 0
    extended: int = 0  # bindings with a second tunnel, a peer or weights
    ruled: int = 0  # home addresses with flow rules
    small_rules: int = 0  # those whose rules fit in a small entry
    large_rules: int = 0  # those with more
    rule_counters: int = 0  # one for each rule, and one a home address for packets that no rule takes
    acceptances: int = 0
    translations: int = 0


@value
class FilterPlaces:
    """Numbers of places by table: those that filters take, or the most that there may be."""

    large: int = 0  # filters that do not fit in a small entry
    counters: int = 0  # one for each rule, and one a filter for packets that no rule takes


# More than one home address can take of any kind: with so much left, nothing has to be counted in advance.
_AMPLE: Final = 512
_TABLES = tuple(Places.__dataclass_fields__)


def places(found: HomeEntries) -> Places:
    """The places that the entries of one home address take."""
    entry = found.entry
    if entry is None:
        return Places(acceptances=len(found.accepted), translations=len(found.translations))
    extended = entry.peer is not None or len(entry.tunnels) > 1 or bool(entry.weights)
    small = large = counters = 0
    if entry.rules:
        tunnels = {candidate.tunnel for rule in entry.rules for candidate in rule.candidates}
        if len(entry.rules) <= SMALL_RULES and len(tunnels) <= SMALL_TUNNELS:
            small = 1
        else:
            large = 1
        counters = 1 + len(entry.rules)
    return Places(
        1, extended, small + large, small, large, counters, len(found.accepted), len(found.translations)
    )


def _plain(found: HomeEntries) -> bool:
    """True for the common entries, which take one binding and one acceptance."""
    entry = found.entry
    return (
        entry is not None
        and not entry.rules
        and entry.peer is None
        and len(entry.tunnels) == 1
        and len(found.accepted) == 1
        and not found.translations
    )


class Occupancy:
    """The places that a home agent's entries take now; `room` has the most of each, None: without bounds."""

    def __init__(self, room: Places | None) -> None:
        self._room = room
        self._taken = dict.fromkeys(_TABLES, 0)
        self.ample = self._is_ample()  # any one home address fits

    def _is_ample(self) -> bool:
        room = self._room
        return room is None or all(getattr(room, table) - self._taken[table] >= _AMPLE for table in _TABLES)

    def admits(self, changes: Iterable[tuple[HomeEntries, HomeEntries]]) -> bool:
        """True if there is room for these changes, each from its first entries to its second.

        A change that takes no more places of any kind is always admitted.
        """
        if self._room is None:
            return True
        more = dict.fromkeys(_TABLES, 0)
        for before, after in changes:
            if _plain(before) and _plain(after):
                continue
            old, new = places(before), places(after)
            for table in _TABLES:
                more[table] += getattr(new, table) - getattr(old, table)
        return all(
            added <= 0 or self._taken[table] + added <= getattr(self._room, table)
            for table, added in more.items()
        )

    def changed(self, before: HomeEntries, after: HomeEntries) -> None:
        """Count a change that is made."""
        if self._room is None or (_plain(before) and _plain(after)):
            return
        old, new = places(before), places(after)
        for table in _TABLES:
            self._taken[table] += getattr(new, table) - getattr(old, table)
        self.ample = self._is_ample()
