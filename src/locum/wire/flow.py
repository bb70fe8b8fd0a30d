"""A flow: one transport connection between a home address and a correspondent. It must not know any message."""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.errors import WireError


@dataclass(frozen=True, slots=True)
class Flow:
    """A five-tuple seen from the home address; both addresses are of one family, ports are in host order."""

    protocol: int  # IP protocol number, 6 is TCP
    local: IPv4Address | IPv6Address  # the home address
    local_port: int
    peer: IPv4Address | IPv6Address  # the correspondent
    peer_port: int

    def __str__(self) -> str:
        """Text form: "tcp 10.0.0.1:5000 > 192.0.2.1:80"."""
        name = {6: "tcp", 17: "udp"}.get(self.protocol, str(self.protocol))
        ends = ((self.local, self.local_port), (self.peer, self.peer_port))
        texts = (f"[{at}]:{port}" if at.version == 6 else f"{at}:{port}" for at, port in ends)
        return f"{name} " + " > ".join(texts)

    def to_cbor(self) -> list[object]:
        """The CDDL rule `flow`."""
        return [self.protocol, self.local.packed, self.local_port, self.peer.packed, self.peer_port]

    @classmethod
    def from_cbor(cls, value: object, field: str = "flow") -> "Flow":
        """The flow that an array of the CDDL rule `flow` stands for; raises WireError."""
        items = cbor.array(value, field, 5)
        if len(items) != 5:
            raise WireError(field, 0, "truncated")
        local = cbor.address(items[1], f"{field}.local")
        peer = cbor.address(items[3], f"{field}.peer")
        if local.version != peer.version:
            raise WireError(f"{field}.peer", 0, "family")
        return cls(
            protocol=cbor.integer(items[0], f"{field}.protocol", 0, 255),
            local=local,
            local_port=cbor.integer(items[2], f"{field}.local-port", 0, 0xFFFF),
            peer=peer,
            peer_port=cbor.integer(items[4], f"{field}.peer-port", 0, 0xFFFF),
        )
