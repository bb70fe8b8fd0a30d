"""Filters that the configuration has for visitors of an access node (R20), while their packets are delivered there."""

from collections.abc import Iterable
from dataclasses import replace

from locum.roles.flow_actions import Filter
from locum.roles.forwarding import Forwarding
from locum.roles.visitor_list import Adjust, Wanted


def policed(filters: Iterable[Filter]) -> Adjust:
    """Adds each home address's filters; what an adjustment says that comes later, stands."""
    configured = tuple(filters)

    def adjust(wanted: Wanted) -> Forwarding:
        served = {home_address for _, home_address, _ in wanted.forwarding.acceptances}
        found = {(each.home_address, each.place): each for each in configured if each.home_address in served}
        if not found:
            return wanted.forwarding
        return replace(wanted.forwarding, filters={**found, **wanted.forwarding.filters})

    return adjust
