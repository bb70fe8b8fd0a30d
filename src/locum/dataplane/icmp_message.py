"""The message to the sender of a packet that was lost in a tunnel."""

from dataclasses import dataclass

from locum.roles.action_values.addresses import Addr


@dataclass(frozen=True, slots=True)
class Told:
    """An ICMP message to the sender of a packet, without its IP header; ICMPv6 without its checksum."""

    destination: Addr
    message: bytes
    end: Addr  # of the tunnel
