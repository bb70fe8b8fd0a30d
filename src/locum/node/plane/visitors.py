"""Tells a data plane on which links visitors are served, and how their source addresses are checked."""

from typing import TYPE_CHECKING

from locum.node.config.settings import ForeignAgentSettings, SourceCheck

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane


def serve_visitors(plane: "DataPlane", foreign: ForeignAgentSettings | None) -> None:
    """Serve visitors on the access links of a foreign agent, on none without one."""
    if foreign is None:
        plane.serve_visitors(())
        return
    plane.serve_visitors(
        foreign.links,
        checked=foreign.source_check is not SourceCheck.OFF,
        by_hardware=foreign.source_check is SourceCheck.HARDWARE,
        allowed=foreign.source_networks,
    )
