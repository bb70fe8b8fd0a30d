"""Live TCP connections, gathered: the device's end (`live`) and the stand-in's end (`stand_in`) of one session."""

from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.parked import Intent, Parked
from locum.sessions.tcp.receiving import Injected
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
