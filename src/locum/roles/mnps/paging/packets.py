"""One packet as an event of a device's table (P15). Pure functions; no state.

The app of such an event is "packet", its kind the protocol. It must not know who reports packets.
"""

from typing import Final

from locum.roles.action_values.event_tables import SeenPacket
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.ip.headers import GRE, ICMP, ICMPV6, TCP, UDP, upper_layer

PACKET: Final = "packet"
MAX_TEXT: Final = 96
"""Characters of the payload's beginning."""
_SCTP, _ESP, _AH = 132, 50, 51
_NAMES = {
    ICMP: "icmp", TCP: "tcp", UDP: "udp", GRE: "gre", _ESP: "esp", _AH: "ah", ICMPV6: "icmpv6", _SCTP: "sctp"
}  # fmt: skip
_WITH_PORTS = (TCP, UDP, _SCTP)
_HEADERS = {UDP: 8, ICMP: 8, ICMPV6: 8, _SCTP: 12}
_MAX_PACKET = 0xFFFF + 40


def packet_event(packet: SeenPacket) -> ApplicationEvent:
    """The event that this packet is. Raises WireError for one without a readable IP header."""
    head, whole = packet.head, packet.head
    if len(head) < packet.length <= _MAX_PACKET:  # only its beginning is here
        whole = head + bytes(packet.length - len(head))
    upper = upper_layer(whole)
    detail: dict[str, object] = {
        "source": str(upper.header.source),
        "destination": str(upper.header.destination),
        "length": packet.length,
    }
    there = head[upper.start :]
    if upper.fragment_offset:
        detail["fragment"] = True
        there = b""
    if upper.protocol in _WITH_PORTS and len(there) >= 4:
        detail["source_port"] = int.from_bytes(there[:2], "big")
        detail["destination_port"] = int.from_bytes(there[2:4], "big")
    elif upper.protocol in (ICMP, ICMPV6) and there:
        detail["type"] = there[0]
    if text := _text(there[_header(upper.protocol, there) :]):
        detail["text"] = text
    return ApplicationEvent(PACKET, _NAMES.get(upper.protocol, str(upper.protocol)), detail)


def _header(protocol: int, there: bytes) -> int:
    """Bytes of the transport header; the user's data begin behind it."""
    if protocol == TCP:
        return max(there[12] >> 4, 5) * 4 if len(there) > 12 else len(there)
    return _HEADERS.get(protocol, len(there))


def _text(data: bytes) -> str:
    """The printable beginning of the data, as UTF-8."""
    text = data.decode("utf-8", "replace")
    end = next(
        (
            place
            for place, character in enumerate(text)
            if character == "\ufffd" or not (character.isprintable() or character in "\r\n\t")
        ),
        len(text),
    )
    return text[: min(end, MAX_TEXT)]
