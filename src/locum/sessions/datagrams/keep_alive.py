"""The rules by which a stand-in repeats the last datagram of a sleeping program. Values only."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.datagram_flows import UDP
from locum.wire.control import Flow

MOST_RULES = 16


@dataclass(frozen=True, slots=True)
class KeepAliveRule:
    """Flows to this UDP port of a peer (`peer` None: of any) have their last datagram repeated every `seconds`."""

    port: int
    seconds: int
    peer: IPv4Address | IPv6Address | None = None
    discard_answers: bool = False

    def takes(self, flow: Flow) -> bool:
        """True if the rule matches this flow."""
        return (
            flow.protocol == UDP
            and flow.peer_port == self.port
            and (self.peer is None or self.peer == flow.peer)
        )
