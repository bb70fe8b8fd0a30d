"""Exit codes of `locum`, as documented in the user guide."""

from enum import IntEnum


class Exit(IntEnum):
    """Results that a shell or a suspend hook can tell from the exit code."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    CONFIG = 4
    PRIVILEGE = 5
    PARTIAL = 6  # done, but some sessions stayed or were lost, or files are missing
    COMMAND_DENIED = 126  # of `locum run`, as shells have it
    COMMAND_MISSING = 127
    INTERRUPTED = 130
