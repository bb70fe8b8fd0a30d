"""The mail proxy: watches a mailbox while its device sleeps, and emits an event when a message is there (A6).

Ordered, it has a connection of its own to an IMAP server. Attended, it reads along in a plain connection of the device's mail program that waits
in IDLE, and says nothing there.
"""

from collections.abc import Mapping, Sequence

from locum.apps.mail.reading_along import ReadingAlong
from locum.apps.mail.session import (
    Encrypt,
    Failed,
    Found,
    ImapSession,
    Known,
    Renumbered,
    Waiting,
    Wish,
    Write,
)
from locum.apps.mail.settings import Account, Settings, read
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Tell
from locum.roles.app_network import TCP, Abort, Connect, Data, Ended, Happening, Opened, Send, StartTls
from locum.roles.app_results import FAILED, RESULT
from locum.wire.control import Flow

FIRST_AGAIN, LONGEST_AGAIN = 1.0, 300.0
"""Seconds until the next try to connect, each after twice the time of the one before."""
TOLD_AFTER = 3
"""Tries in a row that have failed when an event says so."""
AT_ONCE, EACH = 20, 6.0
"""Messages with an event of their own: so many at once, and one more every `EACH` seconds; the others are folded."""
FOLDING = 60.0
"""Seconds between two events for folded messages."""
LAST = 20
"""Messages in the result."""


class Mail:
    """One mailbox, or the attended sessions of mail programs."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings, self._random = settings, randomness
        self._along: dict[int, ReadingAlong] = {}
        self._known: Known | None = None
        self._session: ImapSession | None = None
        self._connection = 0
        self._again: float | None = None
        self._failures = 0
        self._failed = ""
        self._waits = False
        self._credit, self._credit_at = float(AT_ONCE), 0.0
        self._folded = 0
        self._unread = 0
        self._fold_at: float | None = None
        self._messages = 0
        self._last: list[object] = []

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        return read(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """Sessions are attended by the correspondent's port, if the settings say so."""
        assert isinstance(settings, Settings)
        return flow.protocol == TCP and flow.peer_port in settings.ports

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True where it reads along."""
        assert isinstance(settings, Settings)
        return settings.account is None

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        self._along = {session.number: ReadingAlong() for session in sessions}
        self._credit_at = now
        match state:
            case {"validity": int(validity), "next": int(next_uid)} if validity > 0 and next_uid > 0:
                self._known = Known(validity, next_uid)
        match state:  # of an earlier process in this sleep
            case {
                "folded": int(folded),
                "unread": int(unread),
                "result": {"messages": int(told), "last": list(last)},
            }:
                self._folded, self._unread, self._messages, self._last = folded, unread, told, last
                self._fold_at = now if folded or unread else None
        return self._connect(now)

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        along = self._along.get(session)
        if along is None or (count := along.received(data)) is None:
            return []
        self._messages += 1
        return [Tell("message_available", session, {"messages": count})]

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        if self._along.pop(session, None) is None:
            return []
        return [Tell("session_ended", session, {"error": error})]

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        """Something has happened to the connection; what concerns an earlier one is passed over."""
        match event:
            case Opened(connection) if connection == self._connection:
                return self._opened(now)
            case Data(connection, data) if connection == self._connection and self._session is not None:
                if not data:
                    return self._lost("the server has ended the connection", now)
                return self._fulfil(self._session.received(data, now=now), now)
            case Ended(connection, reason) if connection == self._connection:
                return self._lost(reason or "the server has ended the connection", now, abort=False)
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        effects: list[Effect] = []
        if self._fold_at is not None and self._fold_at <= now:
            effects += [*self._tell_folded(now), self._keep()]
        if self._again is not None and self._again <= now:
            effects += self._connect(now)
        if self._session is not None and self._session.due <= now:
            effects += self._fulfil(self._session.timeout(now=now), now)
        return effects

    def deadline(self) -> float | None:
        session = None if self._session is None else self._session.due
        return min((at for at in (self._again, session, self._fold_at) if at is not None), default=None)

    def end(self, *, now: float) -> Mapping[str, object]:
        return {**self._place(), RESULT: self._result()}

    def _result(self) -> dict[str, object]:
        result: dict[str, object] = {"messages": self._messages, "last": self._last}
        return {**result, FAILED: self._failed} if self._failed else result

    # the connection

    @property
    def _account(self) -> Account | None:
        return self._settings.account

    def _connect(self, now: float) -> list[Effect]:
        self._again = None
        if (account := self._account) is None or self._failed:
            return []
        self._connection += 1
        return [Connect(self._connection, account.host, account.port, tls=account.tls == "tls")]

    def _opened(self, now: float) -> list[Effect]:
        if (account := self._account) is None:
            return []
        if self._session is None:
            self._session = ImapSession(account, self._known, now=now)
            return []
        return self._fulfil(self._session.encrypted(now=now), now)

    def _lost(self, reason: str, now: float, *, abort: bool = True, final: bool = False) -> list[Effect]:
        """Try again later, unless it is in vain."""
        effects: list[Effect] = [Abort(self._connection)] if abort else []
        self._session, self._waits = None, False
        self._connection += 1  # what still comes of this one does not count
        self._failures += 1
        if final:
            self._failed = reason
            return [*effects, Note(reason), Tell("watch_ended", None, {"reason": reason}), self._keep()]
        wait = min(FIRST_AGAIN * 2.0 ** min(self._failures - 1, 20), LONGEST_AGAIN)
        wait *= 1.0 - self._random.random() / 4
        self._again = now + wait
        effects.append(Note(f"{reason}; another try in {wait:.0f} seconds"))
        if self._failures == TOLD_AFTER:
            effects.append(Tell("watch_interrupted", None, {"reason": reason}))
        return effects

    def _fulfil(self, wishes: Sequence[Wish], now: float) -> list[Effect]:
        effects: list[Effect] = []
        for wish in wishes:
            match wish:
                case Write(data):
                    effects.append(Send(self._connection, data))
                case Encrypt():
                    assert self._account is not None
                    effects.append(StartTls(self._connection, self._account.host))
                case Waiting():
                    if not self._waits and self._known is not None:
                        effects.append(Note(f"waits for messages, from UID {self._known.next_uid} on"))
                    self._waits, self._failures = True, 0
                case Renumbered(known):
                    effects.append(
                        Note("the server has numbered the mailbox anew; it is watched from here on")
                    )
                    effects += self._found(Found((), known), now)
                case Found():
                    effects += self._found(wish, now)
                case Failed(reason, final):
                    return [*effects, *self._lost(reason, now, final=final)]
        return effects

    # messages

    def _found(self, found: Found, now: float) -> list[Effect]:
        """Tell of those that the filter takes. The place in the mailbox is kept together with the events."""
        self._known = found.known
        effects: list[Effect] = []
        for message in found.messages:
            if not self._settings.filter.takes(message):
                continue
            self._messages += 1
            self._last = [*self._last, dict(message.detail())][-LAST:]
            self._credit = min(self._credit + (now - self._credit_at) / EACH, AT_ONCE)
            self._credit_at = now
            if self._credit >= 1:
                self._credit -= 1
                effects.append(Tell("message_available", None, message.detail()))
            else:
                self._folded += 1
        self._unread += found.surplus
        if (self._folded or self._unread) and self._fold_at is None:
            effects += self._tell_folded(now)
        return [*effects, self._keep()]

    def _keep(self) -> Keep:
        waiting = {"folded": self._folded, "unread": self._unread}
        return Keep({**self._place(), **waiting, RESULT: self._result()})

    def _tell_folded(self, now: float) -> list[Effect]:
        """One event for all that had none."""
        if not self._folded and not self._unread:
            self._fold_at = None
            return []
        detail: dict[str, JSON] = {"messages": self._folded, "unread": self._unread}
        self._folded = self._unread = 0
        self._fold_at = now + FOLDING
        return [Tell("message_available", None, detail)]

    def _place(self) -> dict[str, object]:
        if self._known is None:
            return {}
        return {"validity": self._known.validity, "next": self._known.next_uid}
