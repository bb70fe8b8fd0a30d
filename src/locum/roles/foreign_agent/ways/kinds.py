"""The table of the kinds of ways, and the ways of one access node by name."""

from collections.abc import Callable, Mapping

from locum.roles.foreign_agent.ways.command import CommandWay
from locum.roles.foreign_agent.ways.link import LinkWay
from locum.roles.foreign_agent.ways.reach import WayKind
from locum.roles.foreign_agent.ways.settings import Kind, WaysConfiguration, WaySettings
from locum.roles.foreign_agent.ways.wake_on_lan import WakeOnLan

KINDS: Mapping[Kind, Callable[[WaySettings, float], WayKind]] = {
    Kind.LINK: LinkWay,
    Kind.WAKE_ON_LAN: WakeOnLan,
    Kind.COMMAND: CommandWay,
}
"""A new kind is a class of the shape of `WayKind`, and a row here."""

WITHOUT_SETTINGS = (Kind.LINK, Kind.WAKE_ON_LAN)
"""Kinds of which every access node has a way, under the kind's own name."""


def ways(configuration: WaysConfiguration) -> dict[str, WayKind]:
    """All ways of an access node by name."""
    settings = {kind.value: WaySettings(kind.value, kind) for kind in WITHOUT_SETTINGS}
    settings |= {way.name: way for way in configuration.ways}
    return {name: KINDS[way.kind](way, configuration.guard) for name, way in settings.items()}
