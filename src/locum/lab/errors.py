"""Errors of the lab itself, as opposed to failed checks."""


class LabError(Exception):
    """An error of the lab; the text gives the problem, its place and a remedy."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C arrived; everything the lab made is taken down while this propagates.

    It is a KeyboardInterrupt: no `except Exception` may swallow it, and what runs labs one after the other ends.
    """
