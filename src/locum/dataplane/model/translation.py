"""Translation (R12) in Python: the bytes and flows of bpf/translate.h.

Part of the model: it rewrites frames and remembers flows, and knows neither bindings nor tunnels. Time does not pass
here: a flow stays remembered.
"""

from collections import Counter
from dataclasses import dataclass, field

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Reason
from locum.dataplane.model.parse import ICMP, ICMPV6, TCP, UDP, Packet
from locum.dataplane.model.quoted import WITH_IDENTIFIER, Quoted, is_error, read_quoted
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Translation

CHECKSUMS = {TCP: 16, UDP: 6, ICMPV6: 2}

Key = tuple[bytes, bytes]  # home address, and tunnel or zeros
FlowKey = tuple[bytes, bytes, bytes, bytes, int]


def folded(total: int) -> int:
    total = (total & 0xFFFF) + (total >> 16)
    return (total & 0xFFFF) + (total >> 16)


def growth(old: bytes, new: bytes) -> int:
    """Growth of a ones' complement sum, in little endian, when `new` replaces `old`."""
    pairs = range(0, 16, 2)
    words = (
        (int.from_bytes(old[i : i + 2], "little") ^ 0xFFFF) + int.from_bytes(new[i : i + 2], "little")
        for i in pairs
    )
    return folded(sum(words))


def adjust(frame: bytearray, at: int, grown: int, *, udp: bool = False) -> int:
    """Change the checksum at `at`, unless it is an unused UDP one. Returns the growth of the sum."""
    old = int.from_bytes(frame[at : at + 2], "little")
    if udp and not old:
        return 0
    new = folded((old ^ 0xFFFF) + grown) ^ 0xFFFF
    if udp and not new:
        new = 0xFFFF
    frame[at : at + 2] = new.to_bytes(2, "little")
    return (old ^ 0xFFFF) + new


def readdress(frame: bytearray, packet: Packet, old: bytes, new: bytes, *, source: bool) -> None:
    """Source or destination of the packet's own header, and the checksums that cover it."""
    place = CHECKSUMS.get(packet.protocol)
    grown, end = growth(old, new), packet.offset + packet.length
    if place is not None and not packet.later_fragment and packet.payload + place + 2 <= end:
        adjust(frame, packet.payload + place, grown, udp=packet.protocol == UDP)
    if packet.family == 4:
        adjust(frame, packet.offset + 10, grown)
    _write(frame, packet.offset, packet.family, new, source=source)


def _write(frame: bytearray, header: int, family: int, address: bytes, *, source: bool) -> None:
    size, first = (4, 12) if family == 4 else (16, 8)
    at = header + first + (0 if source else size)
    frame[at : at + size] = address[16 - size :]


def readdress_quoted(frame: bytearray, packet: Packet, quoted: Quoted, new: bytes, *, source: bool) -> None:
    """Readdress the packet quoted in an error, and update the error's checksum."""
    grown = growth(quoted.source if source else quoted.destination, new)
    total, place = grown, CHECKSUMS.get(quoted.protocol)
    end = packet.offset + packet.length
    if place is not None and not quoted.later_fragment and quoted.payload + place + 2 <= end:
        total += adjust(frame, quoted.payload + place, grown, udp=quoted.protocol == UDP)
    if quoted.family == 4:
        total += adjust(frame, quoted.offset + 10, grown)
    _write(frame, quoted.offset, quoted.family, new, source=source)
    adjust(frame, packet.payload + 2, folded(total))


def _key(home_address: Addr, tunnel: Addr | None) -> Key:
    return maps.address(home_address), maps.NO_ADDRESS if tunnel is None else maps.address(tunnel)


@dataclass(slots=True)
class Translator:
    """The translations of one state and the flows that were seen; `counts` are (key, back?) to packets and bytes."""

    translations: dict[tuple[Addr, Addr | None], Translation]
    counts: Counter[tuple[bytes, bytes, bool]] = field(default_factory=Counter)
    sizes: Counter[tuple[bytes, bytes, bool]] = field(default_factory=Counter)
    _interfaces: dict[Key, bytes] = field(default_factory=dict)
    _flows: dict[FlowKey, Key] = field(default_factory=dict)
    _fragments: dict[tuple[bytes, bytes, bytes, int], Key] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for translation in self.translations.values():
            key = _key(translation.home_address, translation.tunnel)
            self._interfaces[key] = maps.address(translation.interface_address)

    def interface(self, home_address: bytes) -> bytes | None:
        """The interface address for packets that are delivered here."""
        return self._interfaces.get((home_address, maps.NO_ADDRESS))

    @property
    def flows(self) -> list[FlowKey]:
        """Flows seen to interface addresses: (interface address, peer, its port, the peer's, protocol)."""
        return list(self._flows)

    def is_own_name(self, source: bytes) -> bool:
        """True if this is an interface address that another node translates a home address to, and back."""
        return self.interface(source) == source

    def towards(self, frame: bytearray, packet: Packet, tunnel: Addr | None) -> Reason | bool:
        """To the interface address: done or not, or why the packet is dropped."""
        key = (packet.destination, maps.NO_ADDRESS if tunnel is None else maps.address(tunnel))
        local = self._interfaces.get(key)
        if local is None:
            return False
        if is_error(packet):
            if not self._error_towards(frame, packet, key, local):
                return False
        elif not packet.later_fragment and not self._remember(frame, packet, key, local):
            return Reason.TRANSLATION_CONFLICT
        self._count(key, packet, back=False)
        if local != packet.destination:
            readdress(frame, packet, packet.destination, local, source=False)
        return True

    def _error_towards(self, frame: bytearray, packet: Packet, key: Key, local: bytes) -> bool:
        quoted = None if packet.fragment else read_quoted(frame, packet)
        if quoted is None or quoted.source != key[0]:
            return False
        if self._flows.get(_quoted_flow(quoted, local, towards=True)) != key:
            return False
        if key[0] != local:
            readdress_quoted(frame, packet, quoted, local, source=True)
        return True

    def _remember(self, frame: bytearray, packet: Packet, key: Key, local: bytes) -> bool:
        flow = _flow(frame, packet, local, towards=True)
        known = self._flows.get(flow)
        if known is not None and known[0] != key[0]:
            return False
        self._flows[flow] = key
        return True

    def back(self, frame: bytearray, packet: Packet, *, in_tunnel: bool) -> "Back | None":
        """The home address that a packet from an interface address belongs to."""
        quoted: Quoted | None = None
        if packet.later_fragment:
            key = self._fragments.get(_fragment(packet))
        elif is_error(packet):
            quoted = None if packet.fragment else read_quoted(frame, packet)
            if quoted is None:
                return None
            key = self._flows.get(_quoted_flow(quoted, quoted.destination, towards=False))
        else:
            key = self._flows.get(_flow(frame, packet, packet.source, towards=False))
        if key is None or in_tunnel != (key[1] != maps.NO_ADDRESS):
            return None
        return Back(key, quoted)

    def translate_back(self, frame: bytearray, packet: Packet, found: "Back") -> None:
        """Replace the source by the home address, also in `packet`."""
        self._count(found.key, packet, back=True)
        home, quoted = found.key[0], found.quoted
        if packet.fragment and not packet.later_fragment:
            self._fragments[_fragment(packet)] = found.key
        if home == (packet.source if quoted is None else quoted.destination):
            return
        if quoted is not None:
            readdress_quoted(frame, packet, quoted, home, source=False)
            if packet.source != quoted.destination:
                return
        readdress(frame, packet, packet.source, home, source=True)
        packet.source = home

    def counters(self, home_address: Addr, tunnel: Addr | None) -> tuple[maps.Counter, maps.Counter]:
        """Packets and bytes towards the interface address, and back."""
        home, end = _key(home_address, tunnel)
        towards, back = (
            maps.Counter(self.counts[home, end, way], self.sizes[home, end, way]) for way in (False, True)
        )
        return towards, back

    def _count(self, key: Key, packet: Packet, *, back: bool) -> None:
        self.counts[*key, back] += 1
        self.sizes[*key, back] += packet.length


@dataclass(frozen=True, slots=True)
class Back:
    key: Key
    quoted: Quoted | None


def _flow(frame: bytearray, packet: Packet, local: bytes, *, towards: bool) -> FlowKey:
    here, there = maps.port(packet.destination_port), maps.port(packet.source_port)
    if not towards:
        here, there = there, here
    at = packet.payload
    if packet.type in WITH_IDENTIFIER.get(packet.protocol, ()) and at + 8 <= packet.offset + packet.length:
        here = bytes(frame[at + 4 : at + 6])
    peer = packet.source if towards else packet.destination
    return local, peer, here, there, packet.protocol


def _quoted_flow(q: Quoted, local: bytes, *, towards: bool) -> FlowKey:
    """The flow of a quoted packet, reversed: an error to the stand-in quotes its own packet."""
    peer = q.destination if towards else q.source
    here, there = q.source_port, q.destination_port
    if not towards:
        here, there = there, here
    if q.protocol in (ICMP, ICMPV6):
        there = b"\0\0"
    return local, peer, here, there, q.protocol


def _fragment(packet: Packet) -> tuple[bytes, bytes, bytes, int]:
    return packet.source, packet.destination, packet.identification, packet.protocol
