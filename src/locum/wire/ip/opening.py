"""A SYN to a port of a sleeping device: its options, the plain SYN accepted instead, and a reset."""

from dataclasses import dataclass

from locum.wire.errors import WireError
from locum.wire.flow import Flow
from locum.wire.ip.headers import TCP, upper_layer
from locum.wire.ip.packet import build_tcp
from locum.wire.ip.transport import TcpFlag, TcpSegment

_END, _NO_OPERATION, _MSS, _SACK_PERMITTED = 0, 1, 2, 4
_U32 = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Opening:
    """A SYN of a peer (RFC 9293 section 3.5), as far as it counts here."""

    flow: Flow
    sequence: int
    window: int
    mss: int | None = None  # None without the option
    sack: bool = False
    payload: int = 0  # bytes; TCP Fast Open puts some into a SYN

    @classmethod
    def parse(cls, packet: bytes) -> "Opening":
        """The SYN in an IP packet to a home address; raises WireError for anything else."""
        upper = upper_layer(packet)
        if upper.protocol != TCP or upper.fragmented:
            raise WireError("opening.protocol", 0, "range")
        segment = TcpSegment.decode(upper.payload)
        if segment.flags & (TcpFlag.SYN | TcpFlag.ACK | TcpFlag.RST) != TcpFlag.SYN:
            raise WireError("opening.flags", 13, "range")
        mss, sack = _options(segment.options)
        header = upper.header
        return cls(
            flow=Flow(TCP, header.destination, segment.destination_port, header.source, segment.source_port),
            sequence=segment.sequence,
            window=segment.window,
            mss=mss,
            sack=sack,
            payload=len(segment.payload),
        )

    def plain(self) -> bytes:
        """The same SYN without timestamps, window scaling, ECN and Fast Open, for a device to take over."""
        options = b"" if self.mss is None else bytes((_MSS, 4)) + self.mss.to_bytes(2, "big")
        if self.sack:
            options += bytes((_NO_OPERATION, _NO_OPERATION, _SACK_PERMITTED, 2))
        return build_tcp(
            self.flow, seq=self.sequence, ack=0, flags=TcpFlag.SYN, window=self.window, options=options
        )

    def refusal(self) -> bytes:
        """The reset for a closed port (RFC 9293 section 3.10.7.1)."""
        acknowledged = (self.sequence + 1 + self.payload) & _U32
        flags = TcpFlag.RST | TcpFlag.ACK
        return build_tcp(self.flow, seq=0, ack=acknowledged, flags=flags, from_peer=False)


def _options(data: bytes) -> tuple[int | None, bool]:
    """The largest segment and whether SACK is permitted; options after a malformed one are ignored."""
    mss, sack, at = None, False, 0
    while at < len(data) and data[at] != _END:
        if data[at] == _NO_OPERATION:
            at += 1
            continue
        size = data[at + 1] if at + 1 < len(data) else 0
        if size < 2 or at + size > len(data):
            break
        if data[at] == _MSS and size == 4:
            mss = int.from_bytes(data[at + 2 : at + 4], "big") or None
        sack = sack or data[at] == _SACK_PERMITTED
        at += size
    return mss, sack
