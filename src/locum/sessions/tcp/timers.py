"""Timers and the timestamp clock of a captured socket: disarmed while the device sleeps, set again when it is back."""

import socket
from contextlib import suppress
from dataclasses import replace

from locum.sessions.record import SessionRecord, TimestampUnit
from locum.sessions.tcp import repair
from locum.sessions.tcp.parked import Parked, ProgramOptions

LONGEST_USER_TIMEOUT = 0x7FFFFFFF  # milliseconds: 24.8 days, the kernel's largest
LONGEST_IN_MICROSECONDS = LONGEST_USER_TIMEOUT // 1000  # for a connection whose timestamps count microseconds
USUAL_TIMEOUT = 924_600  # milliseconds: after these, retransmissions end a connection (tcp_retries2 is 15)
_TCP = socket.IPPROTO_TCP


def disarm(sock: socket.socket, parked: Parked, record: SessionRecord) -> None:
    """Turn off every timer that could end the connection while the device sleeps."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
    timeout = LONGEST_USER_TIMEOUT
    if parked.microseconds and record.timestamp is not None:
        # In microseconds the kernel can count 35 minutes.
        if repair.info(sock).retransmissions:
            timeout = LONGEST_IN_MICROSECONDS
        else:
            repair.set_timestamp(sock, record.timestamp, TimestampUnit.MILLISECONDS)
    sock.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, timeout)
    # With the peer's window at zero, probes end a connection after tcp_retries2 of them, and retransmissions end it
    # after two times the longest timeout, whatever the user timeout. Retransmissions into an open window do not.
    now = replace(record.window, snd_wnd=max(record.window.snd_wnd, record.mss))
    with suppress(OSError):
        repair.set_window(sock, replace(now, max_window=max(now.max_window, now.snd_wnd)))
    waiting = repair.unsent(sock)
    if waiting and waiting == repair.unacknowledged(sock):
        repair.mark_all_sent(sock)


def rearm(sock: socket.socket, options: ProgramOptions) -> None:
    """Restore the program's options, with its user timeout counted from now on.

    Where the kernel has retransmitted meanwhile it counts from the first time, and the peer could answer none. It looks
    at the timeout when it retransmits next.
    """
    now = repair.info(sock)
    timeout = options.user_timeout
    if now.retransmissions:
        most = LONGEST_IN_MICROSECONDS if now.timestamp_unit else LONGEST_USER_TIMEOUT
        timeout = min(int(now.quiet * 1000) + now.timeout + (timeout or USUAL_TIMEOUT), most)
    sock.setsockopt(_TCP, socket.TCP_USER_TIMEOUT, timeout)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, options.keepalive)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, options.reuse_address)


def set_clock(sock: socket.socket, parked: Parked, value: int, *, progress: bool = False) -> None:
    """Set the timestamp clock to `value`, so that it does not go back, in the connection's own unit.

    The kernel measures retransmissions by this clock, so the unit stays while there are any: without `progress`, that
    is an acknowledgement.
    """
    unit = TimestampUnit(parked.microseconds)
    now = repair.info(sock)
    if now.retransmissions and not progress:
        unit = now.timestamp_unit
    repair.set_timestamp(sock, value, unit)
