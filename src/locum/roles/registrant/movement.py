"""A mobile node's messages when it changes its access node (C4): place or destination of its context.

A part of its registrations. Predictive: it announces the next access node to the present one, which has the context
and the packets there before it answers. Reactive: it names the one it came from. It must not know links.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.registration import ContextTransferRequest, Options, ReceivedAnswer
from locum.roles.actions import Action
from locum.roles.registrant.attachment import Attachment
from locum.roles.registrant.candidates import CareOfCandidates

MOVE_PATIENCE = 15.0  # seconds in which the next access node must be heard; then the mobile node stays


class CannotMove(Exception):
    """The mobile node cannot do that now; the text is the reason, for users."""


@dataclass(frozen=True, slots=True)
class Move:
    """To the access node with this care-of address, until so long (steady seconds) after it was asked for."""

    care_of: IPv4Address
    until: float
    announced: bool = False  # the present access node has handed over


def _care_of(to: str, candidates: CareOfCandidates, in_use: Attachment, now: float) -> IPv4Address:
    for attachment in candidates.available(now, in_use):
        if to in (attachment.link, str(attachment.agent), str(attachment.care_of)):
            return attachment.care_of
    try:
        return IPv4Address(to)
    except ValueError:
        raise CannotMove(f"no access node is heard on {to}") from None


class Movement:
    """`enabled` makes a mobile node announce its context at all; `brief_lifetime` in seconds."""

    def __init__(self, *, enabled: bool, brief_lifetime: int) -> None:
        self.enabled = enabled
        self.move: Move | None = None
        self.last: str = ""  # result of the last move, for users; empty: success
        self._brief_lifetime = brief_lifetime
        self._context_at: IPv4Address | None = None
        self._store_at: IPv4Address | None = None

    def to_row(self) -> JSON:
        """The access node that has the context, as part of a row."""
        return None if self._context_at is None else str(self._context_at)

    def from_row(self, row: JSON) -> None:
        """From part of a row of our own; raises ValueError for anything else."""
        self._context_at = None if row is None else IPv4Address(str(row))

    def store_at(self, care_of: Addr | None) -> None:
        """The next very short registration sends the context there (C7): the stand-in's access node, from its 632."""
        self._store_at = care_of if isinstance(care_of, IPv4Address) else None

    def begin(self, to: str, candidates: CareOfCandidates, in_use: Attachment, now: float) -> None:
        """Announce a move to a link, an agent or a care-of address. Raises CannotMove."""
        care_of = _care_of(to, candidates, in_use, now)
        if care_of == in_use.care_of:
            raise CannotMove(f"{to} is where it is already")
        self.move, self.last = Move(care_of, now + MOVE_PATIENCE), "not done"

    def registered(self, attachment: Attachment) -> None:
        """The present access node has handed over, or the next one has taken."""
        if self.move is None:
            return
        if attachment.care_of == self.move.care_of:
            self.move, self.last = None, ""
        else:
            self.move = replace(self.move, announced=True)

    def ready(self, candidates: CareOfCandidates, in_use: Attachment | None, now: float) -> bool:
        """True if the announced access node advertises; the wait for it is bounded."""
        if self.move is None:
            return False
        if now >= self.move.until:
            self.move, self.last = None, "the access node was not heard in time"
            return False
        heard = candidates.available(now, in_use, self.move.care_of)
        return self.move.announced and bool(heard) and heard[0].care_of == self.move.care_of

    @property
    def preferred(self) -> IPv4Address | None:
        """The care-of address to register next, once the present access node knows."""
        return self.move.care_of if self.move is not None and self.move.announced else None

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """An instruction under the mobile node's proof: no other node can have given it."""
        transfer = self._transfer(attachment, lifetime)
        return options if transfer is None else replace(options, transfer=transfer)

    def _transfer(self, attachment: Attachment, lifetime: int) -> ContextTransferRequest | None:
        if not self.enabled or attachment.colocated or not lifetime:
            return None
        if self.move is not None and not self.move.announced and attachment.care_of != self.move.care_of:
            return ContextTransferRequest(self.move.care_of, towards=True)
        if self._store_at not in (None, attachment.care_of) and lifetime <= self._brief_lifetime:
            assert self._store_at is not None
            return ContextTransferRequest(self._store_at, towards=True)
        if self._context_at in (None, attachment.care_of):
            return None
        assert self._context_at is not None
        return ContextTransferRequest(self._context_at)

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """With a very short lifetime the context stays where it is, or goes where it was to be stored."""
        if not self.enabled or not reply.accepted or not reply.lifetime or attachment.colocated:
            return ()
        if reply.lifetime > self._brief_lifetime:
            self._context_at, self._store_at = attachment.care_of, None
        elif self._store_at is not None:
            self._context_at, self._store_at = self._store_at, None
        return ()
