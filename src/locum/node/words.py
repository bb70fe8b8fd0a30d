"""Reasons of failures, in words for users: without class names and code values."""

import re

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def reason(problem: BaseException) -> str:
    """Text of an exception. Errors of this program have no text for users: the log has them."""
    if isinstance(problem, OSError) and problem.strerror:
        name = f" ({problem.filename})" if isinstance(problem.filename, str) else ""
        return f"{problem.strerror}{name}"
    ours = type(problem).__module__.partition(".")[0] == "locum"
    if str(problem) and (ours or isinstance(problem, OSError)):
        return str(problem)
    return "an internal error, which the daemon's log has"


def step(action: object) -> str:
    """The name of an action as words: "find sessions"."""
    return _HUMP.sub(" ", type(action).__name__).lower()
