"""The last message about a device's paging information to one node: sent again until it is answered, and what came of it.

Messages 1204 and 1206 are told alike. This module must not know what a message says.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, TypeAlias

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, Forget, NoAnswer, Persist
from locum.roles.paging.sent import latest
from locum.roles.parts import Part
from locum.wire.control.paging.event_table import EventTable1206, encode_1206
from locum.wire.control.paging.page_rules import PATH as RULES_PATH
from locum.wire.control.paging.page_rules import PageRules1204, encode_1204
from locum.wire.control.paging.status import PagingStatus, StatusAnswer, decode_status_answer
from locum.wire.errors import WireError

TABLE: Final = "wish"
ANSWER_TIMEOUT = 5.0
"""Seconds."""
RETRY_FIRST, RETRY_MAX = 1.0, 60.0
"""Seconds between two attempts: the first, doubled up to the last."""
MAX_ATTEMPTS = 10
"""Attempts for one message, about six minutes. The next change, sleep or wake begins again."""

Message: TypeAlias = PageRules1204 | EventTable1206


class Told(StrEnum):
    """State of a message, for users."""

    NOTHING = "nothing"  # there is none, and the node has nothing of this device
    ASKED = "asked"  # it is on its way
    TAKEN = "taken"
    REFUSED = "refused"
    UNANSWERED = "unanswered"  # every attempt, or the last one so far
    NO_ASSOCIATION = "no-association"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A rule or an entry that the node has not taken."""

    item: int
    reason: str


class Telling(Part):
    """The message of one kind to one node. `peer` gives its address, which may change with the home agent."""

    def __init__(
        self, path: str, peer: Callable[[], Addr], numbers: Iterator[int], home_address: Callable[[], Addr]
    ) -> None:
        self._path, self._peer, self._numbers, self._home_address = path, peer, numbers, home_address
        self.state = Told.NOTHING
        self.text = ""
        """Reason of a state, for users."""
        self.refused: tuple[Refusal, ...] = ()
        self.left = False
        """True if the node has, or may have, something of this device."""
        self.granted: int | None = None
        self.refusal: StatusAnswer | None = None
        """The answer of a node that has refused the message, until it is read."""
        self.last_sent = 0
        self._at = 0  # by the clock, when it was told
        self._message: Message | None = None
        self._told_to: Addr | None = None
        self._says = False
        self._request: int | None = None
        self._attempts = 0
        self._due: float | None = None

    @property
    def peer(self) -> Addr:
        """The node."""
        return self._peer()

    @property
    def taken(self) -> bool:
        """True if the node has answered that it has what is told."""
        return self.state in (Told.TAKEN, Told.NOTHING)

    def tell(self, message: Message, *, left: bool, at: int, now: float) -> list[Action]:
        """Send it, unless the node has the same; `left`: it says something. An earlier one ends. `at`: wall-clock milliseconds."""
        if not left and not self.left:
            self._end(Told.NOTHING)
            return []
        known = self._message
        same = known is not None and replace(known, sent=0) == message and self._told_to == self.peer
        if same and self.state in (Told.TAKEN, Told.ASKED, Told.REFUSED):
            return []
        self.last_sent, self._at = max(self.last_sent + 1, at), at
        self._end(Told.ASKED)
        self._message, self._told_to = replace(message, sent=self.last_sent), self.peer
        self._attempts, self.granted = 0, None
        self._says, self.left = left, True  # until the answer to an empty one
        return [self._row(taken=False), *self._ask(now)]

    def forget_said(self) -> None:
        """The next message is sent even if it is the same: its lifetime has to be renewed."""
        self._message = None

    def cannot(self) -> None:
        """There is no association with the node."""
        self._end(Told.NO_ASSOCIATION)
        self.text = f"no [[control.association]] with {self.peer}"
        self._message = None

    def restore_row(self, row: Persist) -> None:
        """The row of an earlier run; raises ValueError, KeyError or TypeError."""
        sent = row.value["sent"]
        if not isinstance(sent, int) or isinstance(sent, bool):
            raise ValueError("sent is a number of milliseconds")
        self.last_sent, self.left = sent, True
        self.state = Told.TAKEN if row.value["taken"] is True else Told.UNANSWERED

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The answer; None for anything else."""
        if not isinstance(event, Answered | NoAnswer) or event.request != self._request:
            return None
        self._request = None
        if isinstance(event, NoAnswer):
            return [Count(f"{self._path}-unanswered"), *self._again(event.reason, now)]
        try:
            answer = decode_status_answer(event.body)
        except WireError as error:
            return [Count(f"{self._path}-answer-{error.reason}"), *self._again("a malformed answer", now)]
        if answer.status is PagingStatus.BUSY:  # worth asking again
            return [Count(f"{self._path}-{_word(answer.status)}"), *self._again(_said(answer), now)]
        message = self._message
        if (
            answer.status is PagingStatus.REFUSED
            and message is not None
            and message.sent > latest(self._at / 1000)
        ):
            self.last_sent = self._at  # the clock was set back, and the node's agrees
            self._message = replace(message, sent=self._at)
            return [Count(f"{self._path}-clock"), self._row(taken=False), *self._ask(now)]
        return self._answered(answer)

    def timeout(self, *, now: float) -> list[Action]:
        """Send once more what was not answered."""
        if self._due is None or self._due > now:
            return []
        self._due = None
        return self._ask(now)

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due

    # Steps -------------------------------------------------------------------------------------------------------

    def _end(self, state: Told) -> None:
        self.state, self.text, self.refused = state, "", ()
        self._request = self._due = None

    def _ask(self, now: float) -> list[Action]:
        message = self._message
        assert message is not None
        self._attempts += 1
        self._request = next(self._numbers)
        peer, detail = self.peer, _detail(message)
        return [
            Ask(self._request, peer, self._path, _encoded(message), ANSWER_TIMEOUT),
            Emit("sent", self._path, self._home_address(), None, {"to": str(peer), **detail}),
        ]

    def _again(self, reason: str, now: float) -> list[Action]:
        self.state, self.text = Told.UNANSWERED, reason
        if self._attempts < MAX_ATTEMPTS:
            self._due = now + min(RETRY_FIRST * 2.0 ** (self._attempts - 1), RETRY_MAX)
            return []
        return [self._failed(reason, "no-answer")]

    def _answered(self, answer: StatusAnswer) -> list[Action]:
        self.granted = answer.lifetime
        if answer.status is not PagingStatus.OK:
            self._end(Told.REFUSED)
            self.refusal = answer
            self.text, self.refused = _said(answer), _refused(answer)
            word = _word(answer.status)
            return [Count(f"{self._path}-{word}"), self._failed(self.text, word)]
        self._end(Told.TAKEN if self._says else Told.NOTHING)
        self.text, self.refused = answer.text, _refused(answer)
        detail: dict[str, JSON] = {
            "by": str(self.peer),
            "refused": [f"{refusal.item}: {refusal.reason}" for refusal in self.refused],
        }
        taken = Emit("paging-information-taken", self._path, self._home_address(), None, detail)
        if self._says:
            return [self._row(taken=True), taken]
        self.left = False
        return [Forget(TABLE, self.key), taken]

    def _row(self, *, taken: bool) -> Persist:
        return Persist(TABLE, self.key, {"sent": self.last_sent, "taken": taken})

    def _failed(self, text: str, reason: str) -> Emit:
        detail: dict[str, JSON] = {"by": str(self.peer), "reason": reason, "text": text}
        return Emit("paging-information-failed", self._path, self._home_address(), None, detail)

    @property
    def key(self) -> str:
        """Key of its row."""
        return f"told {self._path}" if self._path == RULES_PATH else f"told {self._path} {self.peer}"


def _encoded(message: Message) -> bytes:
    return encode_1204(message) if isinstance(message, PageRules1204) else encode_1206(message)


def _detail(message: Message) -> Mapping[str, JSON]:
    if isinstance(message, PageRules1204):
        return {
            "state": message.state.name.lower(),
            "rules": len(message.rules),
            "otherwise": message.otherwise.name.lower(),
            "lifetime": message.lifetime,
        }
    return {"operation": message.operation.name.lower(), "entries": len(message.entries)}


def _word(status: PagingStatus) -> str:
    return status.name.lower().replace("_", "-")


def _said(answer: StatusAnswer) -> str:
    return answer.text or _word(answer.status)


def _refused(answer: StatusAnswer) -> tuple[Refusal, ...]:
    return tuple(
        Refusal(item.item, item.text or _word(item.status))
        for item in answer.items
        if item.status is not PagingStatus.OK
    )
