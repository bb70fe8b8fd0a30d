"""The store that keeps a stand-in's sockets open while no daemon runs: a holder, or systemd."""

import os
from pathlib import Path

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
