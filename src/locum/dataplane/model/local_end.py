"""The model of packets to a home address that ends on this host: the Python half of bpf/local_end.h and bpf/service.h."""

from dataclasses import dataclass

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import HeldReason, Reason
from locum.dataplane.model.environment import Result, Socket
from locum.dataplane.model.frames import Work, flow_key, flow_of
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
        found = self._socket(work)
        if found is not Socket.PROXY and self._opens_watched(work):
            if work.from_tap:
                return self.results.passed_up(work)
            return self.results.hold(work, HeldReason.OPENING)
        if found is not None:
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

    def _socket(self, work: Work) -> Socket | None:
        """A connection, an offered service or a proxy of this host that may get the packet: bpf/service.h."""
        packet = work.packet
        if packet.protocol not in (TCP, UDP):
            return None
        socket = self.tables.environment.socket(packet)
        if socket in (None, Socket.CONNECTED):
            return socket
        if packet.protocol == TCP and (packet.later_fragment or not self._opens(work)):
            return None
        offered = (packet.protocol, packet.destination_port) in self.tables.state.services
        return socket if offered or socket is Socket.PROXY else None

    def _by_flow(self, work: Work) -> Result | None:
        following = self.tables.following
        following.find_transport(work, work.packet.destination)
        if work.refused is not None or following.lacks_first(work):
            return self.results.dropped(work.refused or Reason.NONE)
        verdict = self.tables.flows.get(flow_key(flow_of(work)))
        if verdict is None:
            return None
        self.tables.met.append(verdict)
        if verdict is FlowVerdict.DELIVER or work.from_tap:
            return self.results.passed_up(work)
        return self.results.hold(work, HeldReason.FLOW)
