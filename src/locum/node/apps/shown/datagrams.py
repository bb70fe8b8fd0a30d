"""UDP flows that a proxy attends: each datagram is shown in a packet of its own, and each word of the proxy is one (A1)."""

import socket

from locum.node.apps.process import AppProcess
from locum.node.apps.running import Attended
from locum.node.sessions.draining import HeldSocket
from locum.sessions.datagrams.spool import DatagramSpool


def show(process: AppProcess, number: int, attended: Attended, spool: DatagramSpool) -> None:
    """Give the process what it has not seen, as much as it takes. A packet says how far the proxy was before it."""
    if attended.shown >= spool.last:
        return
    for place, data in spool.after(attended.shown):
        if not process.free or not process.send("received", number, data, attended.shown):
            return
        attended.shown = place


def send(held: HeldSocket, data: bytes) -> str | None:
    """Send a datagram; the name of a counter if it is not sent. The proxy is not told, as nobody is of a lost one."""
    if held.stopped is not None:
        return "app-speaks-late"
    try:
        held.socket.send(data, socket.MSG_DONTWAIT)
    except OSError:
        return "app-not-sent"
    return None
