"""Runs the application proxies of a stand-in's handovers, and joins them to the held sessions (A1).

A proxy sees what a correspondent sends once it is stored for the device, and speaks behind all that the device has sent. One
that fails is started again, with the state that it kept, a few times; its sessions go on being held. The role
decides when proxies run.
"""

import asyncio
import contextlib
import errno
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import cbor2

from locum.node import words
from locum.node.apps.catalogue import Catalogue
from locum.node.apps.launching import Launches
from locum.node.apps.outlets import Outlets
from locum.node.apps.process import AppProcess
from locum.node.apps.replacing import replace, take_back
from locum.node.apps.running import (
    TOLD_AT_ONCE,
    Attended,
    Running,
    answered,
    introduction,
    is_whole,
    read_state,
)
from locum.node.apps.saying import Saying, joined
from locum.node.apps.shown import datagrams
from locum.node.apps.shown.captures import Captures
from locum.node.apps.shown.showing import show
from locum.node.config.settings import AppLimits
from locum.node.performer import Handler
from locum.node.sessions.draining import HeldSocket
from locum.node.tables import HostStore, HostTable
from locum.roles import actions as do
from locum.roles.action_values.apps import AppOrder, AppsPaused, AppTold, EndApps, PauseApps, StartApps
from locum.roles.actions import Event
from locum.roles.app_contract import MAX_DETAIL
from locum.roles.app_results import troubled
from locum.sessions.datagrams.spool import DatagramSpool
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.spool import Spool
from locum.wire.control import Flow

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane

log = logging.getLogger("locum.apps")
INTRODUCED = 512  # sessions in a packet
RESTARTS = 5  # in a row, each after twice the time; a proxy that ran for CALM seconds begins anew
FIRST_RESTART, CALM = 1.0, 60.0
GIVE_CAPTURED = 0.2  # seconds that captured packets wait for others
TOLD_A_SECOND = 10  # events of one proxy


class Apps:
    """`sessions` gives the held sockets of a handover; `feed` calls the role, `emit` publishes events."""

    def __init__(
        self,
        catalogue: Catalogue,
        store: HostStore,
        sessions: Callable[[bytes], Iterable[HeldSocket]],
        feed: Callable[[Event], None],
        emit: Callable[[do.Emit], None],
        count: Callable[[str], None],
        limits: AppLimits,
        outlets: Outlets,
    ) -> None:
        self.catalogue, self._store, self._sessions = catalogue, store, sessions
        self._feed, self._emit, self._count, self._limits = feed, emit, count, limits
        self.outlets = outlets
        self._running: dict[bytes, list[Running]] = {}
        self._by_socket: dict[tuple[bytes, int], Running] = {}
        self._saying = Saying(store.committed, self._not_sent, self._send_datagram)
        self._launches = Launches(self._launch)
        self.captures: Captures | None = None
        self._earlier: dict[str, Mapping[str, Any]] | None = None

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {StartApps: self.start, PauseApps: self._pause, EndApps: self._end}

    def capture_from(self, plane: "DataPlane") -> Captures:
        """Packets that nothing takes come from there, for proxies and for others."""
        self.captures = Captures(plane.header_logs)
        plane.held.tell_headers = self.captures.packet
        return self.captures

    def all(self) -> list[Running]:
        """Every proxy, for users."""
        return [app for apps in self._running.values() for app in apps]

    # start and end

    def start(self, action: StartApps) -> None:
        """Start the proxies of a handover, each with its sessions."""
        if action.handover in self._running:
            return
        taken: set[int] = set()
        apps: list[Running] = []
        for order in action.apps:
            wants = self.catalogue.choice(order)
            sessions = {
                held.key[1]: Attended(held)
                for held in self._sessions(action.handover)
                if held.key[1] not in taken
                and not held.accepted
                and held.label is None
                and wants(held.flow)
                and self._may(order, held.flow)
            }
            taken |= sessions.keys()
            given = action.states.get(order.name, {})
            app = Running(
                action.handover,
                action.device,
                order,
                sessions,
                given if isinstance(given, dict) else {},
                action.home_addresses,
                action.led,
            )
            row = self._earlier_rows().pop(app.key, None)
            if row is not None:
                self._recall(app, row)
            take_back(app.sessions.values())
            apps.append(app)
            self._by_socket.update({(action.handover, number): app for number in sessions})
        self._running[action.handover] = apps
        self._saying.begin(action.handover, self._sessions(action.handover))
        for app in apps:
            for attended in app.sessions.values():
                self._saying.push(attended.held)
            self._launches.add(app)

    def _earlier_rows(self) -> dict[str, Mapping[str, Any]]:
        """Rows of the daemon's run before this one that no proxy has taken. The table is read once: it is on the disk."""
        if self._earlier is None:
            self._earlier = dict(self._store.rows(HostTable.APP))
        return self._earlier

    def _may(self, order: AppOrder, flow: Flow) -> bool:
        """False for a session whose peer the proxy may send nothing."""
        return self.outlets.emitting.may(order.emission, flow.protocol, flow.peer, flow.peer_port)

    def _recall(self, app: Running, row: Mapping[str, Any]) -> None:
        """Go on where an earlier run of the daemon was."""
        try:
            app.first = read_state(bytes.fromhex(row["state"]))
            for number, shown in row["shown"].items():
                if (attended := app.sessions.get(int(number))) is not None:
                    attended.shown = int(shown)
            app.left.update(map(int, row.get("left", ())))
            self._saying.recall(app, row.get("words", {}))
            for number in app.left:
                app.sessions.pop(number, None)
        except (ValueError, KeyError, TypeError, cbor2.CBORError) as problem:
            log.warning("the state of %s cannot be read in the store: %s", app.order.name, problem)

    def _remember(self, app: Running) -> None:
        app.remembered = answered(app)
        self._store.put(HostTable.APP, app.key, self._row(app))

    def _row(self, app: Running) -> dict[str, Any]:
        shown = {str(number): count for number, count in app.remembered.items()}
        state = (cbor2.dumps(dict(app.first)) if app.kept is None else app.kept).hex()
        return {"state": state, "shown": shown, "words": self._saying.row(app), "left": sorted(app.left)}

    def _launch(self, app: Running) -> None:
        app.restarting = None
        app.begun = False
        app.unknown = list(app.sessions)
        app.behind = dict.fromkeys(app.sessions)
        app.ended.clear()
        try:
            if self.catalogue.has_network(app.order):
                app.outlet = self.outlets.open(app.device, app.homes, app.order, led=app.led)
                app.numbers.append(app.outlet.number)
                app.outlet.handover = app.handover
            app.process = AppProcess(
                app.order.kind,
                self._limits,
                lambda effects: self._told(app, effects),
                lambda: self._room(app),
                lambda reason: self._gone(app, reason),
                app.outlet,
                self._launches.starts,
            )
        except OSError as problem:
            self._gone(app, words.reason(problem))
            return
        if app.outlet is not None:
            self.outlets.watch(app.outlet, app.process)

    def _gone(self, app: Running, reason: str) -> None:
        """It has failed: its sessions go on being held."""
        if app.process is not None:
            app.lines.extend(app.process.said)
            self._show_again(app, app.process)
        app.process = None
        self._shut(app)
        if app.begun and time.monotonic() - app.started_at > CALM:
            app.restarts = 0
        again = app.restarts < RESTARTS
        delay = FIRST_RESTART * 2**app.restarts
        self._say(app, f"failed: {reason}")
        self._event(app, "app-failed", None, {"reason": reason, "restarts": again})
        if not again:
            app.failure = reason
            return
        app.restarts += 1
        app.restarting = asyncio.get_running_loop().call_later(delay, self._launch, app)

    @staticmethod
    def _show_again(app: Running, process: AppProcess) -> None:
        """Keep what this process has not answered for the next one."""
        for number, count in answered(app).items():
            app.sessions[number].shown = count
        for packet in process.unanswered:
            match packet:
                case ("closed", int(number), _) if number in app.sessions:
                    app.sessions[number].end_shown = False

    async def _pause(self, action: PauseApps) -> None:
        apps = self._running.pop(action.handover, [])
        ends = await asyncio.gather(*(self._final(app) for app in apps))
        await self.outlets.silence(number for app in apps for number in app.numbers)
        states = {app.order.name: state for app, state in zip(apps, ends, strict=True) if state}
        await self._saying.settle(apps)
        spoken: dict[int, bytes] = {}
        surplus: dict[int, int] = {}
        for held in self._sessions(action.handover):
            if isinstance(held.spool, Spool):
                if held.spool.said.data:
                    spoken[held.key[1]] = held.spool.said.data
                if held.spool.consumed.surplus:
                    surplus[held.key[1]] = held.spool.consumed.surplus
        for app in apps:
            self._let_sessions_go(app)
            # The row stays until the handover ends: the role may store much later that no proxy follows.
            self._earlier_rows()[app.key] = self._row(app)
        self._saying.end(action.handover, apps)
        self._feed(AppsPaused(action.handover, states, spoken, surplus))

    async def _final(self, app: Running) -> Mapping[str, object]:
        self._give_captured(app)
        process = app.ending = self._let_go(app)
        state = await process.end() if process is not None and app.begun else {}
        if process is not None:
            process.kill()
        self._shut(app)
        return troubled(state or app.state, app.failure)

    async def _end(self, action: EndApps) -> None:
        apps = self._running.pop(action.handover, [])
        for app in apps:
            self._stop(app)
            self._forget(app)
        self._saying.end(action.handover, apps)
        for key in tuple(self._earlier_rows()):
            if key.startswith(f"{action.handover.hex()}-"):
                del self._earlier_rows()[key]
                self._store.forget(HostTable.APP, key)
        await self.outlets.silence(number for app in apps for number in app.numbers)

    def _stop(self, app: Running) -> None:
        if (process := self._let_go(app)) is not None:
            process.kill()
        self._shut(app)

    def _shut(self, app: Running) -> None:
        """Its process has ended, and nothing is sent by its sockets any more."""
        if self.captures is not None:
            self.captures.end(app.key)
        outlet, app.outlet = app.outlet, None
        if outlet is not None:
            if refused := outlet.policy.counts()[1]:
                self._count("emission-refused")
                self._event(app, "emission-refused", None, {"packets": refused})
            self.outlets.close(outlet)

    @staticmethod
    def _let_go(app: Running) -> AppProcess | None:
        """Its process, if it has one: it is the proxy's no more, and no other follows."""
        app.wanted = False
        if app.restarting is not None:
            app.restarting.cancel()
            app.restarting = None
        process, app.process = app.process, None
        return process

    def _forget(self, app: Running) -> None:
        self._let_sessions_go(app)
        self._store.forget(HostTable.APP, app.key)

    def _let_sessions_go(self, app: Running) -> None:
        for number in app.sessions:
            self._by_socket.pop((app.handover, number), None)
        self.outlets.leads.forget(app.handover)

    def close(self) -> None:
        """The daemon ends: proxies end, and begin again with the next run."""
        for app in self.all():
            self._remember(app)
            app.words.clear()  # they are in the row
            self._stop(app)
        self._launches.starts.close()
        self._running.clear()
        self._by_socket.clear()

    # sessions

    def moved(self, held: HeldSocket) -> None:
        """New data of a session is stored, or its end."""
        if (app := self._by_socket.get(held.key)) is not None:
            app.behind[held.key[1]] = None
            self._show(app)

    def dropped(self, held: HeldSocket) -> None:
        """The session is not held any more: for its proxy it has ended."""
        app = self._by_socket.pop(held.key, None)
        if app is None:
            return
        attended = app.sessions.pop(held.key[1], None)
        process = app.process
        if attended is None or attended.end_shown or process is None:
            return
        if held.key[1] not in app.unknown:
            app.ended.append(held.key[1])
            self._show_ends(app)

    @staticmethod
    def _show_ends(app: Running) -> None:
        """Tell the proxy of sessions that are not held any more, as soon as it has begun and has room."""
        process = app.process
        while app.ended and process is not None and app.begun and process.free:
            if not process.send("closed", app.ended[0], errno.ECONNRESET):
                return
            app.ended.popleft()

    def _room(self, app: Running) -> None:
        if not app.begun:
            self._begin(app)
        self._show_ends(app)
        self._show(app)

    def _begin(self, app: Running) -> None:
        """A device may have more sessions than one packet takes."""
        process = app.process
        while process is not None and process.free:
            known = [number for number in app.unknown[:INTRODUCED] if number in app.sessions]
            if not app.unknown:
                app.begun = process.send("begin", dict(app.order.settings), dict(app.state))
                if app.begun:
                    app.started_at = time.monotonic()
                    self._event(app, "app-runs", None, {"sessions": len(app.sessions)})
                return
            if not process.send("sessions", [introduction(number, app.sessions[number]) for number in known]):
                return
            del app.unknown[:INTRODUCED]

    @staticmethod
    def _show(app: Running) -> None:
        if app.process is not None and app.begun:
            show(app, app.process)

    # effects

    def _told(self, app: Running, effects: list[Any]) -> None:
        """Raises ValueError, TypeError or IndexError for a wrong one."""
        kept = [place for place, effect in enumerate(effects) if effect[:1] == ["keep"]]
        for place in reversed(kept[:-1]):  # the last state replaces them
            del effects[place]
        # The next run of the daemon, should this one be killed, must not have the same words said again.
        left = any(effect[:1] == ["leave"] for effect in effects)
        waits = bool(effects) and (bool(kept) or left or answered(app) != app.remembered)
        try:
            for effect in joined(app, effects):
                self._perform(app, effect, waits=waits)
        finally:
            if waits:
                self._remember(app)
            self._saying.stored_later(app)

    def _perform(self, app: Running, effect: object, *, waits: bool) -> None:
        match effect:
            case ["speak", int(number), bytes(data)]:
                self._speak(app, number, data, waits=waits)
            case ["replace", int(number), int(start), int(length), bytes(data)]:
                self._replace(app, number, start, length, data)
            case ["tell", str(kind), number, dict(detail)]:
                self._publish(app, kind, number, detail)
            case ["note", str(text)]:
                self._say(app, text[:1000])
            case ["keep", bytes(state)]:
                app.keep(state)
            case ["capture", int(per_second)]:
                self._capture(app, per_second)
            case ["leave", int(number), str(reason)]:
                if app.sessions.pop(number, None) is not None:
                    app.left.add(number)
                    self._by_socket.pop((app.handover, number), None)
                    self._say(app, f"left session {number}: {reason[:200]}")
            case _:
                raise ValueError(f"there is no such effect: {str(effect)[:80]}")

    def _speak(self, app: Running, number: int, data: bytes, *, waits: bool) -> None:
        attended = app.sessions.get(number)
        if attended is not None and isinstance(attended.held.spool, DatagramSpool):
            self._saying.speak(app, attended.held, data, waits=waits)
            return
        if attended is None or not isinstance(attended.held.spool, Spool):
            self._count("app-speaks-elsewhere")
            return
        if attended.held.stopped is not None or not is_whole(attended.held):
            self._count("app-speaks-late")
            return
        self._saying.speak(app, attended.held, data, waits=waits)

    def _send_datagram(self, held: HeldSocket, data: bytes) -> None:
        if (problem := datagrams.send(held, data)) is not None:
            self._count(problem)

    def _not_sent(self, app: Running, reason: str) -> None:
        self._count("app-not-sent")
        self._say(app, reason)

    def _replace(self, app: Running, number: int, start: int, length: int, data: bytes) -> None:
        attended = app.sessions.get(number)
        if attended is None or not isinstance(attended.held.spool, Spool):
            self._count("app-replaces-elsewhere")
            return
        shown = answered(app, number)[number]
        try:
            if attended.held.stopped is not None:
                raise SessionError("the device has taken it back")
            replace(attended.held.spool, app.order.consume, shown, start, length, data)
        except (SessionError, OSError) as problem:
            self._count("app-not-replaced")
            self._say(app, f"session {number}: {length} bytes were not replaced: {words.reason(problem)}")

    def _capture(self, app: Running, per_second: int) -> None:
        if self.captures is None:
            return
        loop = asyncio.get_running_loop()

        def pending() -> None:
            loop.call_later(GIVE_CAPTURED, self._give_captured, app)

        try:
            self.captures.begin(app.key, app.homes, per_second, pending)
        except RuntimeError as problem:  # DataPlaneError: its table is full
            self._say(app, f"no packets are captured: {problem}")

    def _give_captured(self, app: Running) -> None:
        """Give the proxy the packets that wait for it; later, if its process has no room."""
        process = app.process
        if self.captures is None or process is None or not app.begun:
            return
        if not process.free:
            asyncio.get_running_loop().call_later(GIVE_CAPTURED, self._give_captured, app)
            return
        rows, left_out = self.captures.take(app.key)
        if (rows or left_out) and not process.send("packets", rows, left_out):
            self._count("app-packets-lost")

    def _publish(self, app: Running, kind: str, number: object, detail: Mapping[str, Any]) -> None:
        """An event of the proxy, unless it makes too many."""
        if len(json.dumps(detail)) > MAX_DETAIL:
            raise ValueError(f"an event's detail has at most {MAX_DETAIL} bytes")
        now = time.monotonic()
        app.credit = min(app.credit + (now - app.credit_at) * TOLD_A_SECOND, TOLD_AT_ONCE)
        app.credit_at = now
        if app.credit < 1:
            self._count("app-events-limited")
            return
        app.credit -= 1
        app.events += 1
        attended = app.sessions.get(number) if isinstance(number, int) else None
        flow = None if attended is None else attended.held.flow
        self._event(app, "app-event", attended, {"event": kind[:64], "detail": dict(detail)})
        self._feed(AppTold(app.handover, app.order.name, kind[:64], flow, dict(detail), app.small_state()))

    def _say(self, app: Running, text: str) -> None:
        app.lines.append(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {text}")

    def _event(self, app: Running, kind: str, attended: Attended | None, detail: Mapping[str, Any]) -> None:
        flow = None if attended is None else attended.held.flow
        with contextlib.suppress(ValueError):
            self._emit(do.Emit(kind, None, app.device, flow, {"app": app.order.name, **detail}))
