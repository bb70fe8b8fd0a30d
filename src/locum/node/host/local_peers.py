"""Sessions whose peer is on the stand-in's own host (a home server that is the stand-in, too).

A host's packets to a home address leave it, for the device has to be reached (see `receive_for` of the host's network).
The packets of a session that lives here must not: a rule for each such flow leads them to the socket. It must not know
why a session lives here.
"""

from collections.abc import Collection

from locum.node.config.settings import Address
from locum.node.host.link_watch import LinkWatch
from locum.node.host.network import HostNetwork
from locum.wire.control import Flow


class LocalPeers:
    """The rules of one host."""

    def __init__(self, network: HostNetwork, watch: LinkWatch) -> None:
        self._network, self._watch = network, watch

    def is_local(self, address: Address) -> bool:
        """True if the address is this host's."""
        return self._watch.is_local(address)

    async def lead_here(self, flows: Collection[Flow]) -> None:
        """Lead packets of these flows' peers to the home address to the sockets here. Raises OSError."""
        for flow in flows:
            await self._network.lead_here(flow)

    async def lead_away(self, flows: Collection[Flow]) -> None:
        """It goes to the device, as everything else. Raises OSError."""
        for flow in flows:
            await self._network.lead_away(flow)
