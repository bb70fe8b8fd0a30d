"""Facts from captures and from the kernel's counters. Every function takes recorded data, returns a number.

Times are seconds since the epoch, as in the captures and in the event streams of the same machine.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.captures import pcap
from locum.lab.captures.pcap import ACK, RST, SYN, Address, Segment

Flow = tuple[Address, int, Address, int]


@dataclass(frozen=True, slots=True)
class Wait:
    """A stretch of time in which the sender had data outstanding and no acknowledgement moved on."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        return self.end - self.begin

    def meets(self, begin: float, end: float) -> bool:
        return self.begin < end and self.end > begin


def difference(later: int, earlier: int) -> int:
    """Signed distance of two TCP sequence numbers (RFC 9293 section 3.4)."""
    return ((later - earlier + 0x80000000) & 0xFFFFFFFF) - 0x80000000


@dataclass(slots=True)
class Sender:
    """One direction of a connection, as seen at the host that sends."""

    sent: int | None = None
    acknowledged: int | None = None
    since: float | None = None
    progress: int = 0
    waits: list[Wait] = field(default_factory=list)

    def sends(self, segment: Segment) -> None:
        end = segment.sequence + segment.length + bool(segment.flags & (SYN | pcap.FIN)) & 0xFFFFFFFF
        if self.sent is None:
            self.sent = end
            self.acknowledged = segment.sequence
        elif difference(end, self.sent) > 0:
            self.sent = end
        if (
            self.since is None
            and self.acknowledged is not None
            and difference(self.sent, self.acknowledged) > 0
        ):
            self.since = segment.time

    def hears(self, segment: Segment) -> int:
        """Take an acknowledgement; returns by how many bytes it moved on."""
        if not segment.flags & ACK or self.acknowledged is None or self.sent is None:
            return 0
        moved = difference(segment.acknowledgement, self.acknowledged)
        if moved <= 0:
            return 0
        self.acknowledged = segment.acknowledgement
        if self.since is not None:
            self.waits.append(Wait(self.since, segment.time))
        self.since = segment.time if difference(self.sent, self.acknowledged) > 0 else None
        return moved


def _senders(segments: Iterable[Segment], port: int) -> Iterator[tuple[Segment, Flow, Sender, int]]:
    """Walk the connections of the server on `port` of the capturing host; yields each segment's progress."""
    senders: dict[Flow, Sender] = {}
    for segment in segments:
        if segment.outgoing and segment.source_port == port:
            flow = (segment.source, port, segment.destination, segment.destination_port)
            senders.setdefault(flow, Sender()).sends(segment)
            yield segment, flow, senders[flow], 0
        elif not segment.outgoing and segment.destination_port == port:
            flow = (segment.destination, port, segment.source, segment.source_port)
            sender = senders.setdefault(flow, Sender())
            yield segment, flow, sender, sender.hears(segment)


def longest_wait(segments: Iterable[Segment], port: int, begin: float, end: float) -> float:
    """The longest time, in seconds, that the server on `port` waited for an acknowledgement, of all waits that
    touch the stretch from begin to end. A wait that never ended counts to the last packet of the capture."""
    senders: dict[Flow, Sender] = {}
    last = end
    for segment, flow, sender, _moved in _senders(segments, port):
        senders[flow] = sender
        last = max(last, segment.time)
    waits = [wait for sender in senders.values() for wait in sender.waits]
    waits += [Wait(sender.since, last) for sender in senders.values() if sender.since is not None]
    return max((wait.seconds for wait in waits if wait.meets(begin, end)), default=0.0)


def acknowledged_bytes(segments: Iterable[Segment], port: int, begin: float, end: float) -> int:
    """Bytes that the peers of the server on `port` acknowledged between begin and end."""
    return sum(moved for segment, _, _, moved in _senders(segments, port) if begin <= segment.time <= end)


def resets(segments: Iterable[Segment]) -> list[str]:
    """Segments with RST in both directions, each as text, without those that a host sent to its own loopback address."""
    return [
        f"{segment.source}:{segment.source_port} > {segment.destination}:{segment.destination_port}"
        f" at {segment.time:.6f}, sequence {segment.sequence}, flags {segment.flags:#04x}"
        for segment in segments
        if segment.flags & RST and not segment.destination.is_loopback
    ]


def connections(segments: Iterable[Segment], port: int) -> int:
    """Connections that were opened to the server on `port`, by distinct first SYN."""
    return len(
        {
            (segment.source, segment.source_port, segment.sequence)
            for segment in segments
            if segment.flags & (SYN | ACK) == SYN and segment.destination_port == port
        }
    )


def frames_between(file: Path, begin: float, end: float, interfaces: frozenset[int] | None = None) -> int:
    """Frames of a capture in a stretch of time, of all interfaces or of those with these numbers."""
    return sum(
        1
        for frame in pcap.frames(file)
        if begin < frame.time < end and (interfaces is None or frame.interface in interfaces)
    )


def tcp_counters(text: str) -> dict[str, int]:
    """/proc/net/snmp and /proc/net/netstat, one after the other, as {"Tcp.RetransSegs": 3, ...}."""
    counters: dict[str, int] = {}
    lines = [line.split() for line in text.splitlines() if line.strip()]
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        group = names[0].rstrip(":")
        counters |= {f"{group}.{name}": int(value) for name, value in zip(names[1:], values[1:], strict=True)}
    return counters


def counted(before: Mapping[str, int], after: Mapping[str, int], name: str) -> int:
    """By how much a counter went up."""
    return after.get(name, 0) - before.get(name, 0)


def largest_excess(datagrams: Iterable[pcap.Datagram], own: Collection[Address]) -> int:
    """Largest number of bytes by which a reply to a UDP request exceeds the request; negative: shorter.

    Taken at the client: packets from one of its own addresses are requests, all packets back on the
    same addresses and ports its replies, together. Where several requests left from one port, the largest reply is held against the smallest of
    them: a request that happened to be large cannot excuse the reply to a small one.
    """
    asked: dict[tuple[Address, Address, int, int], list[int]] = {}
    answered: dict[tuple[Address, Address, int, int], list[int]] = {}
    for datagram in datagrams:
        if datagram.protocol != pcap.UDP or len(datagram.transport) < 8:
            continue
        source_port, destination_port = datagram.ports
        if datagram.outgoing and datagram.source in own:
            pair = (datagram.source, datagram.destination, source_port, destination_port)
            asked.setdefault(pair, []).append(datagram.transport_length)
        elif not datagram.outgoing:
            pair = (datagram.destination, datagram.source, destination_port, source_port)
            answered.setdefault(pair, []).append(datagram.transport_length)
    return max(
        (_excess(asked[pair], replies) for pair, replies in answered.items() if pair in asked),
        default=-(1 << 16),
    )


def _excess(requests: list[int], replies: list[int]) -> int:
    """Bytes of UDP payload that came back above those that went out."""
    if len(requests) == 1:
        return sum(replies) - 8 * (len(replies) - 1) - requests[0]
    return max(replies) - min(requests)
