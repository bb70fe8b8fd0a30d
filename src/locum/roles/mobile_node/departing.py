"""Sessions to hand over, and sessions that stay with reasons: decided before any message is sent.

`locum sleep` and its dry run both decide here. It must not know messages, nor how sessions are found or captured.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.app_orders import APPS
from locum.roles.action_values.sessions import FoundSession, LeftSession, Process, SessionsFound
from locum.roles.actions import Action
from locum.roles.mobile_node.selection import EVERYTHING, Selection, with_companions
from locum.roles.session_report import Fate, SessionFate
from locum.wire.control import MAX_SESSIONS, Flow
from locum.wire.takes import Takes

TOO_MANY = f"a hand-over carries at most {MAX_SESSIONS} sessions"
STANDS_STILL = "; its program stands still until its other sessions are back"


class Announcing(Protocol):
    """Those who tell other nodes what goes to the stand-in."""

    def go(
        self, flows: Collection[Flow], staying: Collection[Flow], stand_in: Addr, now: float
    ) -> list[Action]:
        """These flows go, as far as is known now, and those stay."""

    @property
    def may_go(self) -> bool:
        """True if the nodes have answered, or were waited for long enough."""


class _Nobody:
    def go(
        self, flows: Collection[Flow], staying: Collection[Flow], stand_in: Addr, now: float
    ) -> list[Action]:
        return []

    @property
    def may_go(self) -> bool:
        return True


NOBODY = _Nobody()


@dataclass(frozen=True, slots=True)
class Departure:
    """Sessions to hand over, their stand-in, and the kind of registration.

    With `switch` the stand-in registers; without it the device leaves its packets to the default CoA (R2). `given`: the
    device stays awake, with all that is not selected. `elsewhere` are flows that are at stand-ins already, `others`
    other handovers of the device at this one. `configuration` are the proxies, `application` their states; those named in
    `orders` are left out if the stand-in refuses them. `stays` says why a flow that is given has to stay; None: it has not. `order`: nothing but this one
    goes, and the device stays awake.
    """

    stand_in: Addr
    selection: Selection = EVERYTHING
    switch: Takes | None = None
    given: bool = False
    elsewhere: frozenset[Flow] = frozenset()
    others: tuple[bytes, ...] = ()
    configuration: Mapping[str, object] = field(default_factory=dict)
    application: Mapping[str, object] = field(default_factory=dict)
    orders: frozenset[str] = frozenset()
    stays: Callable[[Flow], str | None] = lambda _flow: None
    order: str = ""
    announcing: Announcing = NOBODY
    brief: bool = False  # its registration has to be very short: only then its page rules are in force (P14)

    def without(self, order: str) -> "Departure":
        """A copy without the order of that name and its state."""
        listed, held = self.configuration.get(APPS, []), self.application.get(APPS, {})
        apps = [app for app in listed if app[0] != order] if isinstance(listed, list) else []
        kept = (
            {name: state for name, state in held.items() if name != order} if isinstance(held, dict) else {}
        )
        return replace(
            self,
            configuration={APPS: apps} if apps else {},
            application={APPS: kept} if kept else {},
            orders=self.orders - {order},
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Sessions to hand over, and those that stay, each with the reason."""

    going: tuple[FoundSession, ...]
    staying: tuple[LeftSession, ...]


def choose(
    departure: Departure,
    home_addresses: Iterable[Addr],
    found: SessionsFound,
    *,
    refused: Mapping[Flow, str] | None = None,
    unfrozen: Mapping[Process, str] | None = None,
) -> Choice:
    """`refused` are sessions that must stay, `unfrozen` processes that could not be frozen, each with the reason."""
    homes, refused, unfrozen = frozenset(home_addresses), refused or {}, unfrozen or {}
    here = [
        session
        for session in found.sessions
        if session.flow.local in homes and session.flow not in departure.elsewhere
    ]
    meant = with_companions(departure.selection, here)
    pids = {pid for session in meant for pid in session.pids}
    staying = [
        session
        for session in found.left
        if session.flow not in departure.elsewhere
        and (
            session.pids or session.flow.peer != departure.stand_in
        )  # what our own exchanges with it leave behind
        and (departure.selection.takes(session.flow, session.pids) or pids.intersection(session.pids))
    ]
    going: list[FoundSession] = []
    for session in meant:
        reason = refused.get(session.flow) or _moves(session, unfrozen)
        if reason is None and len(going) >= MAX_SESSIONS:
            reason = TOO_MANY
        if reason is None:
            going.append(session)
        else:
            staying.append(LeftSession(session.flow, reason, session.pids, session.programs))
    return Choice(tuple(going), tuple(staying))


def told(left: LeftSession, frozen: Collection[int]) -> SessionFate:
    """Report for users of a session that stays, while these processes are frozen."""
    reason = left.reason if set(frozen).isdisjoint(left.pids) else left.reason + STANDS_STILL
    return SessionFate(left.flow, Fate.STAYED, reason, left.pids, left.programs)


def _moves(session: FoundSession, unfrozen: Mapping[Process, str]) -> str | None:
    """Reason why this movable session cannot be captured: one of its processes runs on."""
    for process in session.processes:
        if (reason := unfrozen.get(process)) is not None:
            return f"process {process.pid} cannot be frozen: {reason}"
    return None
