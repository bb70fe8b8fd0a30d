"""A live TCP connection in transit (A12): one value, and its CBOR by session.cddl.

It must not know how a kernel gives or takes such a state, nor which message carries it.
"""

from dataclasses import dataclass
from enum import IntEnum
from importlib.resources import files
from ipaddress import IPv4Address, IPv6Address

from locum.sessions.carried import NO_OPTIONS, CarriedOptions
from locum.wire import cbor
from locum.wire.control import Flow
from locum.wire.errors import WireError

LONGEST_KEEP_ALIVE = 32767  # seconds, of TCP_KEEPIDLE and TCP_KEEPINTVL (tcp(7))
MOST_PROBES = 127  # of TCP_KEEPCNT
MAX_QUEUE = 16 << 20  # bytes of one send queue part; four times the kernel's usual largest send buffer
_U32 = 0xFFFFFFFF
_U63 = (1 << 63) - 1
_TCP = 6


class TcpState(IntEnum):
    """States of RFC 9293 with the kernel's numbers."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11
    NEW_SYN_RECV = 12


TRANSFERABLE = frozenset(
    {
        TcpState.ESTABLISHED,
        TcpState.FIN_WAIT1,
        TcpState.FIN_WAIT2,
        TcpState.CLOSE_WAIT,
        TcpState.LAST_ACK,
        TcpState.CLOSING,
    }
)


class TimestampUnit(IntEnum):
    """Unit of the clock in the TCP timestamps of a connection (RFC 7323 leaves it to each end).

    Linux counts milliseconds; since 6.7 it counts microseconds for a connection by a route with tcp_usec_ts.
    """

    MILLISECONDS = 0
    MICROSECONDS = 1


@dataclass(frozen=True, slots=True)
class Window:
    """Both windows in bytes, unscaled (the kernel's struct tcp_repair_window)."""

    snd_wl1: int
    snd_wnd: int
    max_window: int
    rcv_wnd: int
    rcv_wup: int

    def offered(self, expected: int) -> int:
        """Bytes that the peer may still send when `expected` is the next sequence number from it."""
        left = (self.rcv_wup + self.rcv_wnd - expected) & _U32
        return left if left <= self.rcv_wnd else 0  # the peer has sent past the window, as a probe does


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A connection at the moment of its capture; the flow's local address is the home address (IPv4 or IPv6)."""

    flow: Flow
    state: TcpState
    snd_seq: int  # sequence number of the first byte of `unacked`
    rcv_seq: int  # next sequence number expected from the peer, behind its FIN if that has come
    unacked: bytes  # sent, not acknowledged
    unsent: bytes  # written by the program, not sent yet
    unread: int  # bytes that the program has not read; they stay in its socket
    window: Window
    timestamp: (
        int | None
    )  # the TCP timestamp clock at the capture, not before any that was sent; None without the option
    mss: int  # the largest segment the peer takes
    window_scale: tuple[int, int] | None  # (send, receive); None without the option
    sack: bool
    keepalive: tuple[int, int, int] | None = None  # (idle s, interval s, probes); None when off
    timestamp_unit: TimestampUnit | None = None  # None when not known, or without the option
    options: CarriedOptions = NO_OPTIONS
    intake: tuple[int, int] | None = None  # bytes the program has read so far, receive buffer in bytes

    @property
    def fin_sent(self) -> bool:
        """The program has shut its sending side; the FIN follows `unsent`."""
        return self.state in (TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.LAST_ACK, TcpState.CLOSING)

    @property
    def peer_closed(self) -> bool:
        """The peer's FIN has come; `rcv_seq` is behind it."""
        return self.state in (TcpState.CLOSE_WAIT, TcpState.LAST_ACK, TcpState.CLOSING)

    def to_cbor(self) -> dict[int, object]:
        """The CDDL rule `session-record`."""
        window = self.window
        body: dict[int, object] = {
            0: self.flow.to_cbor(),
            1: int(self.state),
            2: self.snd_seq,
            3: self.rcv_seq,
            4: self.unacked,
            5: self.unsent,
            6: self.unread,
            7: [window.snd_wl1, window.snd_wnd, window.max_window, window.rcv_wnd, window.rcv_wup],
            9: self.mss,
            11: self.sack,
        }
        if self.timestamp is not None:
            body[8] = self.timestamp
        if self.window_scale is not None:
            body[10] = list(self.window_scale)
        if self.keepalive is not None:
            body[12] = list(self.keepalive)
        if self.timestamp_unit is not None:
            body[13] = int(self.timestamp_unit)
        if options := self.options.to_cbor():
            body[14] = options
        if self.intake is not None:
            body[15] = list(self.intake)
        return body

    @classmethod
    def from_cbor(cls, value: object) -> "SessionRecord":
        """The record that a decoded CBOR map stands for; raises WireError for anything that does not fit."""
        name = "session-record"
        reader = cbor.Reader(value, name)
        flow = Flow.from_cbor(reader.value(0, "flow"), f"{name}.flow")
        _check_flow(flow)
        state = reader.integer(1, "state", 0, 15)
        if state not in TRANSFERABLE:
            raise WireError(f"{name}.state", 0, "range")
        record = cls(
            flow=flow,
            state=TcpState(state),
            snd_seq=reader.integer(2, "snd-seq", 0, _U32),
            rcv_seq=reader.integer(3, "rcv-seq", 0, _U32),
            unacked=reader.octets(4, "unacked", 0, MAX_QUEUE),
            unsent=reader.octets(5, "unsent", 0, MAX_QUEUE),
            unread=reader.integer(6, "unread", 0, _U32),
            window=_window(reader.array(7, "window", 5)),
            timestamp=None if reader.absent(8) else reader.integer(8, "timestamp", 0, _U32),
            mss=reader.integer(9, "mss", 1, 0xFFFF),
            window_scale=None if reader.absent(10) else _scales(reader.array(10, "window-scale", 2)),
            sack=reader.boolean(11, "sack"),
            keepalive=None if reader.absent(12) else _keepalive(reader.array(12, "keepalive", 3)),
            timestamp_unit=None
            if reader.absent(13)
            else TimestampUnit(reader.integer(13, "timestamp-unit", 0, 1)),
            options=NO_OPTIONS
            if reader.absent(14)
            else CarriedOptions.from_cbor(reader.value(14, "options"), f"{name}.options"),
            intake=None if reader.absent(15) else _intake(reader.array(15, "intake", 2)),
        )
        reader.done()
        if record.state is TcpState.FIN_WAIT2 and (record.unacked or record.unsent):
            raise WireError(f"{name}.unacked", 0, "range")  # the FIN behind them is acknowledged
        return record


def cddl() -> str:
    """The text of session.cddl; it refers to the rule `flow` of control.cddl."""
    return files("locum.sessions").joinpath("session.cddl").read_text(encoding="utf-8")


def _check_flow(flow: Flow) -> None:
    if flow.protocol != _TCP:
        raise WireError("session-record.flow.protocol", 0, "range")
    if not flow.local_port or not flow.peer_port:
        raise WireError("session-record.flow.port", 0, "range")
    for field, address in (("local", flow.local), ("peer", flow.peer)):
        if not _is_of_a_host(address):
            raise WireError(f"session-record.flow.{field}", 0, "range")
    if flow.local == flow.peer:
        raise WireError("session-record.flow.peer", 0, "range")


def _is_of_a_host(address: IPv4Address | IPv6Address) -> bool:
    """One host's, and the same one's from everywhere."""
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_link_local:
        return False
    if isinstance(address, IPv4Address):
        return not address.is_reserved and address.packed[0] != 0
    return address.ipv4_mapped is None  # else a kernel takes it for IPv4, loopback included


def _numbers(items: list[object], field: str, ranges: tuple[tuple[int, int], ...]) -> list[int]:
    if len(items) != len(ranges):
        raise WireError(field, 0, "truncated")
    return [cbor.integer(item, field, low, high) for item, (low, high) in zip(items, ranges, strict=True)]


def _window(items: list[object]) -> Window:
    window = Window(*_numbers(items, "session-record.window", ((0, _U32),) * 5))
    if window.max_window < window.snd_wnd:  # tcp_repair_set_window() refuses it
        raise WireError("session-record.window", 0, "range")
    return window


def _scales(items: list[object]) -> tuple[int, int]:
    send, receive = _numbers(items, "session-record.window-scale", ((0, 14),) * 2)
    return send, receive


def _intake(items: list[object]) -> tuple[int, int]:
    read, buffer = _numbers(items, "session-record.intake", ((0, _U63), (0, _U32)))
    return read, buffer


def _keepalive(items: list[object]) -> tuple[int, int, int]:
    idle, interval, count = _numbers(
        items,
        "session-record.keepalive",
        ((1, LONGEST_KEEP_ALIVE), (1, LONGEST_KEEP_ALIVE), (1, MOST_PROBES)),
    )
    return idle, interval, count
