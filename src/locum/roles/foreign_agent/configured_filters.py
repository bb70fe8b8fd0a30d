"""Filters that the configuration has for visitors of an access node (R20), while their packets are delivered there."""

from collections.abc import Collection
from dataclasses import replace

from locum.roles.action_values.flows import Filter
from locum.roles.foreign_agent.visitor_list import Adjust
from locum.roles.forwarding import Forwarding


def with_filters(forwarding: Forwarding, filters: Collection[Filter]) -> Forwarding:
    """Adds the filters of the addresses whose packets are accepted; one that is there already stands."""
    served = {home_address for _, home_address, _ in forwarding.acceptances}
    found = {(entry.home_address, entry.place): entry for entry in filters if entry.home_address in served}
    return replace(forwarding, filters={**found, **forwarding.filters}) if found else forwarding


def policed(filters: Collection[Filter]) -> Adjust:
    """The configured filters, equal for every visitor; a later adjustment takes precedence."""
    return lambda wanted: with_filters(wanted.forwarding, filters)
