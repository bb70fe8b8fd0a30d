"""The error of moving a live session. It must not know which kind of session it is."""


class SessionError(Exception):
    """A connection that cannot be captured or restored, with the reason; no state was changed."""
