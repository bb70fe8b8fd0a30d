"""Counts messages in a plain IMAP connection of the device's mail program, which waits in IDLE (RFC 2177).

Nothing is said there: an answer to a command of this proxy would have a tag that the program does not know.
"""

import re

MAX_LINE = 8192
"""Bytes; a longer line, such as one with a literal, is passed over."""
_EXISTS = re.compile(rb"\* (\d{1,10}) EXISTS\r?$", re.IGNORECASE)
_EXPUNGE = re.compile(rb"\* \d{1,10} EXPUNGE\r?$", re.IGNORECASE)


class ReadingAlong:
    """The capture may begin in the middle of a line, which is then no line of this kind."""

    def __init__(self) -> None:
        self._line = b""
        self._skipping = False
        self._exists = 0

    def received(self, data: bytes) -> int | None:
        """How many messages there are, if some have come; else None."""
        came = False
        *lines, rest = data.split(b"\n")
        for piece in lines:
            line, self._line = self._line + piece, b""
            if self._skipping:
                self._skipping = False
            elif found := _EXISTS.match(line):
                count = int(found[1])
                came = came or count > self._exists
                self._exists = count
            elif _EXPUNGE.match(line):
                self._exists = max(self._exists - 1, 0)
        self._line += rest
        if len(self._line) > MAX_LINE:
            self._line, self._skipping = b"", True
        return self._exists if came else None
