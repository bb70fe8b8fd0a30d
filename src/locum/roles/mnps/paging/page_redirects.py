"""Changes of forwarding that a stand-in wants for its direct pages (1210, P10, P12): asked of the home agent, repeated, taken back.

The last message about a device counts, and one without an answer is repeated unchanged. The home agent ends a change by itself
after HOLD_SECONDS, so that nothing is kept over a restart. It must not know the course of a page.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answered, Ask, Count, Emit, Event, NoAnswer, WallClockStepped
from locum.roles.parts import Part
from locum.roles.timers import Deadlines
from locum.wire.control.paging.redirect import (
    PATH,
    Destination,
    Redirect1210,
    ToDevice,
    ToPaging,
    encode_1210,
)
from locum.wire.control.paging.status import PagingStatus, decode_status_answer
from locum.wire.errors import WireError

FIRST_REQUEST: Final = 7 << 56
LAST_REQUEST: Final = (1 << 59) - 1
"""Numbers of these requests, above those of direct pages."""
ANSWER_TIMEOUT: Final = 5.0  # seconds; the home agent waits 3 for the access node
RETRY_FIRST: Final = 0.5  # seconds
RETRY_MAX: Final = 8.0
STEP: Final = 10_000
"""Milliseconds that the next message is later than one that was stale."""
HOLD_SECONDS: Final = 60.0  # after which the home agent ends a change by itself; nothing is asked for longer
_AGAIN = (PagingStatus.BUSY, PagingStatus.STALE)


@dataclass(slots=True)
class _Wanted:
    """The last change that is wanted for one device."""

    home_addresses: tuple[Addr, ...]
    to: Destination
    page: bytes
    sent: int  # milliseconds since 1970
    until: float  # steady seconds
    attempts: int = 0
    request: int | None = None

    @property
    def key(self) -> Addr:
        """The device."""
        return self.home_addresses[0]


class PageRedirects(Part):
    """The changes of one stand-in. `home_agent` gives that of a device, None: it is not known."""

    def __init__(self, home_agent: Callable[[Sequence[Addr]], Addr | None]) -> None:
        self._home_agent = home_agent
        self._wanted: dict[Addr, _Wanted] = {}
        self._asked: dict[int, Addr] = {}
        self._due: Deadlines[Addr] = Deadlines()
        self._numbers = count(FIRST_REQUEST)
        self._ahead = 0.0  # seconds that the wall clock is ahead of steady seconds
        self._sent = 0  # the last one

    # Changes -----------------------------------------------------------------------------------------------------

    def begin(
        self, home_addresses: tuple[Addr, ...], to: ToDevice, page: bytes, *, now: float
    ) -> list[Action]:
        """Packets that page the device are to go to its access node: it has said that it wakes."""
        return self._want(home_addresses, to, page, now)

    def end(self, device: Addr, *, now: float) -> list[Action]:
        """The page has failed: packets are to page the device again. Nothing if no change was asked for."""
        wanted = self._wanted.get(device)
        if wanted is None or isinstance(wanted.to, ToPaging):
            return []
        return self._want(wanted.home_addresses, ToPaging(), wanted.page, now)

    def over(self, device: Addr) -> None:
        """The device is back: its registration has taken the place of the change."""
        wanted = self._wanted.pop(device, None)
        if wanted is not None:
            self._quiet(wanted)

    def _want(
        self, home_addresses: tuple[Addr, ...], to: Destination, page: bytes, now: float
    ) -> list[Action]:
        self.over(home_addresses[0])
        wanted = _Wanted(home_addresses, to, page, self._next(now), now + HOLD_SECONDS)
        self._wanted[wanted.key] = wanted
        return self._ask(wanted, now)

    def _next(self, now: float) -> int:
        self._sent = max(self._sent + 1, round((now + self._ahead) * 1000))
        return self._sent

    def _quiet(self, wanted: _Wanted) -> None:
        """Wait for no answer, and repeat nothing."""
        self._due.cancel(wanted.key)
        if wanted.request is not None:
            self._asked.pop(wanted.request, None)
            wanted.request = None

    def _ask(self, wanted: _Wanted, now: float) -> list[Action]:
        home_agent = self._home_agent(wanted.home_addresses)
        if home_agent is None:
            del self._wanted[wanted.key]
            return [Count("redirect-no-home-agent")]
        wanted.attempts += 1
        wanted.request = next(self._numbers)
        self._asked[wanted.request] = wanted.key
        self._due.set(wanted.key, wanted.until)
        body = encode_1210(Redirect1210(wanted.home_addresses, wanted.to, wanted.sent, wanted.page))
        word = "device" if isinstance(wanted.to, ToDevice) else "paging"
        detail: dict[str, JSON] = {"to": str(home_agent), "destination": word}
        return [
            Ask(wanted.request, home_agent, PATH, body, ANSWER_TIMEOUT),
            Emit("sent", PATH, wanted.key, None, detail),
        ]

    # In ----------------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Answers of home agents; None for anything else."""
        match event:
            case WallClockStepped(ahead):
                self._ahead = ahead
            case Answered(request) | NoAnswer(request) if FIRST_REQUEST <= request <= LAST_REQUEST:
                return self._answered(event, now)
        return None

    def timeout(self, *, now: float) -> list[Action]:
        """Repetitions that are due, and changes that the home agent has ended by now."""
        actions: list[Action] = []
        for device in self._due.due(now):
            wanted = self._wanted.get(device)
            if wanted is None:
                continue
            if now >= wanted.until:
                self.over(device)
            else:
                actions += self._ask(wanted, now)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return self._due.next()

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action]:
        device = self._asked.pop(event.request, None)
        wanted = None if device is None else self._wanted.get(device)
        if wanted is None or wanted.request != event.request:
            return [Count("redirect-answer-late")]
        wanted.request = None
        if isinstance(event, NoAnswer):
            return [Count("redirect-unanswered"), *self._again(wanted, now)]
        try:
            answer = decode_status_answer(event.body)
        except WireError as error:
            return [Count(f"redirect-{error.reason}"), *self._again(wanted, now)]
        word = answer.status.name.lower().replace("_", "-")
        if answer.status in _AGAIN:
            if (
                answer.status is PagingStatus.STALE
            ):  # the home agent knows a message that this clock has not reached
                self._sent += STEP
                wanted.sent = self._next(now)
            return [Count(f"redirect-{word}"), *self._again(wanted, now)]
        if isinstance(wanted.to, ToPaging):
            self.over(wanted.key)
        elif answer.status is not PagingStatus.OK:
            self.over(wanted.key)  # packets wait at the home agent
        return [] if answer.status is PagingStatus.OK else [Count(f"redirect-{word}")]

    def _again(self, wanted: _Wanted, now: float) -> list[Action]:
        at = now + min(RETRY_MAX, RETRY_FIRST * 2 ** min(wanted.attempts - 1, 8))
        self._due.set(wanted.key, min(at, wanted.until))
        return []
