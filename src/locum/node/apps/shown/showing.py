"""Shows received bytes of a session to the proxy that attends it: much of it where it is stored, without a copy.

A few bytes go in the packet. More are lent: the packet has a descriptor of the spool's file that can only read, and the process
reads them there, a piece at a time. While a packet of a session is on its way, further bytes wait and make up the next one; of a
stream that never pauses, also for some milliseconds more. To wake a process costs more than to store what it is woken for.
"""

import asyncio
import contextlib

from locum.node.apps.process import AppProcess
from locum.node.apps.running import Attended, Running
from locum.node.apps.shown import datagrams
from locum.sessions.datagrams.spool import DatagramSpool
from locum.sessions.tcp.spool import Spool

CHUNK = 32 << 10
"""Bytes of one session that are copied into a packet; more are lent."""
LENT = 1 << 20
"""Bytes in one packet that are lent."""
PACE = 0.005
"""Seconds in which more than CHUNK, but less than LENT, is collected for the next packet."""
ON_THE_WAY = 2
"""Packets of one session: others of the same proxy find room, and it always has the next one."""


def show(app: Running, process: AppProcess) -> None:
    """Give the proxy what it has not seen of its sessions, as much as it takes, one session after the other."""
    for number in tuple(app.behind):
        if not process.free:
            return
        del app.behind[number]
        if (attended := app.sessions.get(number)) is not None and not _show(app, process, number, attended):
            app.behind[number] = None


def _show(app: Running, process: AppProcess, number: int, attended: Attended) -> bool:
    """True if it has everything."""
    spool = attended.held.spool
    if isinstance(spool, DatagramSpool):
        datagrams.show(process, number, attended, spool)
        return attended.shown >= spool.last
    while attended.shown < spool.total:
        if not process.free or not _is_time(app, process, number, attended, spool.total - attended.shown):
            return False
        size = _give(process, number, attended.shown, spool)
        if not size:
            return False
        attended.shown += size
    if attended.end_shown or not (spool.peer_closed or spool.error):
        return True
    attended.end_shown = process.free and process.send("closed", number, spool.error)
    return attended.end_shown


def _is_time(app: Running, process: AppProcess, number: int, attended: Attended, unseen: int) -> bool:
    """True if the next packet of the session may go; else it is shown again after an answer, or after PACE."""
    before, loop = process.on_the_way(number), asyncio.get_running_loop()
    if unseen >= LENT:
        return before < ON_THE_WAY
    if before:
        return False
    now = loop.time()
    if unseen <= CHUNK or now >= attended.shown_at + PACE:
        attended.shown_at = now
        return True
    if not app.pacing:
        app.pacing = True
        loop.call_at(attended.shown_at + PACE, _show_again, app)
    return False


def _show_again(app: Running) -> None:
    app.pacing = False
    if app.process is not None and app.begun:
        show(app, app.process)


def _give(process: AppProcess, number: int, position: int, spool: Spool) -> int:
    """Bytes that a packet has taken."""
    if spool.total - position > CHUNK:
        with contextlib.suppress(OSError):  # no descriptor is free: they are copied
            if (lent := spool.lend(position, LENT)) is not None:
                return process.lend(number, lent)
    data = spool.read(position, CHUNK)
    return len(data) if data and process.send("received", number, data) else 0
