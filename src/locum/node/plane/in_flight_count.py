"""Number of a device's packets in a tunnel 620, by the data plane's counters; decides nothing."""

from typing import TYPE_CHECKING

from locum.roles.action_values.contexts import CountInFlight
from locum.roles.action_values.forwarding import Side

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane


def counted(plane: "DataPlane", asked: CountInFlight) -> int:
    """Packets so far, over all home addresses that are asked for."""
    if not asked.incoming:
        return sum(plane.visited_counters(home_address).packets for home_address in asked.home_addresses)
    keys = (
        (asked.peer, home_address, Side.TO_HOME_ADDRESS, False, None) for home_address in asked.home_addresses
    )
    accepted = (plane.state.acceptances.get(key) for key in keys)
    return sum(
        plane.acceptance_counters(acceptance).packets for acceptance in accepted if acceptance is not None
    )
