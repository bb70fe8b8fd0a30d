"""The model of packets to a home address that ends on this host: the Python half of bpf/local_end.h and bpf/service.h."""

from dataclasses import dataclass

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Reason
from locum.dataplane.model.environment import Result, Socket
from locum.dataplane.model.frames import Work, flow_key
from locum.dataplane.model.parse import ICMP, ICMPV6, TCP, UDP
from locum.dataplane.model.results import Results
from locum.dataplane.model.tables import Tables
from locum.roles.action_values.forwarding import FlowVerdict, Verdict


@dataclass(frozen=True, slots=True)
class LocalEnd:
    """Decides about packets to home addresses whose end is a stand-in or a program of this host."""

    tables: Tables
    results: Results

    def decide(self, work: Work) -> Result | None:
        """By the flow, the entry, the translation or the guard of the destination; None: none of them is about it."""
        destination = work.packet.destination
        if work.egress:
            return None
        entry = self.tables.local_ends.get(destination)
        guarded = entry is not None and entry.verdict is Verdict.GUARD
        result = self._by_flow(work) if guarded or destination in self.tables.flow_homes else None
        if result is not None:
            return result
        if entry is not None:
            self.tables.met.append(entry)
            result = self.results.by_verdict(work, entry.verdict)
        result = result or self._to_interface(work)
        return result or (self._guard(work) if guarded else None)

    def _to_interface(self, work: Work) -> Result | None:
        """Deliver to this host, at the stand-in's own address (R12)."""
        packet = work.packet
        local = self.tables.translator.interface(packet.destination)
        if local not in self.tables.environment.own or (local == packet.destination and not work.strip):
            return None
        done = self.tables.translate(work, None)
        if isinstance(done, Reason):
            return self.results.dropped(done)
        return self.results.passed_up(work) if done else None

    def _guard(self, work: Work) -> Result:
        if work.packet.protocol in (ICMP, ICMPV6):
            return self.results.passed_up(work)
        if self._opens_watched(work):
            if work.from_tap:
                return self.results.passed_up(work)
            return self.results.hold(work, HeldReason.OPENING)
        if self._has_socket(work):
            return self.results.passed_up(work)
        return self.results.dropped(Reason.NO_SESSION)

    def _opens_watched(self, work: Work) -> bool:
        """A new connection to a port whose connections the daemon decides on."""
        packet = work.packet
        watched = (maps.address_of(packet.destination), packet.destination_port) in self.tables.state.watched
        return packet.protocol == TCP and not packet.later_fragment and watched and self._opens(work)

    @staticmethod
    def _opens(work: Work) -> bool:
        packet = work.packet
        whole = packet.payload + 20 <= packet.offset + packet.length
        return whole and work.frame[packet.payload + 13] & 0x16 == 0x02

    def _has_socket(self, work: Work) -> bool:
        """A connection or an offered service of this host: bpf/service.h."""
        packet = work.packet
        if packet.later_fragment or packet.protocol not in (TCP, UDP):
            return False
        offered = (packet.protocol, packet.destination_port) in self.tables.state.services
        socket = self.tables.environment.socket(packet)
        if packet.protocol == UDP:
            return offered and socket is not None
        if socket is not Socket.LISTENING:
            return socket is not None
        return offered and self._opens(work)

    def _by_flow(self, work: Work) -> Result | None:
        packet = work.packet
        key = flow_key(packet.destination, packet.source, packet.destination_port, packet.source_port, packet)
        verdict = self.tables.flows.get(key)
        if verdict is None:
            return None
        self.tables.met.append(verdict)
        if verdict is FlowVerdict.DELIVER or work.from_tap:
            return self.results.passed_up(work)
        return self.results.hold(work, HeldReason.FLOW)
