"""Room of the data plane for filters of visitors: admission before a promise, and a closed way where a filter finds no place.

A profile or a context may bring filters after the registration was accepted. A visitor whose filters are not known yet has
places for the largest ones, so nobody is admitted whose filters would find none. Filters that grow later may find none all
the same: their home address has no forwarding then, rather than forwarding without its filters.
"""

from collections.abc import Callable, Collection, Mapping

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import MAX_RULES, Filter, FilterPlace
from locum.roles.room import SMALL_RULES, FilterPlaces

Filters = Mapping[tuple[Addr, FilterPlace], Filter]


# Filters of one visitor: to it and from it, of its home addresses of both families.
LARGEST = FilterPlaces(4, 4 * (MAX_RULES + 1))


def filter_places(filters: Collection[Filter]) -> FilterPlaces:
    """The places that these filters take."""
    large = sum(len(found.rules) > SMALL_RULES for found in filters)
    return FilterPlaces(large, sum(1 + len({rule.identifier for rule in found.rules}) for found in filters))


class FilterRoom:
    """The places that installed filters take; `most` are there, None: any number."""

    def __init__(self, most: FilterPlaces | None) -> None:
        self._most = most
        self._taken = FilterPlaces()
        self._none_known: Callable[[], int] = lambda: 0

    def expect(self, none_known: Callable[[], int]) -> None:
        """`none_known` counts the visitors whose filters are asked for, and not known yet."""
        self._none_known = none_known

    def admits_visitor(self, visitors: int, coming: int) -> bool:
        """True if one more may register beside so many visitors and so many others that may become some."""
        if self._most is None or self._leaves(visitors + coming + 1):
            return True
        return self._leaves(self._none_known() + coming + 1)

    def admits(self, before: Filters, after: Filters) -> bool:
        """True if filters of one home address fit in the place of others; always, if they take no more."""
        if self._most is None or before == after:
            return True
        old, new = filter_places(before.values()), filter_places(after.values())
        large, counters = new.large - old.large, new.counters - old.counters
        return (large <= 0 or self._taken.large + large <= self._most.large) and (
            counters <= 0 or self._taken.counters + counters <= self._most.counters
        )

    def changed(self, before: Filters, after: Filters) -> None:
        """Count a change that is made."""
        if self._most is None or before == after:
            return
        old, new = filter_places(before.values()), filter_places(after.values())
        self._taken = FilterPlaces(
            self._taken.large + new.large - old.large, self._taken.counters + new.counters - old.counters
        )

    def _leaves(self, visitors: int) -> bool:
        """True if so many visitors with the largest filters fit beside those that are installed."""
        assert self._most is not None
        return (
            self._taken.large + visitors * LARGEST.large <= self._most.large
            and self._taken.counters + visitors * LARGEST.counters <= self._most.counters
        )
