"""What can go wrong in the lab itself, as opposed to a check that did not hold."""


class LabError(Exception):
    """The lab could not do what it was asked to; the text says what, where, and what to do."""


class Interrupted(KeyboardInterrupt):
    """SIGTERM or Ctrl-C arrived; everything the lab made is taken down while this propagates.

    It is a KeyboardInterrupt: no `except Exception` may swallow it, and what runs labs one after the other ends.
    """
