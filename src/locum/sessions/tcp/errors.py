"""The error of moving a live session. It must not know which kind of session it is."""


class SessionError(Exception):
    """A connection that cannot be captured or restored; the text says which and why. Nothing was changed."""
