"""TCP and UDP sessions alike: which of the two a record, a row or a socket is, and the calls that both have.

The two kinds know nothing of each other; no other module has to ask which one it is.
"""

import socket
from collections.abc import Callable, Mapping
from contextlib import suppress

from locum.sessions.datagram_flows import UDP
from locum.sessions.datagrams import stand_in as datagram_stand_in
from locum.sessions.datagrams.live import LiveDatagrams, ParkedDatagrams
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.datagrams.spool import DatagramSpool
from locum.sessions.record import SessionRecord
from locum.sessions.search.find import Candidate
from locum.sessions.tcp import repair, stand_in
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.parked import Intent, Parked
from locum.sessions.tcp.spool import Spool

AnyLive = LiveSocket | LiveDatagrams
AnyParked = Parked | ParkedDatagrams | Intent  # the last one only after a capture that was cut off
AnyRecord = SessionRecord | DatagramRecord
AnySpool = Spool | DatagramSpool


def open_live(candidate: Candidate, parked: AnyParked | None = None) -> AnyLive:
    """A second descriptor of the program's socket. Raises SessionError if no process holds it any more."""
    if candidate.flow.protocol == UDP:
        return LiveDatagrams.open(candidate, parked if isinstance(parked, ParkedDatagrams) else None)
    return LiveSocket.open(candidate, parked if isinstance(parked, (Parked, Intent)) else None)


def look(live: AnyLive) -> Intent | None:
    """State to store before a capture; None if unnecessary. Raises SessionError for unsuitable sessions."""
    return live.look() if isinstance(live, LiveSocket) else None


def parked_from_json(value: Mapping[str, object]) -> AnyParked:
    """Stored data of a captured socket; raises KeyError, TypeError or ValueError for malformed data."""
    ends = value["flow"]
    if isinstance(ends, (list, tuple)) and ends and ends[0] == UDP:
        return ParkedDatagrams.from_json(value)
    with suppress(KeyError, TypeError, ValueError):
        return Parked.from_json(value)
    return Intent.from_json(value)


def record_from_cbor(value: object) -> AnyRecord:
    """The record that travels for a session of either kind. Raises WireError."""
    flow = value.get(0) if isinstance(value, dict) else None
    if isinstance(flow, list) and flow and flow[0] == UDP:
        return DatagramRecord.from_cbor(value)
    return SessionRecord.from_cbor(value)


def restore(
    record: AnyRecord,
    *,
    keep: Callable[[socket.socket], None] | None = None,
    lacking: Callable[[str], None] = lambda option: None,
) -> socket.socket:
    """The stand-in's socket for a session; `lacking` is called with options that this kernel does not have.

    Raises SessionError when the kernel refuses it.
    """
    if isinstance(record, DatagramRecord):
        return datagram_stand_in.restore(record, keep=keep)
    return stand_in.restore(record, keep=keep, lacking=lacking)


def is_datagrams(sock: socket.socket) -> bool:
    """True if a socket of the stand-in belongs to a UDP session."""
    return sock.type == socket.SOCK_DGRAM


def stop(sock: socket.socket) -> None:
    """The session stands still; its flow is held."""
    if not is_datagrams(sock):
        stand_in.stop(sock)


def stands_still(sock: socket.socket) -> bool:
    """True for a connection that was stopped."""
    return not is_datagrams(sock) and repair.in_repair(sock)


def drop(sock: socket.socket) -> None:
    """Closes the socket without a packet."""
    if is_datagrams(sock):
        sock.close()
    else:
        stand_in.drop(sock)


def reset(sock: socket.socket) -> None:
    """End the session with a reset to the peer of a connection; raises OSError if that fails."""
    if is_datagrams(sock):
        sock.close()
    else:
        stand_in.reset(sock)


def quiet(sock: socket.socket, spool: AnySpool, now: int) -> float:
    """Seconds since the peer sent something, or since the restore; `now` is in milliseconds of CLOCK_BOOTTIME."""
    if isinstance(spool, DatagramSpool):
        return max(now - spool.heard, 0) / 1000
    return stand_in.quiet(sock)


def stopped(sock: socket.socket, spool: AnySpool) -> FinalTcp | None:
    """After a restart: the final state of a stopped connection; None for a running one."""
    if isinstance(spool, DatagramSpool) or not stands_still(sock):
        return None
    return stand_in.final(
        sock,
        spool.record,
        received=spool.for_program,
        peer_closed=spool.peer_closed,
        error=spool.error,
        spoken=len(spool.said.data),
    )


def seal(spool: AnySpool) -> None:
    """Seal the spool before the device reads: kept data is no longer replaced by new data."""
    if isinstance(spool, DatagramSpool):
        spool.seal()
