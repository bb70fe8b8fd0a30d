"""The commands sleep and wake, and how it stands with a mobile node, for its control socket.

Commands the mobile node's role and waits until its actions are done; the role decides the order of a handover.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from locum.node.control.server import RequestFailed
from locum.node.control.session_texts import fate_row, report_row
from locum.node.control.wish_rows import at_offset, wish_row
from locum.node.events import flow_text
from locum.node.performer import Sequential
from locum.roles.actions import Action
from locum.roles.mobile_node.departing import told
from locum.roles.mobile_node.handover import AwaySession, Handover, Stage
from locum.roles.mobile_node.paging.own_paging import WishRefused
from locum.roles.mobile_node.paging.wishes import Wish
from locum.roles.mobile_node.partial_handovers import NotPossible
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.mobile_node.selection import Selection
from locum.roles.mobile_node.states import ComingUp, Down, GoingDown, SendingBack, SleepState, Up
from locum.roles.mobile_node.wake.taking_back import Waking
from locum.roles.registrant.movement import MOVE_PATIENCE, CannotMove
from locum.roles.session_report import Fate, Report, SessionFate
from locum.wire.control import Flow

if TYPE_CHECKING:
    from locum.node.control.view import NodeView
    from locum.node.driver import Slot

_STATES = {
    Up: "awake",
    SendingBack: "falling-asleep",
    GoingDown: "falling-asleep",
    Down: "asleep",
    ComingUp: "waking",
}
_LONGEST_SLEEP = 365 * 86400.0  # seconds
_LONGEST_LEAVE = 1.0  # seconds that the end of a daemon waits for its deregistration
_NOTE = "programs are frozen until this node wakes; if it is stopped, until it runs again and wakes"
_FUTURE = {Fate.WENT: "goes", Fate.STAYED: "stays"}
Row = dict[str, Any]

log = logging.getLogger("locum.node")


class SleepControl:
    """Sleep and wake of the mobile node in `slot`."""

    def __init__(self, node: "NodeView", slot: "Slot") -> None:
        self._node, self._slot = node, slot
        self._role = cast(SleepingNode, slot.role)

    def state(self) -> Row:
        """State of the mobile node, and of its sleep."""
        role, state = self._role, self._role.state
        mobile, registered = role.mobile, role.mobile.registered
        for_people = self._node.clock.for_people
        return {
            "state": _STATES[type(state)],
            "last": state.last if isinstance(state, Up) else None,
            "home_addresses": [str(home_address) for home_address in mobile.configuration.home_addresses],
            "home_agent": str(mobile.configuration.home_agent),
            "agent": None if mobile.attachment is None else str(mobile.attachment.agent),
            "link": None if mobile.attachment is None else mobile.attachment.link,
            "care_of": None if registered is None else str(registered.attachment.care_of),
            "lifetime": None if registered is None else registered.lifetime,
            "expires_at": None if registered is None else for_people(registered.expires_at),
            "wake_at": for_people(state.handover.wake_at) if isinstance(state, Down) else None,
            "woken_by": role.calls.woken_by,
            "stranded": role.stranded,
            "frozen": sorted(self._frozen()),
            "note": _NOTE if self._frozen() else None,
        }

    def _frozen(self) -> frozenset[int]:
        return self._node.session_capture.frozen if self._node.session_capture is not None else frozenset()

    async def leave(self) -> None:
        """Deregister at the end of the daemon, if that is quick, and report what stays behind."""
        actions = self._role.leave(now=self._node.clock.now())
        if actions:
            self._slot.performer.perform(actions)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_LEAVE):
                    await self._stepped(lambda: not self._role.mobile.leaving)
        if frozen := self._frozen():
            log.warning("asleep: %d programs stay frozen until this node runs again and wakes", len(frozen))

    def away(self) -> list[Row]:
        """Sessions that are, or may be, at the stand-in."""
        return [row for handover in self._handovers() for row in self._rows(handover)]

    def _handovers(self) -> list[Handover]:
        partial_handovers = self._role.partial_handovers
        listed = [
            *partial_handovers.handovers,
            *([partial_handovers.moving.handover] if partial_handovers.moving is not None else []),
        ]
        listed += [coming.handover for coming in partial_handovers.coming]
        match self._role.state:
            case Down(handover):
                listed.append(handover)
            case GoingDown(machine) | ComingUp(machine):
                listed.append(machine.handover)
        return listed

    def _rows(self, handover: Handover) -> list[Row]:
        names = {stand_in.address: stand_in.name for stand_in in self._role.stand_ins}
        at = next(iter(names)) if handover.stand_in is None else handover.stand_in
        return [
            {
                "kind": "coming" if handover.coming else "given" if handover.given else "away",
                "at": names.get(at, str(at)),
                "handover": handover.identifier.hex(),
                "session": session.session,
                "flow": flow_text(session.flow),
                "state": handover.stage.value,
                "pids": list(session.pids),
                "programs": list(session.programs),
                "bytes_back": self._bytes_back(handover, session.flow),
            }
            for session in handover.sessions
        ]

    def _bytes_back(self, handover: Handover, flow: Flow) -> int:
        """Bytes back as far as the role knows: while no data comes back, only the kernel knows."""
        state = self._role.state
        for coming in self._role.partial_handovers.coming:
            if coming.handover.identifier == handover.identifier:
                return coming.offset(flow)
        for machine in (
            self._role.partial_handovers.moving,
            state.machine if isinstance(state, ComingUp) else None,
        ):
            if isinstance(machine, Waking) and machine.handover.identifier == handover.identifier:
                return machine.progress.offset(flow) if flow in machine.progress else 0
        return 0

    async def give(self, selection: Selection, to: str | None) -> list[Row]:
        """Returns when the stand-in has them; on failure everything is as before. Raises RequestFailed."""
        role = self._role
        before = {handover.identifier for handover in role.partial_handovers.handovers}
        self._command(lambda now: role.give(selection, now=now, to=to))
        await self._settled(lambda: role.partial_handovers.idle, "handing over", cancel=True)
        new = [handover for handover in role.partial_handovers.handovers if handover.identifier not in before]
        if not new:
            raise RequestFailed(
                f"nothing was given: {role.partial_handovers.last or 'it was taken back meanwhile'}"
            )
        stayed = [
            {"kind": "stays", **fate_row(fate)} for fate in role.partial_handovers.given.all(Fate.STAYED)
        ]
        return [*(row for handover in new for row in self._rows(handover)), *stayed]

    async def take(self, selection: Selection) -> list[Row]:
        """Returns when the programs have them and run. Raises RequestFailed."""
        role = self._role
        before = {handover.identifier: self._rows(handover) for handover in role.partial_handovers.handovers}
        self._command(lambda now: role.take(selection, now=now))
        await self._settled(lambda: role.partial_handovers.idle, "taking back", cancel=False)
        if role.partial_handovers.last:
            raise RequestFailed(f"taken back, but {role.partial_handovers.last}")
        still = {handover.identifier for handover in role.partial_handovers.handovers}
        return [row for identifier, rows in before.items() if identifier not in still for row in rows]

    async def sleep(self, seconds: Any, to: str | None = None, until: Wish | None = None) -> Row:
        """Returns when the stand-in has everything; on failure everything is as before. Raises RequestFailed."""
        if seconds is not None and (
            not isinstance(seconds, int | float)
            or isinstance(seconds, bool)
            or not 0 < seconds <= _LONGEST_SLEEP
        ):
            raise RequestFailed("for: a number of seconds above 0")
        role = self._role
        if until is not None and isinstance(role.state, Down | GoingDown | SendingBack):
            raise RequestFailed(f"asleep already, or about to be; `locum wake-on {until.text}` wakes it too")
        if isinstance(role.state, Down):
            return self._asleep()
        if not isinstance(role.state, SendingBack | GoingDown):
            at_offset(role)
            self._command(lambda now: role.sleep(now=now, wake_after=seconds, to=to, until=until))
        await self._settled(lambda: isinstance(role.state, Up | Down), "falling asleep", cancel=True)
        ended: SleepState = role.state
        if isinstance(ended, Up):
            raise RequestFailed(f"still awake: {ended.last or 'woken meanwhile'}")
        return self._asleep()

    def _asleep(self) -> Row:
        report, state = self._role.slept, self._role.state
        if not report.fates and isinstance(state, Down):  # an earlier run of the daemon fell asleep
            report = Report(
                SessionFate(session.flow, Fate.WENT, None, session.pids, session.programs)
                for session in state.handover.sessions
            )
        wishes = [wish_row(self._role, standing) for standing in self._role.paging.standings()]
        untold = [
            f"{telling.peer}: {telling.text or 'no answer'}"
            for telling in self._role.paging.tellings
            if not telling.taken
        ]
        untold += self._role.paging.open_problems
        return self.state() | {"report": report_row(report), "wishes": wishes, "paging_problems": untold}

    async def would_sleep(self, to: str | None = None) -> list[Row]:
        """Result of a sleep for each session, without changes or messages. Raises RequestFailed."""
        session_capture = self._node.session_capture
        if session_capture is None:
            raise RequestFailed("this mobile node has no stand-in; set mnps in [mobile_node]")
        found = await session_capture.look(self._role.mobile.configuration.home_addresses)
        try:
            choice = self._role.would_sleep(found, to=to)
        except NotPossible as problem:
            raise RequestFailed(str(problem)) from None
        frozen = {pid for session in choice.going for pid in session.pids}
        goes = [
            SessionFate(session.flow, Fate.WENT, None, session.pids, session.programs)
            for session in choice.going
        ]
        stays = [told(session, frozen) for session in choice.staying]
        listed = sorted((*goes, *stays), key=lambda fate: (fate.programs, fate.pids))
        return [fate_row(fate) | {"fate": _FUTURE[fate.fate]} for fate in listed]

    async def wake(self) -> Row:
        """Returns when everything is back in the programs, or was given up. Raises RequestFailed."""
        role = self._role
        if isinstance(role.state, Up):
            untold, role.untold = role.untold, None
            return self.state() | ({} if untold is None else {"report": report_row(untold)})
        if not isinstance(role.state, ComingUp):
            self._command(lambda now: role.wake(now=now))
        await self._settled(lambda: isinstance(role.state, Up | Down), "waking", cancel=False)
        report, ended = report_row(role.woken), cast(SleepState, role.state)
        if isinstance(ended, Down):
            raise RequestFailed("asleep again: a later sleep called the wake off")
        if isinstance(ended, Up) and ended.last and not report[Fate.LOST.value]:
            raise RequestFailed(f"awake, but {ended.last}")
        return self.state() | {"report": report}

    async def abandon(self) -> Row:
        """Abandon sessions at the stand-in; returns when the programs run. Raises RequestFailed."""
        role = self._role
        sleeping = not isinstance(role.state, Up)
        meant = [] if sleeping else self._being_fetched()
        self._command(lambda now: role.abandon(now=now))
        await self._settled(lambda: isinstance(role.state, Up), "waking", cancel=False)
        report = role.woken if sleeping else Report(map(_given_up, meant))
        return self.state() | {"report": report_row(report)}

    def _being_fetched(self) -> list[AwaySession]:
        """Those that are taken back, or come, while the device is awake."""
        partial_handovers = self._role.partial_handovers
        handovers = [coming.handover for coming in partial_handovers.coming]
        if (
            isinstance(partial_handovers.moving, Waking)
            and partial_handovers.moving.handover.stage is not Stage.RETURNED
        ):
            handovers.append(partial_handovers.moving.handover)
        return [session for handover in handovers for session in handover.sessions]

    async def move(self, to: str) -> Row:
        """Returns when the device is registered at that access node; on failure it is where it was. Raises RequestFailed."""
        movement = self._role.mobile.movement
        try:
            self._node.driver.command(self._slot.name, lambda _, now: self._role.move(to, now=now))
        except CannotMove as problem:
            raise RequestFailed(str(problem)) from None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOVE_PATIENCE + _LONGEST_LEAVE):
                await self._stepped(lambda: movement.move is None)
        if movement.last:
            raise RequestFailed(f"still at {self.state()['agent']}: {movement.last}")
        return self.state()

    def _command(self, command: Callable[[float], list[Action]]) -> None:
        try:
            self._node.driver.command(self._slot.name, lambda _, now: command(now))
        except (NotPossible, WishRefused) as problem:
            raise RequestFailed(str(problem)) from None

    async def _settled(self, done: Callable[[], bool], doing: str, *, cancel: bool) -> None:
        """Wait until the role is where it should be and everything it decided is performed."""
        mobile, performer = self._node.settings.mobile_node, self._slot.performer
        assert mobile is not None and isinstance(performer, Sequential)
        try:
            async with asyncio.timeout(mobile.sleep_seconds):
                await self._stepped(done)
                await performer.drained()
        except asyncio.CancelledError:  # the client has gone: a suspend hook's time is up, or Ctrl-C
            if cancel and not self._node.driver.stopping:
                with contextlib.suppress(RequestFailed):
                    self._command(lambda now: self._role.cancel(now=now))
            raise
        except TimeoutError:
            if cancel:
                self._command(lambda now: self._role.cancel(now=now))
            note = "turning back" if cancel else "it goes on"
            raise RequestFailed(f"still {doing} after {mobile.sleep_seconds:g} s; {note}") from None

    async def _stepped(self, done: Callable[[], bool]) -> None:
        """Wait until the role has come that far."""
        stepped = asyncio.Event()
        self._slot.told.add(stepped.set)
        try:
            while not done():
                stepped.clear()
                await stepped.wait()
        finally:
            self._slot.told.discard(stepped.set)


def _given_up(session: AwaySession) -> SessionFate:
    return SessionFate(session.flow, Fate.LOST, "the sessions were given up", session.pids, session.programs)
