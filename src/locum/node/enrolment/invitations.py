"""Open invitations of a server: each is for one device, for a short time, and ends after five wrong proofs.

A stranger cannot tell an unknown number from a used or expired one: `secret` always has one to compute with. A secret
leaves the row as soon as its invitation is used or ended; memory has it a while longer, so that a late device
that proves the code is told the reason. Time and randomness are arguments.

It must not know connections, messages or the store.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from locum.wire.enrolment.code import MOST_NUMBER, SECRET_BYTES
from locum.wire.enrolment.messages import Denied

MOST_OPEN = 256
MOST_WRONG = 5  # proofs; a secret has 40 bits, so a guesser finds one invitation in 2 ** 37
REMEMBERED = 3600.0  # seconds in which a late device is told why its code is no longer valid

Entropy = Callable[[int], bytes]


class InvitationError(ValueError):
    """An invitation that cannot be made: the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation. Times are seconds of the clock that the caller uses, the same after a restart."""

    number: int
    name: str  # of the device
    secret: bytes = field(repr=False)
    expires_at: float
    wrong: int = 0
    joined: bytes | None = None  # public key of the device that has proved the code

    def ended(self, now: float) -> Denied | None:
        """Why it is no longer open; None if it is."""
        if self.joined is not None:
            return Denied.USED
        return Denied.EXPIRED if self.wrong >= MOST_WRONG or now >= self.expires_at else None

    def to_row(self) -> dict[str, Any]:
        """The row of an open invitation; the store is readable by its owner alone."""
        return {
            "name": self.name,
            "secret": self.secret.hex(),
            "expires_at": self.expires_at,
            "wrong": self.wrong,
        }

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, Any]) -> "Invitation":
        """From a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        number, secret, name = int(key), bytes.fromhex(row["secret"]), row["name"]
        if not 0 <= number <= MOST_NUMBER or len(secret) != SECRET_BYTES or not isinstance(name, str):
            raise ValueError(f"row {key} is no invitation")
        return cls(number, name, secret, float(row["expires_at"]), int(row["wrong"]))


class Invitations:
    """Those of one server. After each call that may end one, `open_rows` has what the store should have."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy = entropy
        self._known: dict[int, Invitation] = {}

    def restore(self, rows: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
        """Take rows of before a restart; the keys of those that cannot be read, which the caller forgets."""
        unreadable = []
        for key, row in rows.items():
            try:
                invitation = Invitation.from_row(key, row)
            except (ValueError, KeyError, TypeError):
                unreadable.append(key)
            else:
                self._known[invitation.number] = invitation
        self.forget(now)
        return unreadable

    def open_rows(self, now: float) -> dict[str, dict[str, Any]]:
        """Rows of the open invitations by their keys. A secret that is not among them should be erased."""
        return {
            str(number): invitation.to_row()
            for number, invitation in self._known.items()
            if invitation.ended(now) is None
        }

    def invite(self, name: str, seconds: float, now: float) -> Invitation:
        """A new invitation for the device `name`; an open one of that name ends. Raises InvitationError."""
        self.forget(now)
        for number, before in list(self._known.items()):
            if before.name == name and before.ended(now) is None:
                self._known[number] = replace(before, expires_at=now)
        if sum(known.ended(now) is None for known in self._known.values()) >= MOST_OPEN:
            raise InvitationError(f"{MOST_OPEN} invitations are open: wait until one is used or has expired")
        while (number := int.from_bytes(self._entropy(2), "big") & MOST_NUMBER) in self._known:
            pass
        invitation = Invitation(number, name, self._entropy(SECRET_BYTES), now + seconds)
        self._known[number] = invitation
        return invitation

    def secret(self, number: int) -> bytes:
        """The secret to answer with: one at random, which nobody has, for a number that is not known."""
        random = self._entropy(SECRET_BYTES)
        known = self._known.get(number)
        return random if known is None else known.secret

    def wrong(self, number: int, now: float) -> bool:
        """Count a wrong proof. True: it was the last one that the invitation bore."""
        known = self._known.get(number)
        if known is None or known.ended(now) is not None:
            return False
        self._known[number] = replace(known, wrong=known.wrong + 1)
        return known.wrong + 1 >= MOST_WRONG

    def proved(self, number: int, public_key: bytes, now: float) -> Invitation | Denied:
        """The invitation, which this device now has used, or why another may not.

        The device that has used it gets it once more: the answer may have been lost on its way.
        """
        known = self._known.get(number)
        if known is None:
            return Denied.EXPIRED
        if known.joined == public_key and now < known.expires_at:
            return known
        reason = known.ended(now)
        if reason is not None:
            return reason
        self._known[number] = used = replace(known, joined=public_key)
        return used

    def is_used(self, number: int) -> bool:
        """True if a device has used it."""
        known = self._known.get(number)
        return known is not None and known.joined is not None

    def reopen(self, number: int) -> None:
        """The device that has used it was not admitted: it, or another, may use it until it expires."""
        known = self._known.get(number)
        if known is not None:
            self._known[number] = replace(known, joined=None)

    def forget(self, now: float) -> None:
        """Erase the secrets that were remembered long enough, the oldest first where there are too many."""
        kept = [known for known in self._known.values() if now < known.expires_at + REMEMBERED]
        ended = [known for known in kept if known.ended(now) is not None]
        surplus = {known.number for known in ended[: max(0, len(ended) - MOST_OPEN)]}
        self._known = {known.number: known for known in kept if known.number not in surplus}
