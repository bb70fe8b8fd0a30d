"""Why something failed, in words for people: neither an exception's class nor a value's code in them."""

import re

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")


def reason(problem: BaseException) -> str:
    """What an exception says. One that is a mistake of this program says nothing to people: the log has it."""
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
