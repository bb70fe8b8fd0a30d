"""Tunnel packets that the model lets in: the Python half of the checks in bpf/tunnel.h."""

from dataclasses import dataclass

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.model.checksums import wrong_checksum
from locum.dataplane.model.environment import Result
from locum.dataplane.model.frames import Work, parse_tunnel
from locum.dataplane.model.minimal import widened
from locum.dataplane.model.parse import UDP, Packet, parse_packet, refused
from locum.dataplane.model.results import Results
from locum.dataplane.model.scope import asked_for, bound_to_link
from locum.dataplane.model.tables import Tables
from locum.roles.action_values.forwarding import Side, TunnelAcceptance


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Judges tunnel packets to end points of this host."""

    tables: Tables
    results: Results

    def accept(self, work: Work) -> TunnelAcceptance | Result | None:
        """Judge a whole tunnel packet to one of our end points; `work` is then about the inner packet.

        None: malformed. A result: dropped and counted.
        """
        outer = work.packet
        shape = parse_tunnel(work.frame, outer)
        end = outer.offset + outer.length
        if shape is None or shape.family == 0 or shape.inner > end:
            return None
        if outer.unsound:
            return self.results.dropped(Reason.BAD_CHECKSUM)
        if (reason := widened(work)) is not None:
            return self.results.dropped(reason)
        shape, end = parse_tunnel(work.frame, outer) or shape, outer.offset + outer.length
        inner = parse_packet(bytes(work.frame), shape.inner, end, shape.family)
        if inner is None:
            return None
        if (refusal := refused(inner)) is not None:
            return self.results.dropped(refusal)
        if outer.source in self.tables.sources and wrong_checksum(bytes(work.frame), outer, inner, shape):
            return self.results.dropped(Reason.BAD_CHECKSUM)
        acceptance = self._of_tunnel(outer, inner, shape.key)
        if acceptance is not None:
            if not _comes_right(outer, acceptance):
                return self.results.dropped(Reason.UNREGISTERED_SOURCE)
            if acceptance.side is Side.TO_HOME_ADDRESS and work.ifindex in self.tables.environment.access:
                return self.results.dropped(Reason.FROM_ACCESS_LINK)
            wanted = acceptance.side is Side.TO_HOME_ADDRESS and asked_for(inner)
            if bound_to_link(inner) and not wanted:
                return self.results.dropped(Reason.LINK_SCOPE)
            work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
            if not work.renewed or _datagram_in_datagram(outer, inner):
                self.tables.count(self.tables.acceptance_count, maps.acceptance_key(acceptance), inner)
            self.tables.met.append(acceptance)
            return acceptance
        found = self.tables.translator.back(work.frame, inner, in_tunnel=True)
        if found is not None:
            key = maps.packed_acceptance_key(
                outer.source, found.key[0], maps.SIDES.index(Side.FROM_HOME_ADDRESS), shape.key
            )
            acceptance = self.tables.acceptances.get(key)
            if acceptance is not None:
                self.tables.translator.translate_back(work.frame, inner, found)
                if not _comes_right(outer, acceptance):
                    return self.results.dropped(Reason.UNREGISTERED_SOURCE)
                if bound_to_link(inner):
                    return self.results.dropped(Reason.LINK_SCOPE)
                work.packet, work.strip, work.outer_tos = inner, shape.inner - outer.offset, outer.tos
                if not work.renewed or _datagram_in_datagram(outer, inner):
                    self.tables.count(self.tables.acceptance_count, key, inner)
                return acceptance
        return self.results.dropped(Reason.UNREGISTERED_SOURCE)

    def _of_tunnel(self, outer: Packet, inner: Packet, gre_key: int | None) -> TunnelAcceptance | None:
        to, from_home = (maps.SIDES.index(side) for side in (Side.TO_HOME_ADDRESS, Side.FROM_HOME_ADDRESS))
        source, end = outer.source, outer.destination
        return (
            self.to_home(source, end, inner, to, gre_key)
            or self.tables.acceptances.get(
                maps.packed_acceptance_key(source, inner.source, from_home, gre_key)
            )
            or self.to_home(source, end, inner, maps.TO_END, gre_key)
        )

    def to_home(
        self, source: bytes, end: bytes, inner: Packet, side: int, gre_key: int | None
    ) -> TunnelAcceptance | None:
        """The acceptance of packets to the inner destination at this side.

        With TO_END, or beside an entry found without it, the acceptance of the end point goes before (R17).
        """
        found = self.tables.acceptances.get(
            maps.packed_acceptance_key(source, inner.destination, side, gre_key)
        )
        if side != maps.TO_END:
            return found and (self.to_home(source, end, inner, maps.TO_END, gre_key) or found)
        at_end = found is not None and found.end is not None and maps.address(found.end) == end
        return found if at_end else None


def _datagram_in_datagram(outer: Packet, inner: Packet) -> bool:
    """True if the segmentation state of such a packet is renewed before it counts; that of others, afterwards."""
    return outer.protocol == UDP and inner.protocol == UDP


def _comes_right(outer: Packet, acceptance: TunnelAcceptance) -> bool:
    """True if a tunnel packet comes in the UDP datagrams of the acceptance, or if it has none."""
    port = outer.source_port if outer.protocol == UDP else 0
    return acceptance.source_port in (0, port)
