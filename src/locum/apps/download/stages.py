"""Stages of one ordered download; `transfer.py` has the transitions.

Waiting -> Rereading -> Asking <-> (redirects) -> Receiving -> Storing -> Naming -> Stored
   ^______________________|_____________|                                 Failed from any of them
"""

from dataclasses import dataclass
from typing import TypeAlias

from locum.apps.download.address import Address
from locum.apps.download.digests import Digests, Running
from locum.apps.download.response import Response


@dataclass(frozen=True, slots=True)
class Waiting:
    """For its turn, or for the end of a pause; `at` in steady seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class Rereading:
    """The digest of what an earlier process has stored is computed again."""


@dataclass(slots=True)
class Asking:
    """A request is under way; `until` in steady seconds."""

    connection: int
    address: Address
    response: Response
    redirects: int
    until: float
    opened: bool = False


@dataclass(slots=True)
class Receiving:
    """The body arrives. `window` began at that time and has got `gained` bytes; `first` is the body's first byte in the file.

    `part` and `of_part`: digest of this response alone, where the server tells one (Content-Digest).
    """

    connection: int
    response: Response
    first: int
    window: float
    last: float
    gained: int = 0
    part: Running | None = None
    of_part: Digests | None = None


@dataclass(frozen=True, slots=True)
class Storing:
    """All is there and right, and is made durable."""


@dataclass(frozen=True, slots=True)
class Naming:
    """It gets its name."""


@dataclass(frozen=True, slots=True)
class Stored:
    """It is durable under its name."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The reason is for users."""

    reason: str


Stage: TypeAlias = Waiting | Rereading | Asking | Receiving | Storing | Naming | Stored | Failed


class Retry(Exception):
    """This attempt has failed, and another one may succeed: after so many seconds, if the server says so; `anew` from byte 0."""

    def __init__(self, reason: str, *, after: float | None = None, anew: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.after, self.anew = reason, after, anew


class GiveUp(Exception):
    """No further attempt can succeed."""
