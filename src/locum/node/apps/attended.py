"""A stand-in whose sessions are attended by application proxies (A1), and that takes connections over from them (A11)."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from locum.node import words
from locum.node.apps.attending import Apps
from locum.node.apps.awake.leads import Leads
from locum.node.apps.catalogue import catalogue
from locum.node.apps.data import AppData
from locum.node.apps.emitting import Emitting
from locum.node.apps.handing import Offer, Offers
from locum.node.apps.outlets import Outlets
from locum.node.apps.paging.table_events import TableEvents
from locum.node.apps.running import kept_state
from locum.node.apps.transfers import AppTransfers
from locum.node.config.settings import MnpsSettings
from locum.node.performer import Handler
from locum.node.sessions.draining import BEGAN_HERE, HeldSocket, name_of
from locum.node.sessions.stand_in import LocalPeers, StandIn
from locum.node.tables import HostStore, StoreError
from locum.roles import actions as do
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.apps import StartApps
from locum.roles.action_values.handed import ConnectionHanded, OfferEnded, RefuseOffered, TakeOffered
from locum.roles.actions import Event
from locum.sessions.handed import taking
from locum.sessions.tcp.errors import SessionError
from locum.wire.control import MAX_SESSIONS

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane

_AGAIN = 0.2  # seconds until a busy proxy is told of a file


class AttendedStandIn(StandIn):
    """Performs the actions about proxies as well."""

    def __init__(
        self,
        name: str,
        settings: MnpsSettings,
        store: HostStore,
        feed: Callable[[Event], None],
        emit: Callable[[do.Emit], None],
        peers: LocalPeers,
        inject: Callable[[bytes], None],
        count: Callable[[str], None],
    ) -> None:
        super().__init__(name, settings, store, feed, emit, peers, inject, count)
        limits, self.data = settings.app_limits, AppData(settings.app_dir)
        self._offers = Offers(feed)
        outlets = Outlets(
            self.data,
            limits,
            self.openings,
            Emitting(limits.emission),
            self._offers.taker,
            is_local=peers.is_local,
            leads=Leads(feed),
        )
        self.apps = Apps(catalogue(), store, self.of, feed, emit, count, limits, outlets)
        self.table_events = TableEvents(self.apps, feed)
        self.transfers = AppTransfers(
            self.data,
            limits,
            feed,
            lambda: [(app.device, app.order.name) for app in self.apps.all()],
            lambda device, name: kept_state(self.apps.all(), device, name),
            self._uploaded,
        )

    def handlers(self) -> Mapping[type, Handler]:
        return {
            **super().handlers(),
            **self.apps.handlers(),
            **self.table_events.handlers(),
            **self.apps.outlets.leads.handlers(),
            **self.transfers.handlers(),
            StartApps: self._start,
            TakeOffered: self._take_offered,
            RefuseOffered: self._refuse_offered,
        }

    def capture_from(self, plane: "DataPlane") -> None:
        """Packets that nothing takes come from there."""
        self.table_events.begin(self.apps.capture_from(plane))

    async def begin(self) -> None:
        await super().begin()
        self.transfers.begin()
        for held in self._all():
            self._tell_handed(held)

    def moved(self, held: HeldSocket) -> None:
        self.apps.moved(held)

    def dropped(self, held: HeldSocket) -> None:
        self.apps.dropped(held)

    async def close(self) -> None:
        self.apps.close()
        self._offers.close()
        self.apps.outlets.emitting.close()
        self.apps.outlets.leads.close()
        self.transfers.close()
        await super().close()

    def _start(self, action: StartApps) -> None:
        """Start proxies; what one reads to its end may run ahead of the program that did not read before."""
        self.apps.start(action)
        for app in self.apps.all():
            if app.handover == action.handover and self.apps.catalogue.reads_all(app.order.kind):
                for attended in app.sessions.values():
                    self.read_ahead(attended.held)

    def _uploaded(self, device: Addr, name: str) -> None:
        """The device has sent a file of a proxy, which may run."""
        for app in self.apps.all():
            if (app.device, app.order.name) != (device, name) or not app.begun or app.process is None:
                continue
            told = not self.apps.catalogue.takes_uploads(app.order.kind)
            if not told and not (app.process.free and app.process.send("files")):
                asyncio.get_running_loop().call_later(_AGAIN, self._uploaded, device, name)

    # connections of proxies for the device

    def _refuse_offered(self, action: RefuseOffered) -> None:
        self._offers.refuse(action.handover, action.number)

    async def _take_offered(self, action: TakeOffered) -> None:
        """Its row is stored before the role, thus users, learn that it is held. Raises SessionError: it is not there any more."""
        offer = self._offers.take(action.handover, action.number)
        try:
            flow = taking.flow_of(offer.socket)
        except OSError as problem:
            offer.socket.close()
            raise SessionError(words.reason(problem)) from problem
        try:
            held = self._taken(action.handover, offer)
        except (SessionError, OSError) as problem:
            self._feed(OfferEnded(action.handover, flow, offer.label, words.reason(problem)))
            return
        await self._lead_here([held])
        # A write that fails is repeated: the peer does not wait for a disk to have room.
        with contextlib.suppress(StoreError):
            await self._store.durable()
        self._draining.step(held)
        self._tell_handed(held)

    def _taken(self, handover: bytes, offer: Offer) -> HeldSocket:
        numbers = self._held.get(handover, {})
        number = next((n for n in range(MAX_SESSIONS - 1, -1, -1) if n not in numbers), None)
        if number is None:
            offer.socket.close()
            raise SessionError("the handover has no number left")
        key, keeper = (handover, number), self._keeper
        name = name_of(key) + BEGAN_HERE
        keep = None if keeper is None else lambda made: keeper.store(name, made.fileno())
        try:
            connection, record = taking.take(offer.socket, offer.unread, keep)
        except SessionError:
            if keeper is not None:  # it may have got that far
                keeper.remove(name)
            raise
        held = self._made(key, record, str(record.flow.local), connection)
        held.label = offer.label
        self._keep(held)
        self._put_row(held, str(record.flow.local))
        return held

    def _tell_handed(self, held: HeldSocket) -> None:
        if held.label is not None:
            self._feed(ConnectionHanded(*held.key, held.flow, held.label))
