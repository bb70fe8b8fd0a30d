"""Room of the data plane's tables and of its hold queue."""

from dataclasses import dataclass

from locum.dataplane.kernel.libbpf import possible_cpus


@dataclass(frozen=True, slots=True)
class Limits:
    """Room of the tables and of the hold queue.

    An empty place of a table costs 16 bytes (the kernel's hash buckets), about 180 for each binding in all; entries
    cost memory only when used.
    """

    bindings: int = 262_144
    flows: int = 65_536
    hold_packets: int = 65_536
    hold_bytes: int = 64 << 20
    hold_packets_each: int = 8192  # of one home address
    hold_bytes_each: int = 16 << 20
    hold_age: int = 60  # seconds; TCP expects no packet after 2 minutes (RFC 9293 section 3.4.1)
    translated_flows: int = 16_384  # remembered at once; beyond, the one that was quiet longest is forgotten
    ring_bytes: int = 8 << 20  # between kernel and daemon; a power of two
    held_addresses: int = 4096  # with packets there at once; those of others have no share

    def sizes(self) -> dict[str, int]:
        """Entries of each map."""
        many = self.bindings
        few = max(many // 4, 1024)
        large = max(few // 4, 1024)
        return {
            "endpoints": 4096,
            "access_links": 64,
            "link_networks": 1024,
            "senders": 2 * few,
            "tunnel_sources": many,
            "bindings": many,
            "binding_values": _with_room(many + few),
            "binding_more": leaving_room(few),
            "more_values": few,
            "visited": few,
            "rules": leaving_room(few),
            "rules_few": few,
            "rules_many": large,
            "filters": leaving_room(few),
            "filters_few": few,
            "filters_many": large,
            "rule_count": max(2 * few, 65_536),
            "first_fragments": max(many, 4 * few),  # home addresses with rules, filters, flows or a guard
            "acceptances": 2 * self.bindings,
            "acceptance_values": max(many, 65_536),  # a port each, or a next hop for a visitor
            "outbound": leaving_room(few),
            "tunnel_values": few,
            "flows": self.flows,
            "translations": leaving_room(few),
            "translation_values": few,
            "translated": self.translated_flows,
            "translated_fragments": 4096,
            "watched": 65_536,
            "paths": 4096,
            "told_paths": 1024,
            "told_large": 4096,
            "held": self.ring_bytes,
            "held_shares": self.held_addresses,
            "asked": 1024,
            "scratches": possible_cpus(),
        }


def _with_room(entries: int) -> int:
    """Places for the values of so many entries, all different, and of those that are being replaced."""
    return entries + max(entries // 64, 64)


def leaving_room(values: int) -> int:
    """Entries for so many places of values: the kernel makes the number of hash buckets a power of two."""
    return values - max(values // 64, 64)
