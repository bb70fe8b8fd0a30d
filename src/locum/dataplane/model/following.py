"""Packets that go where others go: the Python half of bpf/follow.h.

ICMP errors are of the flow that they are about. Later fragments have the ports of their packet's first fragment. Each home address has places of its own for these; a
place has the latest packet. It must not know what is decided by ports.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from locum.dataplane.layout.maps import Reason
from locum.dataplane.layout.rules import FRAGMENT_NUMBERS, FRAGMENT_PEERS, PORTS, Part
from locum.dataplane.model.frames import NO_TRANSPORT, Ends, Follows, Transport, Work
from locum.dataplane.model.parse import AH, DCCP, ESP, EXTENSIONS, SCTP, TCP, UDP, UDPLITE, Packet, Unread
from locum.dataplane.model.quoted import is_error, read_quoted

WITH_PORTS = frozenset((TCP, UDP, DCCP, SCTP, UDPLITE))
FRAGMENT_AGE = 30.0  # seconds


@dataclass(frozen=True, slots=True)
class FirstFragment:
    """Fields that only the first fragment of a packet has. `datagram` says of which packet."""

    datagram: tuple[bytes, bytes, bytes, int]
    time: float
    protocol: int
    transport: Transport


def read_transport(data: bytes | bytearray, packet: Packet) -> Transport:
    """The ports or the SPI of a packet that is no later fragment."""
    at, end = packet.payload, packet.offset + packet.length
    if packet.protocol in WITH_PORTS and at + 8 <= end:
        source, destination = (int.from_bytes(data[at + i : at + i + 2], "big") for i in (0, 2))
        return Transport(source, destination, known=PORTS)
    if packet.protocol in (ESP, AH):
        at += 4 if packet.protocol == AH else 0
        if at + 8 <= end:
            return Transport(spi=int.from_bytes(data[at : at + 4], "big"), known=Part.SPI)
    return Transport()


def hidden_parts(protocol: int) -> Part:
    """The parts of a selector that later fragments of this protocol do not show."""
    if protocol in WITH_PORTS:
        return PORTS
    return Part.SPI if protocol in (ESP, AH) else PORTS | Part.SPI | Part.PROTOCOL


def fragment_place(peer: bytes, identification: bytes) -> int:
    """The place, among those of a home address, of packets with this peer and number."""
    low = int.from_bytes(peer[:8], "little") ^ int.from_bytes(peer[8:], "little")
    for bits in (32, 16, 8):
        low ^= low >> bits
    number = int.from_bytes(identification, "big")
    number = (number + (number >> 16)) & 0xFFFFFFFF
    return low % FRAGMENT_PEERS * FRAGMENT_NUMBERS + number % FRAGMENT_NUMBERS


def _follow_quoted(work: Work, *, of_source: bool) -> None:
    """Make an error one of the packets that answer the packet that it quotes."""
    packet = work.packet
    work.transport = NO_TRANSPORT
    quoted = read_quoted(work.frame, packet)
    if quoted is None or quoted.source != packet.destination:
        return
    if of_source and quoted.destination != packet.source:
        return  # a router's, and not of a flow of this home address
    work.follows = Follows.QUOTED
    at, end = quoted.payload, packet.offset + packet.length
    ports = (0, 0)
    if not quoted.later_fragment and quoted.protocol in WITH_PORTS and at + 4 <= end:
        here, there = (int.from_bytes(work.frame[at + i : at + i + 2], "big") for i in (0, 2))
        work.transport = Transport(there, here, known=PORTS)
        ports = (there, here) if quoted.protocol in (TCP, UDP) else ports
    work.about = Ends(quoted.destination, quoted.source, *ports, quoted.protocol)


@dataclass(slots=True)
class Following:
    """The first fragments that were seen; `reasons` are the model's own."""

    reasons: Counter[Reason]
    now: Callable[[], float]
    first_fragments: dict[tuple[bytes, int], FirstFragment] = field(default_factory=dict)

    def find_transport(self, work: Work, home: bytes, *, of_source: bool = False) -> bool:
        """Find the ports or the SPI by which packets of this home address are decided on. False: it may not go on."""
        packet = work.packet
        if work.follows is Follows.NOTHING and is_error(packet) and not packet.fragment:
            _follow_quoted(work, of_source=of_source)
        elif work.follows is Follows.NOTHING:
            later = packet.later_fragment
            work.transport = Transport() if later else read_transport(work.frame, packet)
            may_have = packet.protocol in WITH_PORTS | EXTENSIONS | {ESP, AH}
            if packet.fragment and may_have:
                self._fragment(work, home)
        return work.refused is None

    def lacks_first(self, work: Work) -> bool:
        """Refuse a packet whose ports decide and are not known, because its first fragment is not."""
        if work.follows is Follows.UNKNOWN:
            work.refused = Reason.FRAGMENT_UNKNOWN
        return work.refused is not None

    def _fragment(self, work: Work, home: bytes) -> None:
        packet, now = work.packet, self.now()
        peer = packet.source if packet.destination == home else packet.destination
        place = (home, fragment_place(peer, packet.identification))
        header = packet.protocol if packet.family == 4 else 0
        datagram = (packet.source, packet.destination, packet.identification, header)
        first = self.first_fragments.get(place)
        if first is not None and (first.datagram != datagram or now - first.time > FRAGMENT_AGE):
            first = None
        if packet.later_fragment:
            self._later(work, first)
            return
        work.follows = Follows.FIRST
        own = FirstFragment(datagram, now, packet.protocol, work.transport)
        if first is not None and (first.protocol, first.transport) != (own.protocol, own.transport):
            work.refused = Reason.FRAGMENT_CONFLICT
            return
        self.first_fragments[place] = own

    def _later(self, work: Work, first: FirstFragment | None) -> None:
        if first is None:
            work.follows = Follows.UNKNOWN
            return
        packet = work.packet
        work.follows = Follows.FIRST
        packet.protocol, work.transport = first.protocol, first.transport
        if packet.protocol in EXTENSIONS:
            packet.unread = Unread.CHAIN
        elif packet.protocol in WITH_PORTS | {ESP, AH} and not first.transport.known:
            packet.unread = Unread.TRANSPORT
        if packet.protocol in (TCP, UDP):
            packet.source_port = first.transport.source_port
            packet.destination_port = first.transport.destination_port
        self.reasons[Reason.FRAGMENT_FOLLOWS] += 1
