"""Calls that come while the device sleeps: server transactions of INVITE and of what belongs to it (RFC 3261 sections 13.3 and 17.2).

A call of a named person rings until the device takes it, its caller gives up, or `ring` seconds have passed; any other one is refused.
Reliable provisional responses (100rel) are not sent: a caller that requires an extension gets 420 (section 8.2.2.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sipmessage import Request

from locum.apps.call.messages import METHODS, Caller, branch, caller, destination, response
from locum.apps.call.registration import T1, T2, TIMEOUT
from locum.apps.call.settings import Settings
from locum.roles.action_values.addresses import Randomness

RINGING = 60.0
"""Seconds between two 180: proxies give a call up after three minutes of silence (section 13.3.1.1)."""
MAX_CALLS = 32
"""Calls at a time; another one is not answered until one has ended."""
MAX_RINGING = 4
"""Calls that ring at a time; another one gets 486. Their INVITEs are part of the proxy's state."""

Place: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Say:
    """A datagram for this address and port."""

    place: Place
    data: bytes


@dataclass(frozen=True, slots=True)
class Rings:
    """A named person calls."""

    caller: Caller
    call: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Another person has called, and got this code."""

    caller: Caller
    code: int


@dataclass(frozen=True, slots=True)
class Missed:
    """A call that rang has ended without an answer; `reason` is `cancelled` or `no answer`."""

    caller: Caller
    call: str
    reason: str


Step: TypeAlias = Say | Rings | Refused | Missed


@dataclass(slots=True)
class Call:
    """An INVITE and its last response. `ends` while it rings; `gives_up` once a final response waits for its ACK."""

    request: Request
    data: bytes
    source: Place
    who: Caller
    tag: str
    code: int
    ends: float
    due: float
    wait: float = T1
    gives_up: float = 0.0
    contact: str = ""

    @property
    def rings(self) -> bool:
        return self.code == 180

    @property
    def key(self) -> tuple[str, str]:
        return branch(self.request), self.request.call_id

    def say(self) -> Say:
        """The last response once more."""
        fields = f"Contact: <{self.contact}>\r\n" if self.rings and self.contact else ""
        data = response(self.request, self.code, self.source, self.tag, fields)
        return Say(destination(self.request, self.source), data)


class Calls:
    """All of one device."""

    def __init__(self, settings: Settings, randomness: Randomness) -> None:
        self._settings, self._random = settings, randomness
        self._calls: dict[tuple[str, str], Call] = {}

    @property
    def due(self) -> float | None:
        """Steady seconds of the next `timeout`."""
        return min((call.due for call in self._calls.values()), default=None)

    def ringing(self) -> list[Call]:
        """Calls that wait for the device, the oldest first."""
        return [call for call in self._calls.values() if call.rings]

    def resume(self, request: Request, data: bytes, source: Place, tag: str, *, now: float) -> None:
        """A call that rang when an earlier process ended."""
        self._add(request, data, source, tag, 180, now)

    def received(self, request: Request, data: bytes, source: Place, *, now: float) -> list[Step]:
        """A request."""
        match request.method:
            case "INVITE":
                return self._invited(request, data, source, now)
            case "ACK":
                self._calls.pop(self._key(request), None)
                return []
            case "CANCEL":
                return self._cancelled(request, source, now)
            case "OPTIONS":
                return [self._reply(request, 200, source, f"Allow: {METHODS}\r\n")]
            case "BYE":
                return [self._reply(request, 481, source)]
        return [self._reply(request, 405, source, f"Allow: {METHODS}\r\n")]

    def timeout(self, *, now: float) -> list[Step]:
        """Ring on, repeat final responses that have no ACK, and end calls that nobody takes."""
        steps: list[Step] = []
        for call in [call for call in self._calls.values() if call.due <= now]:
            if call.rings and now >= call.ends:
                steps += [Missed(call.who, call.request.call_id, "no answer"), self._end(call, 480, now)]
            elif call.rings:
                call.due = min(now + RINGING, call.ends)
                steps.append(call.say())
            elif now >= call.gives_up:
                del self._calls[call.key]
            else:
                call.wait = min(2 * call.wait, T2)
                call.due = min(now + call.wait, call.gives_up)
                steps.append(call.say())
        return steps

    @staticmethod
    def _key(request: Request) -> tuple[str, str]:
        return branch(request), request.call_id

    def _invited(self, request: Request, data: bytes, source: Place, now: float) -> list[Step]:
        if (known := self._calls.get(self._key(request))) is not None:
            return [known.say()]
        if request.to_address.parameters.get("tag"):
            return [self._reply(request, 481, source)]  # of a dialogue that only the program knows
        if len(self._calls) >= MAX_CALLS:
            return []
        if required := [name for name in request.require if name]:
            return [self._reply(request, 420, source, f"Unsupported: {', '.join(required)}\r\n")]
        who = caller(request)
        if self._settings.named(who.address) and len(self.ringing()) >= MAX_RINGING:
            call = self._add(request, data, source, self._token(), 486, now)
            return [call.say(), Refused(who, call.code)]
        if self._settings.named(who.address):
            call = self._add(request, data, source, self._token(), 180, now)
            return [call.say(), Rings(who, request.call_id)]
        call = self._add(request, data, source, self._token(), self._settings.others, now)
        return [call.say(), Refused(who, call.code)]

    def _add(self, request: Request, data: bytes, source: Place, tag: str, code: int, now: float) -> Call:
        ends = now + self._settings.ring
        call = Call(request, data, source, caller(request), tag, code, ends, min(now + RINGING, ends))
        call.contact = str(self._settings.contact)
        if not call.rings:
            call.due, call.gives_up = now + T1, now + TIMEOUT
        self._calls[call.key] = call
        return call

    def _cancelled(self, request: Request, source: Place, now: float) -> list[Step]:
        call = self._calls.get(self._key(request))
        if call is None:
            return [self._reply(request, 481, source)]
        steps: list[Step] = [self._reply(request, 200, source, tag=call.tag)]
        if call.rings:
            steps += [self._end(call, 487, now), Missed(call.who, call.request.call_id, "cancelled")]
        return steps

    def _end(self, call: Call, code: int, now: float) -> Say:
        call.code, call.wait = code, T1
        call.due, call.gives_up = now + T1, now + TIMEOUT
        return call.say()

    def _reply(self, request: Request, code: int, source: Place, fields: str = "", tag: str = "") -> Say:
        data = response(request, code, source, tag or self._token(), fields)
        return Say(destination(request, source), data)

    def _token(self) -> str:
        return f"{self._random.getrandbits(64):016x}"


def kept(calls: list[Call]) -> list[Mapping[str, object]]:
    """Ringing calls as values that CBOR and `restored` take."""
    return [
        {"invite": call.data, "peer": call.source[0], "port": call.source[1], "tag": call.tag}
        for call in calls
    ]
