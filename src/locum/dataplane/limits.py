"""Room of the data plane's tables and of its hold queue."""

from dataclasses import dataclass

from locum.dataplane.kernel.libbpf import possible_cpus


@dataclass(frozen=True, slots=True)
class Limits:
    """Room of the tables and of the hold queue.

    An empty place of a table costs 16 bytes (the kernel's hash buckets), about 140 for each binding in all; entries
    cost memory only when used. The places for fragments are an exception: each costs some 150 bytes at once.
    """

    bindings: int = 262_144
    flows: int = 65_536
    fragments: int = 4096  # packets whose later fragments are expected, for 30 s at most
    hold_packets: int = 65_536
    hold_bytes: int = 64 << 20
    translated_flows: int = 16_384  # remembered at once; beyond, the one that was quiet longest is forgotten
    ring_bytes: int = 8 << 20  # between kernel and daemon; a power of two

    def sizes(self) -> dict[str, int]:
        """Entries of each map."""
        few = max(self.bindings // 4, 1024)
        return {
            "endpoints": 4096,
            "access_links": 64,
            "bindings": self.bindings,
            "binding_more": few,
            "binding_count": self.bindings,
            "visited": few,
            "rules_few": few,
            "rules_many": max(few // 4, 1024),
            "filters_few": few,
            "filters_many": max(few // 4, 1024),
            "rule_count": max(self.bindings, 65_536),
            "fragments": self.fragments,
            "acceptances": 2 * self.bindings,
            "acceptance_count": 2 * self.bindings,
            "outbound": few,
            "outbound_count": few,
            "flows": self.flows,
            "translations": few,
            "translation_count": few,
            "translated": self.translated_flows,
            "translated_fragments": 4096,
            "watched": 65_536,
            "held": self.ring_bytes,
            "scratches": possible_cpus(),
        }
