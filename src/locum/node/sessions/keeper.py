"""The store that keeps a stand-in's sockets open while no daemon runs: a holder, or systemd."""

import contextlib
import os
import socket
from pathlib import Path

from locum.node.sessions.draining import BEGAN_HERE
from locum.sessions import either
from locum.sessions.holder import FdStore


def open_keeper(holder: Path | None) -> FdStore | None:
    """The store of this holder; without a holder that of systemd, or None. Raises OSError: the holder does not run."""
    if holder is None:
        return FdStore.systemd(os.environ)
    try:
        return FdStore.holder(holder)
    except OSError as problem:
        raise OSError(
            problem.errno,
            f"{holder}: no holder answers ({problem.strerror}); "
            f"start one: python -m locum.sessions.holder {holder}",
        ) from None


def discard(keeper: FdStore, name: str, fd: int) -> None:
    """Close a kept descriptor that has no row, silently where the device goes on with the connection.

    The daemon was killed when it dropped the session, whose socket stands still then or is reset. Or it was killed before the row
    was stored: the device has its connection still, but nobody has one that began here, so its peer is told.
    """
    session = name.removesuffix(BEGAN_HERE)
    if session.count("-") != 1:
        os.close(fd)
        return
    with socket.socket(fileno=fd) as connection:
        with contextlib.suppress(OSError):  # it has ended
            if name != session and not either.stands_still(connection):
                either.reset(connection)
            else:
                either.stop(connection)
        keeper.remove(name)
