"""The proxy that keeps sessions alive while their device sleeps (A3): MQTT, WebSocket, IRC, XMPP, SIP, or any payload, over TCP or UDP.

The protocol follows from the settings, or from the correspondent's port; arriving bytes confirm or refute it. Nothing is said in a
connection whose protocol is not certain. Arriving bytes, and answers that nobody waits for, are kept for the device's program.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from locum.apps.keep_alive.conversation import Conversation, Heard, is_tls
from locum.apps.keep_alive.published import Published
from locum.apps.keep_alive.resuming import Successor
from locum.apps.keep_alive.settings import HOLD, SILENT, WAKE, Settings, read
from locum.apps.keep_alive.web import QUIET, Web
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Note, Replace, Speak, Tell
from locum.roles.app_network import TCP, Abort, Data, Ended, Happening, Opened, Send
from locum.roles.app_results import RESULT
from locum.wire.control import Flow

WEBSOCKETS = "websockets"
"""Key of the state: flows that are WebSockets for certain."""
ENDED = "ended"
"""Key of the state: flows whose connection has ended in this sleep, and has a successor."""
MAX_ANSWERS = 32
"""Answers in one session between two keep-alives: a correspondent that asks more often gets no more."""
MAX_PUBLISHED = 16
"""Messages of a broker in one session that are told one by one in the same time: further ones are counted."""
MAX_SPENT = 32
"""Answers of the correspondent that are left out in the same time: further ones answer nothing, and go to the program."""


@dataclass(slots=True)
class Kept:
    """A connection. `told` is True from an event about data to the next keep-alive; `untold` counts bytes since then."""

    name: str
    conversation: Conversation
    start: int  # position of the conversation's first byte in the received stream
    flow: Flow
    said: int = 0
    answered: int = 0
    answers: int = 0  # since the last keep-alive
    spent: int = 0  # since then
    told: bool = False
    published: int = 0  # messages told since the last keep-alive
    unread: int = 0  # and those that were not
    counted: bool = False  # since then, a number of them was told
    untold: int = 0
    fresh: bool = True
    lost: bool = False


class KeepAlive:
    """One proxy for all sessions of a device that it recognises."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings, self._random = settings, randomness
        self._kept: dict[int, Kept] = {}
        self._ended: dict[int, Kept] = {}
        self._successors: dict[int, Successor] = {}
        self._at: float | None = None
        self._quiet_at: dict[int, float] = {}  # connections in which the last that arrived may be a ping

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        return read(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """By the correspondent's port."""
        assert isinstance(settings, Settings)
        return flow.protocol == settings.transport and flow.peer_port in settings.ports

    @staticmethod
    def needs_network(settings: object) -> bool:
        """True where ended connections are opened again."""
        assert isinstance(settings, Settings)
        return settings.resumption is not None

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True: it attends sessions."""
        return True

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        listed = state.get(WEBSOCKETS)
        known = set(listed) if isinstance(listed, list) else set()
        listed = state.get(ENDED)
        over = set(listed) if isinstance(listed, list) else set()
        for session in sessions:
            number, port = session.number, session.flow.peer_port
            quiet = self._settings.protocol is None and self._settings.transport == TCP
            why = SILENT.get(port, "") if quiet and not self._settings.payload else ""
            if not why and not session.whole:
                why = "the device may have been in the middle of a message"
            if why:
                effects.append(Leave(number, why))
                continue
            name, conversation = self._settings.conversation(session.flow, self._random)
            kept = Kept(name, conversation, session.shown, session.flow)
            # An earlier process of this sleep, which has shown bytes of it, was told of the end.
            if session.shown and str(session.flow) in over and self._settings.resumption is not None:
                effects += self._succeed(number, kept, now)
                continue
            self._kept[number] = kept
            if isinstance(conversation, Web) and str(kept.flow) in known:
                conversation.trust()
            effects.append(Note(f"keeps session {number} alive: {name}, {session.flow}"))
        self._at = now  # the device may have been silent for almost as long as its correspondent permits
        return effects

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        """Answer a correspondent that asks whether the device is there."""
        kept = self._kept.get(session)
        if kept is None:
            return []
        if kept.fresh and is_tls(data):
            return self._leave(
                session, "it is encrypted (TLS): a keep-alive would need the connection's keys"
            )
        kept.fresh = False
        one = kept.conversation
        doubted = isinstance(one, Web) and not one.sure
        heard = one.received(data)
        if heard.leave:
            return self._leave(session, heard.leave)
        effects: list[Effect] = []
        if doubted and isinstance(one, Web):
            self._quiet_at.pop(session, None)
            if one.sure:
                effects.append(Keep(self._state()))
            elif one.waits:
                self._quiet_at[session] = now + QUIET
        effects += self._answer(session, kept, heard.answers)
        spent = heard.spent[: MAX_SPENT - kept.spent]
        kept.spent += len(spent)
        effects += [Replace(session, kept.start + start, length) for start, length in spent]
        if one.lost and not kept.lost:
            kept.lost = True
            effects.append(
                Note(
                    f"session {session}: its bytes are not {kept.name} where they begin; they are not answered"
                )
            )
        return effects + self._news(session, kept, heard)

    def _answer(self, session: int, kept: Kept, answers: Sequence[bytes]) -> list[Effect]:
        answers = self._answers(kept, answers)
        if self._settings.transport == TCP and answers:
            answers = [b"".join(answers)]
        return [Speak(session, answer) for answer in answers]

    @staticmethod
    def _answers(kept: Kept, answers: Sequence[bytes]) -> Sequence[bytes]:
        """As many as a correspondent gets between two keep-alives."""
        answers = answers[: MAX_ANSWERS - kept.answers]
        kept.answers += len(answers)
        kept.answered += len(answers)
        return answers

    def _news(self, session: int, kept: Kept, heard: Heard) -> list[Effect]:
        if not heard.news or self._settings.on_data == HOLD:
            return []
        kept.untold += heard.news
        return [*self._published(session, kept, heard.published), *self._tell(session, kept)]

    def _published(self, session: int, kept: Kept, messages: Sequence[Published | None]) -> list[Effect]:
        """An event for each message of a broker; those beyond the bound, or that cannot be read, are told by their number."""
        effects: list[Effect] = []
        for message in messages:
            if message is None or kept.published >= MAX_PUBLISHED:
                kept.unread += 1
                continue
            kept.published += 1
            detail = {"protocol": kept.name, **message.detail()}
            effects.append(Tell("published", session, detail | self._wake(self._settings.on_data)))
        if kept.unread and not kept.counted:
            effects += self._unread(session, kept)
        return effects

    def _unread(self, session: int, kept: Kept) -> list[Effect]:
        count, kept.unread, kept.counted = kept.unread, 0, True
        detail: dict[str, JSON] = {"protocol": kept.name, "unread": count}
        return [Tell("published", session, detail | self._wake(self._settings.on_data))]

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        kept = self._kept.pop(session, None)
        if kept is None:
            return []
        self._ended[session] = kept
        self._quiet_at.pop(session, None)
        told: list[Effect] = []
        if self._settings.on_end != HOLD:
            detail: dict[str, JSON] = {"error": error, "protocol": kept.name}
            told.append(Tell("session_ended", session, detail | self._wake(self._settings.on_end)))
        if self._settings.resumption is None or kept.lost:
            return told
        told += self._succeed(session, kept, now)
        return [*told, Keep(self._state())]

    # successors of ended connections

    def _succeed(self, session: int, kept: Kept, now: float) -> list[Effect]:
        assert self._settings.resumption is not None
        self._ended[session] = kept
        peer = str(kept.flow.peer), kept.flow.peer_port
        self._successors[session] = Successor(session, peer, self._settings.resumption, now)
        return [Note(f"session {session} has ended: a new connection takes its place")]

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        """Something has happened to a successor."""
        match event:
            case Opened(number) if (one := self._successors.get(number)) is not None:
                return self._opened(one, one.opened(self._random, now))
            case Data(number, data) if data and (one := self._successors.get(number)) is not None:
                effects, rest = one.shook(data, now)
                effects = self._opened(one, effects)
                return effects + (self._heard(one, rest) if rest else [])
            case Data(number) if (one := self._successors.get(number)) is not None:
                return [Abort(number), *one.ended("", now)]
            case Ended(number, reason) if (one := self._successors.get(number)) is not None:
                return one.ended(reason, now)
        return []

    def _opened(self, one: Successor, effects: list[Effect]) -> list[Effect]:
        """The protocol begins, once the connection is open."""
        if one.is_open and one.conversation is None:
            kept = self._ended[one.number]
            kept.name, one.conversation = self._settings.conversation(kept.flow, self._random)
            kept.told = False
        return effects

    def _heard(self, one: Successor, data: bytes) -> list[Effect]:
        if one.conversation is None:
            return []
        kept, heard = self._ended[one.number], one.conversation.received(data)
        answers = b"".join(self._answers(kept, heard.answers))
        said: list[Effect] = [Send(one.number, answers)] if answers else []
        return said + self._news(one.number, kept, heard)

    def tell(self, session: int, text: str, *, now: float) -> list[Effect]:
        """Say a text of the device's in a session whose protocol has words for it."""
        kept = self._kept.get(session)
        says = None if kept is None or kept.lost else getattr(kept.conversation, "says", None)
        words = says(text, self._random) if says is not None else b""
        if not words:
            name = "it" if kept is None else kept.name
            return [Tell("not_told", session, {"reason": f"{name} has no words for a text now"})]
        return [
            Speak(session, words),
            Note(f"session {session}: told the correspondent a text of the device"),
        ]

    def ending(self, *, now: float) -> list[Effect]:
        """The device takes over."""
        return [effect for one in self._successors.values() for effect in one.ending(self._random)]

    # time

    def timeout(self, *, now: float) -> list[Effect]:
        """Try connections whose time has come, answer pings that nothing has followed; at the interval say something in every session."""
        due = [one for one in self._successors.values() if (at := one.deadline()) is not None and at <= now]
        quiet = [number for number, at in self._quiet_at.items() if at <= now]
        effects = [effect for one in due for effect in one.timeout(now)] + self._quiet(quiet)
        if (due or quiet) and self._at is not None and now < self._at:
            return effects
        for number, kept in (self._kept | self._open()).items():
            kept.answers, kept.spent, kept.told = 0, 0, False
            kept.published, kept.counted = 0, False
            successor = self._successors.get(number)
            conversation = kept.conversation if successor is None else successor.conversation
            if conversation is not None and (words := conversation.ping(self._random)):
                effects.append(Speak(number, words) if successor is None else Send(number, words))
                kept.said += 1
            if kept.unread:
                effects += self._unread(number, kept)
            if kept.untold:
                effects += self._tell(number, kept)
        early = self._settings.jitter * self._random.random()
        self._at = now + self._settings.interval - early
        return effects

    def _quiet(self, due: Sequence[int]) -> list[Effect]:
        effects: list[Effect] = []
        for number in due:
            del self._quiet_at[number]
            kept = self._kept[number]
            if isinstance(one := kept.conversation, Web) and (answers := one.quiet()):
                effects.append(Keep(self._state()))
                effects += self._answer(number, kept, answers)
        return effects

    def _open(self) -> dict[int, Kept]:
        return {number: self._ended[number] for number, one in self._successors.items() if one.is_open}

    def deadline(self) -> float | None:
        times = [*(one.deadline() for one in self._successors.values()), *self._quiet_at.values()]
        if self._kept or any(one.is_open for one in self._successors.values()):
            times.append(self._at)
        return min((at for at in times if at is not None), default=None)

    def end(self, *, now: float) -> Mapping[str, object]:
        everything = {**self._kept, **self._ended}
        result: dict[str, object] = {
            "keepalives": {str(number): kept.said for number, kept in everything.items()}
        }
        if answered := {str(number): kept.answered for number, kept in everything.items() if kept.answered}:
            result["answered"] = answered
        if resumed := {str(number): one.resumed for number, one in self._successors.items() if one.resumed}:
            result["resumed"] = resumed
        known = self._websockets()
        return {RESULT: result, WEBSOCKETS: known} if known else {RESULT: result}

    def _state(self) -> dict[str, object]:
        """For the next process."""
        over = sorted(str(self._ended[number].flow) for number in self._successors)
        state: dict[str, object] = {WEBSOCKETS: self._websockets()}
        return state | ({ENDED: over} if over else {})

    def _websockets(self) -> list[str]:
        """The flows that are WebSockets for certain: they still are in the next sleep."""
        return sorted(
            str(kept.flow)
            for kept in self._kept.values()
            if isinstance(kept.conversation, Web) and kept.conversation.sure
        )

    def _tell(self, session: int, kept: Kept) -> list[Effect]:
        if kept.told:
            return []
        count, kept.untold, kept.told = kept.untold, 0, True
        detail: dict[str, JSON] = {"protocol": kept.name, "bytes": count}
        return [Tell("message_available", session, detail | self._wake(self._settings.on_data))]

    @staticmethod
    def _wake(chosen: str) -> dict[str, JSON]:
        """A mark for those that page the device."""
        return {"wake": True} if chosen == WAKE else {}

    def _leave(self, session: int, reason: str) -> list[Effect]:
        self._ended[session] = self._kept.pop(session)
        self._quiet_at.pop(session, None)
        return [Leave(session, reason)]
