"""Live TCP connections, gathered: the device's end (`live`) and the stand-in's end (`stand_in`) of one session."""

from locum.sessions.tcp.live import FinalTcp, Injected, LiveSocket, SessionError
from locum.sessions.tcp.parked import Intent, Parked
from locum.sessions.tcp.stand_in import (
    Condition,
    condition,
    drop,
    final,
    reset,
    restore,
    resume,
    stop,
    take_error,
)

__all__ = [
    "Condition",
    "FinalTcp",
    "Injected",
    "Intent",
    "LiveSocket",
    "Parked",
    "SessionError",
    "condition",
    "drop",
    "final",
    "reset",
    "restore",
    "resume",
    "stop",
    "take_error",
]
