"""Direct pages that a device hears on its access link while it sleeps, and its decisions about them (P5).

A call is sealed by a stand-in. It counts if it is newer than the last one of that stand-in that counted, and about a minute old at
most: a recorded one wakes nobody, also after a restart. A device that goes on sleeping sends an answer, and does nothing else. This
module must not know how a device wakes, nor how a program runs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr, Randomness, Source
from locum.roles.action_values.direct_pages import DecidePage, DirectedDevice, Direction, PageDecided
from locum.roles.actions import (
    Action,
    Count,
    Emit,
    Event,
    Persist,
    SendRegistration,
    WallClockStepped,
)
from locum.roles.mobile_node.page_calls import KEY, TABLE
from locum.roles.paging.direct_calls import Unsealable, fits, read_call, write_answer
from locum.roles.paging.matching import matches
from locum.roles.parts import Part, readable
from locum.security.replay import difference, ntp64
from locum.security.sealing import NONCE_BYTES
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.direct_message import DirectKind, DirectMessage
from locum.wire.control.paging.direct_page import (
    NO_DIRECTIONS,
    Decision,
    DirectCall,
    DirectDecision,
    LeftOut,
)
from locum.wire.control.paging.entry import Condition
from locum.wire.errors import WireError

WINDOW: Final = 60.0
"""Seconds that a call's time may be from the device's own: a page may last 45 seconds, and clocks differ."""

STATE: Final = "state"
"""The proxy's state, as a field of the event: conditions name its fields "state.NAME"."""
WAKE: Final = DirectDecision(Decision.WAKING)


@dataclass(frozen=True, slots=True)
class _Call:
    """A call that is believed: its header, its content, where it came from."""

    header: DirectMessage
    content: DirectCall
    stand_in: Addr
    source: Source


@dataclass(frozen=True, slots=True)
class _Last:
    """The last call of a stand-in that counted, and the answer; without one, the device has not decided yet."""

    page: bytes
    identification: int
    answer: bytes = b""


def _read(row: Persist) -> tuple[Addr, _Last]:
    page, answer = (bytes.fromhex(str(row.value[name])) for name in ("page", "answer"))
    return ip_address(row.key), _Last(page, int(str(row.value["identification"])), answer)


class DirectCalls(Part):
    """The calls for one device. `asleep` tells whether it sleeps or is about to; `wake` wakes it."""

    def __init__(
        self,
        configuration: DirectedDevice,
        home_address: Callable[[], Addr],
        asleep: Callable[[], bool],
        wake: Callable[[float], list[Action]],
        randomness: Randomness,
    ) -> None:
        self._configuration, self._home_address = configuration, home_address
        self._asleep, self._wake, self._randomness = asleep, wake, randomness
        self._last: dict[Addr, _Last] = {}
        self._deciding: _Call | None = None
        self._ahead = 0.0

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Continue with the calls that were answered in an earlier run."""
        found, actions = readable([row for row in rows if row.key != KEY], TABLE, _read)
        self._last.update(last for _row, last in found)
        return actions

    def called(self, message: bytes, source: Source, *, now: float) -> list[Action]:
        """The actions that follow from a message on the access link."""
        found = self._heard(message, source, now)
        if isinstance(found, str):
            return [Count(f"direct-call-{found}")]
        last = self._last.get(found.stand_in)
        if last is not None and (last.page, last.identification) == _named(found.header):
            return self._repeated(found, last)
        if last is not None and difference(found.header.identification, last.identification) <= 0:
            return [Count("direct-call-replayed")]
        if abs(difference(found.header.identification, ntp64(now + self._ahead))) > WINDOW * (1 << 32):
            return [Count("direct-call-clock")]
        if self._deciding is not None:
            return [Count("direct-call-deciding")]
        if not self._asleep():
            return self._decided(found, WAKE, "awake", now)
        return self._decide(found, now)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """The decision of the program; None for anything else."""
        if isinstance(event, WallClockStepped):
            self._ahead = event.ahead
            return None
        if not isinstance(event, PageDecided):
            return None
        call, self._deciding = self._deciding, None
        if call is None or call.header.page != event.page:
            return [Count("direct-call-decision-late")]
        if event.decision is None:
            failed: dict[str, JSON] = {"reason": event.reason}
            told = Emit("page-command-failed", "1172A", call.header.home_address, None, failed)
            return [told, *self._decided(call, WAKE, "command-failed", now)]
        if not fits(event.decision):
            return [Count("direct-call-directions-too-long"), *self._decided(call, WAKE, "command", now)]
        return self._decided(call, event.decision, "command", now)

    def _heard(self, message: bytes, source: Source, now: float) -> _Call | str:
        """The call, if a stand-in has sealed it; otherwise the reason under which it is counted."""
        try:
            header = DirectMessage.decode(message)
        except WireError as error:
            return error.reason
        if header.kind is not DirectKind.CALL:
            return "not-a-call"
        if header.home_address != self._home_address():
            return "for-another"
        for stand_in, keys in self._configuration.keys.items():
            try:
                return _Call(header, read_call(header, keys.peer), stand_in, source)
            except Unsealable:
                continue
            except WireError as error:
                return error.reason
        return "not-authentic"

    def _repeated(self, call: _Call, last: _Last) -> list[Action]:
        """The last call once more: the answer was lost. It has the same, and wakes nobody again."""
        return [Count("direct-call-repeated"), self._send(call, last.answer)]

    # Decisions ---------------------------------------------------------------------------------------------------

    def _decide(self, call: _Call, now: float) -> list[Action]:
        direction = self._direction(call.content)
        if direction is not None:
            decision = DirectDecision(direction.decision, direction.directions)
            return self._decided(call, decision, "direction", now)
        command = self._configuration.command
        if command is None:
            return self._decided(call, WAKE, "no-direction", now)
        self._deciding = call
        return [DecidePage(call.header.page, command.command, command.seconds, _told(call))]

    def _direction(self, call: DirectCall) -> Direction | None:
        """The first direction for the event; None too where a condition is about something that was left out of the call."""
        event = call.event
        whole = ApplicationEvent(event.app, event.kind, {**event.detail, STATE: call.state})
        for direction in self._configuration.directions:
            for pattern in direction.patterns:
                if any(_missing(condition, call.left_out) for condition in pattern.conditions):
                    return None
                if matches(pattern, whole, {}):
                    return direction
        return None

    def _decided(self, call: _Call, decision: DirectDecision, by: str, now: float) -> list[Action]:
        waking = decision.decision is Decision.WAKING
        if waking:
            decision = DirectDecision(Decision.WAKING, NO_DIRECTIONS)
        keys = self._configuration.keys[call.stand_in]
        nonce = self._randomness.getrandbits(8 * NONCE_BYTES).to_bytes(NONCE_BYTES, "big")
        answer = write_answer(decision, call.header, keys.own, nonce)
        last = self._last[call.stand_in] = _Last(*_named(call.header), answer)
        detail: dict[str, JSON] = {
            "by": str(call.stand_in),
            "cause": "event",
            "app": call.content.event.app,
            "event": call.content.event.kind,
            "decision": "waking" if waking else "go-on",
            "because": by,
        }
        row: dict[str, JSON] = {
            "page": last.page.hex(),
            "identification": str(last.identification),
            "answer": answer.hex(),
        }
        actions: list[Action] = [
            Persist(TABLE, str(call.stand_in), row),
            Emit("paged", "1172A", call.header.home_address, None, detail),
            self._send(call, answer),
        ]
        if waking and self._asleep():
            actions += self._wake(now)
        return actions

    @staticmethod
    def _send(call: _Call, answer: bytes) -> Action:
        source = call.source
        return SendRegistration(
            answer,
            source.address,
            link=source.link,
            source=call.header.home_address,
            link_layer=source.link_layer,
        )


def _named(header: DirectMessage) -> tuple[bytes, int]:
    return header.page, header.identification


def _missing(condition: Condition, left_out: LeftOut) -> bool:
    """True if the call does not have this field because there was no room."""
    about_state = condition.field == STATE or condition.field.startswith(f"{STATE}.")
    return left_out is LeftOut.DETAIL or (about_state and left_out is LeftOut.STATE)


def _told(call: _Call) -> Mapping[str, object]:
    """The event for a program, as JSON has it."""
    content = call.content
    return {
        "home_address": str(call.header.home_address),
        "stand_in": str(call.stand_in),
        "entry": content.entry,
        "app": content.event.app,
        "event": content.event.kind,
        "detail": content.event.detail,
        "state": content.state,
        "count": content.count,
        "left_out": {LeftOut.NOTHING: [], LeftOut.STATE: ["state"], LeftOut.DETAIL: ["detail", "state"]}[
            content.left_out
        ],
    }
