"""The state in which a stand-in leaves a connection, for the device that takes it back. Values only."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FinalTcp:
    """The stand-in's final state of a connection. Counts start at the capture, and exclude the FIN."""

    received: int  # for the program
    acked: int = 0  # sequence numbers of the captured send queue that the peer has acknowledged; the own FIN counts one
    timestamp: int | None = None  # the stand-in's TCP timestamp clock, in whatever unit
    peer_closed: bool = False  # the peer's FIN has come, before or after the capture
    error: int = 0  # errno that ended the connection
    send_window: int | None = None  # the peer's window in bytes; None when not known
