"""Read-ahead of a stand-in for a sleeping program (A12): in proportion to the program's own reading.

A program that read all that came goes on at the peer's speed. One that did not read keeps its peer waiting, as it would
have done awake: past the bound nothing is taken from the kernel, and the TCP window closes. No sockets and no clock here.
"""

from dataclasses import dataclass

from locum.sessions.record import SessionRecord

FACTOR = 16  # bytes taken ahead for each byte that the program had read before
_BACKLOG = 4  # a program with more than this part of its receive buffer unread does not keep up


@dataclass(frozen=True, slots=True)
class Intake:
    """Bounds of one session in bytes: so much at `least`, for a program that does not read too, and never above `most`."""

    least: int
    most: int

    def ahead(self, record: SessionRecord) -> int:
        """Number of unfetched bytes that may be held for this session."""
        if record.intake is None:  # a device that does not tell
            return self.most
        read, buffer = record.intake
        if record.unread * _BACKLOG > buffer:
            return self.least
        return min(max(self.least, FACTOR * read), self.most)
