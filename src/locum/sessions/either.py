"""TCP and UDP sessions alike: which of the two a record, a row or a socket is, and the calls that both have.

The two kinds know nothing of each other; nobody else has to ask which one it is.
"""

import socket
from collections.abc import Callable, Mapping

from locum.sessions import stand_in
from locum.sessions.datagrams import stand_in as datagram_stand_in
from locum.sessions.datagrams.flows import UDP
from locum.sessions.datagrams.live import LiveDatagrams, ParkedDatagrams
from locum.sessions.datagrams.record import DatagramRecord
from locum.sessions.datagrams.spool import DatagramSpool
from locum.sessions.find import Candidate
from locum.sessions.live import LiveSocket
from locum.sessions.parked import Parked
from locum.sessions.record import SessionRecord
from locum.sessions.spool import Spool

AnyLive = LiveSocket | LiveDatagrams
AnyParked = Parked | ParkedDatagrams
AnyRecord = SessionRecord | DatagramRecord
AnySpool = Spool | DatagramSpool


def open_live(candidate: Candidate, parked: AnyParked | None = None) -> AnyLive:
    """A second descriptor of the program's socket. Raises SessionError when nobody holds it any more."""
    if candidate.flow.protocol == UDP:
        return LiveDatagrams.open(candidate, parked if isinstance(parked, ParkedDatagrams) else None)
    return LiveSocket.open(candidate, parked if isinstance(parked, Parked) else None)


def parked_from_json(value: Mapping[str, object]) -> AnyParked:
    """What the device's node stored of a captured socket; raises KeyError, TypeError or ValueError for anything else."""
    ends = value["flow"]
    if isinstance(ends, (list, tuple)) and ends and ends[0] == UDP:
        return ParkedDatagrams.from_json(value)
    return Parked.from_json(value)


def record_from_cbor(value: object) -> AnyRecord:
    """The record that travels for a session of either kind. Raises WireError."""
    flow = value.get(0) if isinstance(value, dict) else None
    if isinstance(flow, list) and flow and flow[0] == UDP:
        return DatagramRecord.from_cbor(value)
    return SessionRecord.from_cbor(value)


def restore(record: AnyRecord, *, keep: Callable[[socket.socket], None] | None = None) -> socket.socket:
    """The stand-in's socket for a session. Raises SessionError when the kernel refuses it."""
    if isinstance(record, DatagramRecord):
        return datagram_stand_in.restore(record, keep=keep)
    return stand_in.restore(record, keep=keep)


def is_datagrams(sock: socket.socket) -> bool:
    """Whether a socket of the stand-in's is a UDP session's."""
    return sock.type == socket.SOCK_DGRAM
