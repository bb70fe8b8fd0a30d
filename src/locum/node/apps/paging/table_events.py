"""Work for the event tables of a stand-in: packets that nothing takes as events, and texts through proxies' sessions (P3, P15)."""

import asyncio
from collections.abc import Callable, Mapping

from locum.node.apps.attending import Apps
from locum.node.apps.shown.captures import Captures
from locum.node.performer import Handler
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.event_tables import (
    CorrespondentTold,
    PacketsSeen,
    SeenPacket,
    TellCorrespondent,
    WatchPackets,
)
from locum.roles.actions import Event

GATHERING = 0.05
"""Seconds that a packet waits for others."""
NO_PROXY = "no proxy of this name runs"
NO_SESSION = "the proxy does not attend this session any more"
MUTE = "proxies of this kind tell a correspondent nothing"
BUSY = "the proxy has no room for it now"


class TableEvents:
    """`feed` calls the role. Packets are reported from `begin` on."""

    def __init__(self, apps: Apps, feed: Callable[[Event], None]) -> None:
        self._apps, self._feed = apps, feed
        self._captures: Captures | None = None
        self._wanted: dict[tuple[Addr, ...], int] = {}

    def handlers(self) -> Mapping[type, Handler]:
        """Handlers for each kind of action."""
        return {WatchPackets: self._watch, TellCorrespondent: self._tell}

    def begin(self, captures: Captures) -> None:
        """The data plane is there; what was wanted before is watched now."""
        self._captures = captures
        for homes, per_second in self._wanted.items():
            self._capture(homes, per_second)

    def _watch(self, action: WatchPackets) -> None:
        """Raises DataPlaneError: its table is full."""
        homes = action.home_addresses
        if not action.per_second:
            self._wanted.pop(homes, None)
            if self._captures is not None:
                self._captures.end(("packet", homes))
            return
        self._wanted[homes] = action.per_second
        self._capture(homes, action.per_second)

    def _capture(self, homes: tuple[Addr, ...], per_second: int) -> None:
        if self._captures is None:
            return
        loop = asyncio.get_running_loop()

        def pending() -> None:
            loop.call_later(GATHERING, self._give, homes)

        self._captures.begin(("packet", homes), homes, per_second, pending)

    def _give(self, homes: tuple[Addr, ...]) -> None:
        if self._captures is None:
            return
        rows, left_out = self._captures.take(("packet", homes))
        packets = tuple(
            SeenPacket(head, length)
            for _at, head, length in rows
            if isinstance(head, bytes) and isinstance(length, int)
        )
        if packets or left_out:
            self._feed(PacketsSeen(homes, packets, left_out))

    def _tell(self, action: TellCorrespondent) -> None:
        reason = self._told(action)
        self._feed(CorrespondentTold(action.handover, action.app, action.flow, reason))

    def _told(self, action: TellCorrespondent) -> str:
        """Give the proxy the text; a reason why it has not got it."""
        for app in self._apps.all():
            if (app.handover, app.order.name) != (action.handover, action.app):
                continue
            number = next(
                (number for number, held in app.sessions.items() if held.held.flow == action.flow), None
            )
            if number is None:
                return NO_SESSION
            if not self._apps.catalogue.tells(app.order.kind):
                return MUTE
            process = app.process
            if process is None or not app.begun or not process.free:
                return BUSY
            return "" if process.send("tell", number, action.text) else BUSY
        return NO_PROXY
