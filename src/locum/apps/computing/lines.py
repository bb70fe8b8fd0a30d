"""Cuts a stream into lines, whichever way the stream came in packets."""

MAX_LINE = 2048
"""Bytes of a line without its end; a longer one is left out, and counted."""


class Lines:
    """One stream. `too_long` counts the lines that were left out."""

    def __init__(self, partial: bytes = b"", *, skipping: bool = False) -> None:
        """`partial` is the beginning of a line; `skipping`: the rest of the present line is of no use."""
        self.partial, self.skipping = partial, skipping
        self.too_long = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends (LF or CR LF); empty ones are left out."""
        *ended, rest = data.split(b"\n")
        found: list[bytes] = []
        for piece in ended:
            if self._extend(piece) and (line := self.partial.removesuffix(b"\r")):
                found.append(line)
            self.partial, self.skipping = b"", False
        self._extend(rest)
        return found

    def finish(self) -> list[bytes]:
        """The last line, of a stream that ends without the end of a line."""
        return self.feed(b"\n") if self.partial else []

    def _extend(self, piece: bytes) -> bool:
        """Add to the present line; False if it is left out."""
        if self.skipping:
            return False
        if len(self.partial) + len(piece) > MAX_LINE:
            self.partial, self.skipping = b"", True
            self.too_long += 1
            return False
        self.partial += piece
        return True
