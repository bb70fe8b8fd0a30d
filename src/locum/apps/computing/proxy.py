"""The proxy of a computation: streams of attended sessions, a listener and its connections, and the state that survives (A8).

Bytes that were answered are in the kept state. Rows that came by the listener are kept at most KEEP_EVERY later: those that
a dying process had not kept yet are lost, as are those that come before the next one listens; `restarts` in the
result tells how often that was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from locum.apps.computing.computing import LISTENER, Computing, Origin
from locum.apps.computing.lines import Lines
from locum.apps.computing.rows import BadRow
from locum.apps.computing.settings import Settings
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Leave, Note, Port, Replace, Speak, Tell
from locum.roles.app_network import (
    TCP,
    Abort,
    Accepted,
    Connect,
    Data,
    Datagram,
    Ended,
    Finish,
    Happening,
    Listen,
    Opened,
    Send,
    SendTo,
)
from locum.roles.app_results import PROBLEM, RESULT
from locum.wire.control import Flow

MAX_SESSIONS = 8
"""Attended sessions: the beginning of a line of each is part of the state."""
MAX_PEERS = 32
"""Accepted connections at a time."""
KEEP_EVERY = 0.25
"""Seconds between two states that are kept because of a listener's rows."""
LISTEN_AGAIN = 5.0
"""Seconds."""
_MESSAGES = (Send, SendTo, Connect)
_FOR_THE_STAND_IN = (Speak, Replace, Tell, Note, Keep, Leave)


@dataclass(slots=True)
class Attended:
    """A session: its name, its present line, and the position of the next byte that will be shown."""

    name: str
    stream: Lines
    at: int


class Proxy:
    """A computation as a proxy; its kind reads the settings."""

    reads_all = True

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings = settings
        self.computing = Computing(settings, settings.engine())
        self._sessions: dict[int, Attended] = {}
        self._peers: dict[int, Lines] = {}
        self._left = False
        self._changed = False
        self._kept_at = float("-inf")
        self._listen_at: float | None = None
        self._listens = False
        self._deaf = ""  # why it does not listen
        self._due: list[Effect] = []  # goes out when the state is kept

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """By the correspondent's port."""
        assert isinstance(settings, Settings)
        return flow.protocol == TCP and flow.peer_port in settings.source.ports

    @staticmethod
    def ports(settings: object) -> Mapping[str, Port]:
        """That of `listen`."""
        assert isinstance(settings, Settings)
        source = settings.source
        return {} if source.port is None else {"listen.port": (source.protocol, source.port)}

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True where it attends sessions."""
        assert isinstance(settings, Settings)
        return bool(settings.source.ports)

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        effects: list[Effect] = []
        partials: dict[str, Lines] = {}
        if set(state) - {RESULT}:
            try:
                partials = self._restore(state, now)
            except (ValueError, TypeError, KeyError, IndexError, OverflowError) as problem:
                self.computing = Computing(self._settings, self._settings.engine())
                effects.append(Note(f"begins anew: the state of an earlier run cannot be used: {problem}"))
        self.computing.begin(now=now)
        for session in sessions[MAX_SESSIONS:]:
            effects.append(Leave(session.number, f"a computation attends at most {MAX_SESSIONS} sessions"))
        for session in sessions[:MAX_SESSIONS]:
            name = _name(session.flow)
            fresh = Lines(skipping=not self._settings.source.take_first)
            self._sessions[session.number] = Attended(name, partials.get(name, fresh), session.shown)
        return effects + self.prepare() + self._listen() + self._settle(now)

    def prepare(self) -> list[Effect]:
        """Begin with the engine; a kind may do more."""
        return []

    def _listen(self) -> list[Effect]:
        source = self._settings.source
        self._listen_at = None
        if source.port is None or self.computing.progress.over:
            return []
        self._listens = True
        return [Listen(LISTENER, source.port, source.protocol)]

    def _restore(self, state: Mapping[str, object], now: float) -> dict[str, Lines]:
        """Go on; the beginnings of lines by the names of their sessions."""
        running, saved, partials = state["running"], state["at"], state["partials"]
        if not isinstance(partials, list) or not isinstance(saved, float):
            raise ValueError("this is not the state of a computation")
        passed = now - saved if running is True and saved <= now else 0.0  # else its clock is another one
        self.computing.restore(state, now=now - passed)
        self.computing.progress.elapsed += passed
        if running is not True:
            return {}
        self.computing.progress.counts["restarts"] += 1
        return {str(name): Lines(bytes(partial), skipping=bool(skips)) for name, partial, skips in partials}

    # sessions

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        if session not in self._sessions:
            return []
        attended, computing = self._sessions[session], self.computing
        stream, start = attended.stream, attended.at - len(attended.stream.partial)
        skips, unused, over = stream.skipping, computing.unused, computing.progress.over
        effects = self._feed(stream, data, Origin(session=session), now)
        attended.at += len(data)
        length = attended.at - len(stream.partial) - start
        if length and not (skips or over or stream.skipping or computing.unused != unused):
            effects.append(Replace(session, start, length, computing.replacement()))
        return self._settle(now, effects, at_once=True)

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        if session not in self._sessions:
            return []
        stream = self._sessions.pop(session).stream
        origin = Origin(session=session)
        effects = self._last(stream, origin, now, whole=not error)
        self.computing.forget(origin)
        return self._settle(now, effects, at_once=True)

    def _feed(self, stream: Lines, data: bytes, origin: Origin, now: float) -> list[Effect]:
        before = stream.too_long
        lines = stream.feed(data)
        effects: list[Effect] = []
        for _ in range(stream.too_long - before):
            effects += self.computing.bad(BadRow("too_long"))
        return effects + self.computing.take(lines, origin, now=now)

    def _last(self, stream: Lines, origin: Origin, now: float, *, whole: bool) -> list[Effect]:
        """The stream has ended; after a failure the last line may be cut."""
        if whole:
            return self.computing.take(stream.finish(), origin, now=now)
        self.computing.progress.counts["cut"] += bool(stream.partial)
        return []

    # listener and connections

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        """Something has happened to the listener or a connection."""
        self._changed = True
        match event:
            case Datagram(_, peer, port, data):
                origin = Origin(host=peer, port=port)
                stream = Lines()
                effects = self._feed(stream, data, origin, now)
                return self._settle(now, effects + self._last(stream, origin, now, whole=True))
            case Accepted(_, connection, _, _):
                if len(self._peers) >= MAX_PEERS or self.computing.progress.over:
                    return [Abort(connection)]
                self._peers[connection] = Lines()
            case Data(connection, data) if connection in self._peers:
                return self._settle(now, self._said(connection, data, now))
            case Opened(connection, _) if connection == LISTENER:
                self._deaf = ""
            case Opened(connection, _) if connection in self.computing.outgoing:
                return [Send(connection, self.computing.outgoing.pop(connection)), Finish(connection)]
            case Ended(connection, reason):
                return self._settle(now, self._ended(connection, reason, now))
        return []

    def _said(self, connection: int, data: bytes, now: float) -> list[Effect]:
        stream, origin = self._peers[connection], Origin(connection=connection)
        if data:
            return self._feed(stream, data, origin, now)
        effects = self._last(stream, origin, now, whole=True)
        emission = self._settings.emission
        waits = emission is not None and emission.to == "correspondent" and not self.computing.progress.over
        return effects if waits else [*effects, Finish(connection)]

    def _ended(self, connection: int, reason: str, now: float) -> list[Effect]:
        if connection in self.computing.outgoing:
            return self.computing.lost(connection, reason)
        if connection == LISTENER:
            self._listens = False
            if self.computing.progress.over:
                return []
            self._listen_at = now + LISTEN_AGAIN
            self._deaf = f"port {self._settings.source.port} of the home address: {reason or 'closed'}"
            return [
                Note(f"the listener has ended: {reason}"),
                Tell("listener_ended", None, {"reason": reason}),
            ]
        stream = self._peers.pop(connection, None)
        origin = Origin(connection=connection)
        effects = [] if stream is None else self._last(stream, origin, now, whole=not reason)
        self.computing.forget(origin)
        return effects

    # time and state

    def timeout(self, *, now: float) -> list[Effect]:
        """The deadline has come."""
        due, self._due = self._due, []
        effects = self.computing.timeout(now=now)
        if self._listen_at is not None and self._listen_at <= now:
            effects += self._listen()
        return due + self._settle(now, effects)

    def deadline(self) -> float | None:
        if self._due:
            return self._kept_at
        times = [self.computing.deadline(), self._listen_at]
        if self._changed:
            times.append(self._kept_at + KEEP_EVERY)
        return min((at for at in times if at is not None), default=None)

    def _settle(self, now: float, effects: Sequence[Effect] = (), *, at_once: bool = False) -> list[Effect]:
        """Keep the state if it is time to, before anything goes out; and leave everything where it is over."""
        found = [*effects, *self._leave()]
        goes_out = any(isinstance(effect, Speak | Send | SendTo | Connect | Tell) for effect in found)
        if not (at_once or goes_out or (self._changed and self._kept_at + KEEP_EVERY <= now)):
            return found
        self._changed, self._kept_at = False, now
        keep = Keep({**self._state(now), RESULT: self._result()})
        if not self._due and not any(isinstance(effect, _MESSAGES) for effect in found):
            return [keep, *found]
        # The host sends before the stand-in has the state: a process that dies in between would send it twice.
        self._due += [effect for effect in found if not isinstance(effect, _FOR_THE_STAND_IN)]
        return [keep, *(effect for effect in found if isinstance(effect, _FOR_THE_STAND_IN))]

    def _leave(self) -> list[Effect]:
        """End the use of sessions, connections and the port of a computation that is over."""
        if self._left or not self.computing.progress.over:
            return []
        self._left = True
        effects: list[Effect] = [Leave(number, "the computation is over") for number in self._sessions]
        effects += [Finish(connection) for connection in self._peers]
        if self._listens:
            effects.append(Finish(LISTENER))
        self._sessions.clear()
        return effects

    def _state(self, now: float, *, running: bool = True) -> dict[str, object]:
        partials = [
            [attended.name, attended.stream.partial, attended.stream.skipping]
            for attended in self._sessions.values()
        ]
        return {**self.computing.state(now=now), "running": running, "at": now, "partials": partials}

    def _result(self) -> dict[str, JSON]:
        result: dict[str, JSON] = self.computing.result()
        return {**result, PROBLEM: self._deaf} if self._deaf else result

    def end(self, *, now: float) -> Mapping[str, object]:
        """A computation that is over begins anew with the next sleep; any other goes on."""
        streams = [*self._peers.values(), *(attended.stream for attended in self._sessions.values())]
        self.computing.progress.counts["cut"] += sum(bool(stream.partial) for stream in streams)
        self._sessions.clear()
        for effect in self._due:
            if isinstance(effect, _MESSAGES):
                self.computing.progress.counts.update(sent=-1, unsent=1)
        result = self._result()
        if self.computing.progress.over:
            return {RESULT: result}
        return {**self._state(now, running=False), RESULT: result}


def _name(flow: Flow) -> str:
    """Of a session, also in another handover."""
    return f"{flow.peer} {flow.peer_port} {flow.local_port}"
