"""The call proxy: keeps a SIP registration alive while its device sleeps, and rings for named callers (A7).

It has the UDP port of the device's SIP program meanwhile. INVITEs of calls that still ring when the device wakes are in the result, as datagrams for that
port: the program gets them as if they came now, and the dialogue is its own.
"""

from collections.abc import Mapping, Sequence

from sipmessage import Request, Response

from locum.apps.call.calls import Calls, Missed, Refused, Rings, Say, Step, kept
from locum.apps.call.messages import Caller, SipError, read
from locum.apps.call.registration import Outcome, Registered, Registration
from locum.apps.call.settings import Settings
from locum.apps.call.settings import read as read_settings
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import AppSession, Effect, Keep, Note, Port, Tell
from locum.roles.app_network import UDP, Datagram, Ended, Happening, Listen, Opened, SendTo
from locum.roles.app_results import DATAGRAMS, FAILED, PROBLEM, RESULT
from locum.wire.control import Flow

LISTENER = 1
AGAIN = 5.0
"""Seconds until the port is tried again."""
LAST = 20
"""Calls in the result."""
MAX_NOTES = 50
"""Lines about bytes that are no SIP."""


class Call:
    """One SIP user."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        assert isinstance(settings, Settings)
        self._settings = settings
        self._random = randomness
        self._calls = Calls(settings, randomness)
        self._registration: Registration | None = None
        self._registrars: set[str] = set()
        self._open = False
        self._again: float | None = None
        self._failed = ""
        self._deaf = ""  # why it does not listen
        self._notes = 0
        self._last: list[object] = []

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> Settings:
        """Raises SettingError."""
        return read_settings(table)

    @staticmethod
    def wants(settings: object, flow: Flow) -> bool:
        """No session: it has a port of its own."""
        return False

    @staticmethod
    def ports(settings: object) -> Mapping[str, Port]:
        """Its own."""
        assert isinstance(settings, Settings)
        return {"port": (UDP, settings.port)}

    @staticmethod
    def only_asleep(settings: object) -> bool:
        """True: a call that rings reaches the device's program when the device wakes."""
        return True

    def begin(
        self, sessions: Sequence[AppSession], state: Mapping[str, object], *, now: float
    ) -> list[Effect]:
        match state:
            case {"calls": list(calls), "registrars": list(registrars), "result": {"calls": list(last)}}:
                self._last = last
                self._registrars = {str(registrar) for registrar in registrars}
                for call in calls:
                    self._resume(call, now)
        if self._settings.registrar is not None:
            self._registration = Registration(self._settings, self._random, now=now)
        return [Listen(LISTENER, self._settings.port, UDP)]

    def received(self, session: int, data: bytes, *, now: float) -> list[Effect]:
        return []

    def closed(self, session: int, error: int, *, now: float) -> list[Effect]:
        return []

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        match event:
            case Opened(connection=1):
                self._open, self._again, self._deaf = True, None, ""
                return [*(self._say(call.say()) for call in self._calls.ringing())]
            case Ended(connection=1, reason=reason):
                self._open, self._again = False, now + AGAIN
                self._deaf = f"port {self._settings.port} of the home address: {reason or 'closed'}"
                return [Note(f"port {self._settings.port}: {reason or 'closed'}")]
            case Datagram(listener=1, peer=peer, port=port, data=data):
                return self._arrived(data, (peer, port), now)
        return []

    def timeout(self, *, now: float) -> list[Effect]:
        if self._again is not None and self._again <= now:
            self._again = None
            return [Listen(LISTENER, self._settings.port, UDP)]
        effects: list[Effect] = []
        if not self._open:
            return effects
        registration = self._registration
        if registration is not None and registration.due is not None and registration.due <= now:
            effects += self._stands(registration.timeout(now=now))
        if self._calls.due is not None and self._calls.due <= now:
            effects += self._step(self._calls.timeout(now=now))
        return effects

    def deadline(self) -> float | None:
        if not self._open:
            return self._again
        registration = None if self._registration is None else self._registration.due
        return min((at for at in (registration, self._calls.due) if at is not None), default=None)

    def end(self, *, now: float) -> Mapping[str, object]:
        return {RESULT: self._result()}

    # datagrams

    def _arrived(self, data: bytes, source: tuple[str, int], now: float) -> list[Effect]:
        if not data.strip(b"\r\n\0"):
            return []  # keep-alives of a server behind which a NAT is (RFC 5626 section 4.4.1)
        try:
            message = read(data)
        except SipError as problem:
            return self._passed_over(f"{source[0]}: {problem}")
        if isinstance(message, Response):
            return self._answered(message, source, now)
        if self._registrars and source[0] not in self._registrars:
            return self._passed_over(f"{source[0]}: {message.method} from elsewhere than the registrar")
        return self._step(self._calls.received(message, data, source, now=now))

    def _answered(self, response: Response, source: tuple[str, int], now: float) -> list[Effect]:
        if self._registration is None or response.cseq.method != "REGISTER":
            return []
        outcomes = self._registration.received(response, now=now)
        if any(isinstance(outcome, Registered) for outcome in outcomes):
            self._registrars.add(source[0])
        return self._stands(outcomes)

    def _passed_over(self, text: str) -> list[Effect]:
        self._notes += 1
        if self._notes > MAX_NOTES:
            return []
        return [Note(text)]

    def _say(self, say: Say) -> SendTo:
        return SendTo(LISTENER, *say.place, say.data)

    def _stands(self, outcomes: Sequence[Outcome]) -> list[Effect]:
        effects: list[Effect] = []
        assert self._settings.registrar is not None
        for outcome in outcomes:
            match outcome:
                case bytes(data):
                    effects.append(SendTo(LISTENER, *self._settings.registrar, data))
                case Registered(seconds):
                    effects += [Note(f"registered for {seconds} seconds"), self._keep()]
                case _:
                    effects.append(Note(outcome.reason))
                    if outcome.final:
                        self._failed = outcome.reason
                        effects.append(Tell("registration_failed", None, {"reason": outcome.reason}))
        return effects

    def _step(self, steps: Sequence[Step]) -> list[Effect]:
        effects: list[Effect] = []
        for step in steps:
            match step:
                case Say():
                    effects.append(self._say(step))
                case Rings(who):
                    effects += self._remember("call_from", who, {})
                case Refused(who, code):
                    effects += self._remember("call_refused", who, {"code": code})
                case Missed(who, _, reason):
                    effects += self._remember("call_missed", who, {"reason": reason})
        return effects

    def _remember(self, kind: str, who: Caller, detail: Mapping[str, JSON]) -> list[Effect]:
        told: dict[str, JSON] = {"caller": who.address, "name": who.name, **detail}
        self._last = [*self._last, {"event": kind, **told}][-LAST:]
        return [Tell(kind, None, told), self._keep()]

    # state

    def _result(self) -> dict[str, object]:
        ringing = self._calls.ringing()
        result: dict[str, object] = {"calls": self._last}
        if self._deaf:
            result[PROBLEM] = self._deaf
        if ringing:
            result[DATAGRAMS] = [
                [call.source[0], call.source[1], self._settings.port, call.data] for call in ringing
            ]
        return {**result, FAILED: self._failed} if self._failed else result

    def _keep(self) -> Keep:
        state = {"calls": kept(self._calls.ringing()), "registrars": sorted(self._registrars)}
        return Keep({**state, RESULT: {"calls": self._last}})

    def _resume(self, call: object, now: float) -> None:
        match call:
            case {"invite": bytes(data), "peer": str(peer), "port": int(port), "tag": str(tag)}:
                message = read(data)
                assert isinstance(message, Request)
                self._calls.resume(message, data, (peer, port), tag, now=now)
