"""One running node: opens the resources of its roles, restores them, and takes it all down again.

Owns the event loop, the clock and the order of starting and stopping. `Driver` drives the roles, which decide; each handler
of actions is in a file of its own.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

from locum.node.assembly import limits, roles
from locum.node.clock import ClockKeeper, SteadyClock, WallClockWatch
from locum.node.coap.exchanges import Exchanges
from locum.node.config.settings import Settings
from locum.node.control.answering import Answers
from locum.node.control.server import ControlSocket
from locum.node.driver import Driver, Slot
from locum.node.events import EventStream
from locum.node.host.beside import Beside
from locum.node.host.early_bind import miss_addresses
from locum.node.host.handlers import HostHandlers
from locum.node.host.link_follower import LinkFollower
from locum.node.host.link_watch import Link, LinkState, LinkWatch
from locum.node.host.network import HostNetwork
from locum.node.host.service_manager import ServiceManager
from locum.node.leaving import farewell
from locum.node.moving.opening import follow_host
from locum.node.multicast.group_joins import GroupJoins
from locum.node.performer import Handler, Pipelined, Sequential
from locum.node.plane.delivery_watch import DeliveryWatch
from locum.node.plane.forwarder import Forwarder
from locum.node.plane.readers import PlaneReaders
from locum.node.plane.visitors import serve_visitors
from locum.node.preparing import prepare_host
from locum.node.registration.demultiplexer import RegistrationIo
from locum.node.registration.prober import Prober
from locum.node.store import Store
from locum.node.tables import HostStore, RoleTables, SharedStore
from locum.node.uses.opening import open_programs
from locum.node.wireguard import opening as wireguard
from locum.roles import actions as do
from locum.roles.action_values.contexts import CountInFlight, InFlightCounted
from locum.roles.action_values.forwarding import FORWARDING
from locum.roles.actions import Action
from locum.roles.nat import TraversalMode
from locum.wire.control import Flow

if TYPE_CHECKING:
    from locum.dataplane.plane import DataPlane
    from locum.node.apps.attended import AttendedStandIn as StandIn
    from locum.node.coap.learnt_associations import LearntAssociations
    from locum.node.moving.following import FollowingHost
    from locum.node.multicast.memberships import Memberships
    from locum.node.policy.radius import RadiusClient
    from locum.node.registration.echo_responder import EchoResponder
    from locum.node.registration.echo_watch import EchoWatch
    from locum.node.sessions.device import SessionCapture
    from locum.node.sessions.last_sent import LastSent
    from locum.node.sessions.replaying import Replaying
    from locum.node.wireguard.service import WireGuard
    from locum.roles.home_agent.role import HomeAgent
    from locum.sessions.datagrams.keep_alive import KeepAliveRule
    from locum.sessions.datagrams.record import Repeated

log = logging.getLogger("locum.node")


class Node:
    """All of one node: `start`, then `stop`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = 0.0  # steady seconds
        self.events: EventStream
        self.driver: Driver
        self.host_store: HostStore
        self.shared_store: SharedStore
        self.clock: SteadyClock
        self.watch: LinkWatch
        self.network: HostNetwork
        self.beside: Beside
        self.plane: DataPlane
        self.forwarder: Forwarder
        self.registrations: RegistrationIo
        self.exchanges: Exchanges
        self._prober: Prober
        self._host: HostHandlers
        self.policy: RadiusClient | None = None
        self.learnt: LearntAssociations | None = None
        self.session_capture: SessionCapture | None = None
        self.replaying: Replaying | None = None
        self.stand_in: StandIn | None = None
        self.deliveries: DeliveryWatch | None = None
        self.memberships: Memberships | None = None
        self.wireguard: WireGuard | None = None
        self.groups: GroupJoins
        self.moving: FollowingHost | None = None  # of a device with a stand-in
        self._plane_readers: PlaneReaders
        self._begun_in_vain = False
        self._manager = ServiceManager()
        self._closers = contextlib.AsyncExitStack()
        self._links: LinkFollower | None = None  # once the roles are there
        self._control: ControlSocket

    # Start and stop -------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open everything, restore the roles, begin. On failure everything opened is closed again.

        Raises ConfigError, StoreError, SocketBusy, DataPlaneError or OSError, each one clear line.
        """
        try:
            await self._start()
        except BaseException:
            self._begun_in_vain = True
            await self._closers.aclose()
            raise

    async def _start(self) -> None:
        settings, node = self.settings, self.settings.node
        answer = Answers(self).answer
        self._control = ControlSocket(node.socket, answer, lambda tell: self.events.subscribe(tell))
        self._control.check()
        store = Store(node.database)
        self._closers.push_async_callback(store.close)
        self.host_store, self.shared_store = store, store
        self._open_clock()
        try:
            self.events = EventStream(node.name, node.log_events, node.event_bytes)
        except OSError as problem:
            said = f"{settings.file}: [node] log_events: {problem.filename}: {problem.strerror}"
            raise OSError(problem.errno, said) from None
        self._closers.callback(self.events.close)
        self.driver = Driver(self.clock, self.events)
        self._closers.callback(WallClockWatch(self.driver.clock_set).close)
        in_vain = (self._closers, lambda: self._begun_in_vain)
        self.wireguard = await wireguard.opened(settings, self.host_store, self.events, *in_vain)
        self.watch = LinkWatch(self._link_changed)
        await self.watch.open()
        self._closers.push_async_callback(self.watch.close)
        for interface in node.interfaces:
            if self.watch.find(interface) is None:
                self.events.emit("link-missing", detail={"link": interface})
        miss_addresses(settings, self.watch, self.events)
        self.network = HostNetwork(self.host_store, lambda name, found: self.plane.inherit(name, found))
        self.network.home_network = self.settings.home_network
        await self.network.open()
        self._closers.push_async_callback(self.network.close)
        self.groups = GroupJoins(self.network, self.events)
        await self._open_plane()
        self.network.place(self.plane.number)
        if self.wireguard is not None:
            await self.wireguard.begin(self.network)
        uses = await prepare_host(settings, self.network, self.plane.sysctls)
        self._open_registrations()
        self._open_memberships()
        self._host = HostHandlers(
            node.name, self.network, self.memberships, self._owned, self.driver.feed, self.host_store, uses
        )
        self._closers.push_async_callback(self._host.close)
        self._open_sessions()
        self._prober = Prober(partial(self.driver.feed, "foreign_agent"), self._probe_source)
        self._closers.callback(self._prober.close)
        await self._open_policy()
        self.exchanges = Exchanges(settings, self.host_store, self.events, self.driver.feed, self.learnt)
        await self.exchanges.open()
        self._closers.push_async_callback(self.exchanges.close)
        await self._begin()
        if self.wireguard is not None:
            await self.wireguard.settle()
        self.beside = Beside(settings, self.plane, self.network, self.events)
        self.beside.open()
        self._closers.push_async_callback(self.beside.close)
        await open_programs(settings, self.events, self._closers)
        await self._control.open()
        self._closers.push_async_callback(self._control.close)
        self.moving = follow_host(self, self._closers)
        self.events.emit("started", detail={"roles": list(self.driver.slots), "pid": os.getpid()})
        self._manager.ready(", ".join(name.replace("_", " ") for name in self.driver.slots))

    def _open_clock(self) -> None:
        self.clock = SteadyClock(self.host_store)
        self.started_at = self.clock.now()
        self._closers.callback(ClockKeeper(self.clock).close)

    async def _open_plane(self) -> None:
        from locum.dataplane.plane import DataPlane

        node = self.settings.node
        self.plane = DataPlane.open(
            node.name,
            node.interfaces,
            bpf_root=node.bpf_dir,
            limits=limits(self.settings),
            forwarding=self.settings.is_router,
        )
        self._closers.push_async_callback(self._end_plane)
        self.forwarder = Forwarder(self.plane, self.events, self.driver.tell)
        self.forwarder.followers.append(self.groups.applied)
        self._closers.callback(self.forwarder.close)
        if self.settings.home_agent is not None:
            from locum.node.plane.ended_rules import teller

            self.plane.tell_ended_rules(teller(self.events))
        serve_visitors(self.plane, self.settings.foreign_agent)
        self._plane_readers = PlaneReaders(self.plane, self.events, self._opening)
        if self.settings.ends_tunnels:
            self._closers.callback(self._plane_readers.reassembled(probes=node.path_mtu_probes).close)
        self._plane_readers.open()
        self._closers.callback(self._plane_readers.close)

    async def _end_plane(self) -> None:
        """Forwarding outlives us, unless it never began: after a failed start the host is as it was found."""
        if self._begun_in_vain and not self.plane.adopted:
            await self.network.undo_all()
            self.plane.remove()
        self.plane.close()

    def _open_memberships(self) -> None:
        foreign = self.settings.foreign_agent
        if foreign is None or foreign.configuration.upstream is None:
            return
        from locum.node.multicast.memberships import Memberships

        self.memberships = Memberships(
            foreign.links, self.watch, self.events, lambda event: self.driver.feed("foreign_agent", event)
        )
        self.memberships.open()
        self._closers.callback(self.memberships.close)

    def _open_registrations(self) -> None:
        self.registrations = RegistrationIo(
            self.settings, self.watch, self.events, self.driver.deliver, self.plane.take_reassembled,
            self.driver.feed,
        )  # fmt: skip
        mnps = self.settings.mnps
        if set(self.settings.roles) <= {"mnps", "location"} and (mnps is None or not mnps.devices):
            return  # it takes part in no registration
        self.registrations.open()
        self._closers.callback(self._close_registrations)
        mobile = self.settings.mobile_node.configuration if self.settings.mobile_node is not None else None
        if mobile is not None and mobile.colocated and mobile.nat_traversal is not TraversalMode.OFF:
            from locum.node.registration.echo_watch import EchoWatch

            feed = partial(self.driver.feed, "mobile_node")
            self._listen(EchoWatch(mobile.home_address, mobile.only_home_agent, feed, self.events.count))
        home = self.settings.home_agent.configuration if self.settings.home_agent is not None else None
        if home is not None and home.traversal.willing:
            from locum.node.registration.echo_responder import EchoResponder

            for address in home.addresses:
                answering = (self._tunnelled_in_udp, self.plane.inject, self.events.count)
                self._listen(EchoResponder(address, *answering))

    def _close_registrations(self) -> None:
        for fileno in self.registrations.filenos():
            asyncio.get_running_loop().remove_reader(fileno)
        self.registrations.close()

    def _listen(self, raw: "EchoWatch | EchoResponder | LastSent") -> None:
        loop, fileno = asyncio.get_running_loop(), raw.fileno()
        self._closers.callback(raw.close)
        loop.add_reader(fileno, raw.read)
        self._closers.callback(loop.remove_reader, fileno)

    def _tunnelled_in_udp(self, home_address: IPv4Address) -> bool:
        slot = self.driver.slots.get("home_agent")
        if slot is None:
            return False
        bound = cast("HomeAgent", slot.role).revocation.revocable(home_address)
        return any(care_of.outer is not None for care_of in bound)

    def _open_sessions(self) -> None:
        node = self.settings.node
        mobile = self.settings.mobile_node
        if mobile is not None and mobile.stand_ins:
            from locum.node.sessions.device import SessionCapture
            from locum.node.sessions.replaying import Replaying

            self.session_capture = SessionCapture(
                node.name, node.run_dir, mobile.freeze, self.host_store,
                lambda event: self.driver.feed("mobile_node", event), self.plane.inject,
                mobile.exclusions, self.plane.divert,
                self._keep_alive(mobile.keep_alive),
            )  # fmt: skip
            self._closers.push_async_callback(self.session_capture.close)
            session_capture = self.session_capture
            self.replaying = Replaying(
                lambda event: self.driver.feed("mobile_node", event), self.plane.inject,
                lambda: session_capture.frozen, self.events.emit, mobile.accept_seconds,
            )  # fmt: skip
            self._closers.push_async_callback(self.replaying.close)
            self.replaying.tell_impossible(mobile.configuration.listening, self.events.emit)
        if self.settings.mnps is not None:
            from locum.node.apps.attended import AttendedStandIn as StandIn
            from locum.node.host.local_peers import LocalPeers

            self.stand_in = StandIn(
                node.name, self.settings.mnps, self.host_store, lambda event: self.driver.feed("mnps", event),
                lambda told: self.events.emit(told.kind, told.message, told.home_address, told.flow, told.detail),
                LocalPeers(self.network, self.watch), self.plane.inject,
                self.events.count,
            )  # fmt: skip
            self._closers.push_async_callback(self.stand_in.close)

    def _keep_alive(self, rules: "Sequence[KeepAliveRule]") -> "Callable[[Flow], Repeated | None]":
        """Keep-alive for the stand-in to repeat on a UDP flow; no traffic is observed without a rule."""
        if not rules:
            return lambda _flow: None
        from locum.node.sessions.last_sent import LastSent

        sent = LastSent(rules)
        self._listen(sent)
        return sent.repeated

    async def _open_policy(self) -> None:
        if self.settings.policy is None:
            return
        from locum.node.policy.radius import RadiusClient

        self.policy = RadiusClient(
            self.settings.policy, self.settings.asks_policy_from, self.events, self.driver.feed, self.settings.roles
        )  # fmt: skip
        self._closers.push_async_callback(self.policy.close)
        await self.policy.open()
        control, mnps = self.settings.control, self.settings.mnps
        if mnps is not None and control is not None:
            from locum.node.coap.learnt_associations import LearntAssociations

            ask = partial(self.policy.association, control.address)
            self.learnt = LearntAssociations(
                ask, control.associations, mnps.configuration.home_prefixes, self.host_store, self.events,
                self.clock.now,
            )  # fmt: skip
            self._closers.push_async_callback(self.learnt.close)
            self.learnt.restore()

    def _make_slots(self) -> None:
        for name, role in roles(self.settings, self.watch.ipv4_interface).items():
            kind = Pipelined if name == "home_agent" else Sequential
            performer = kind(self._tables(name), self.events, self.forwarder.apply, self._handlers(name))
            if isinstance(performer, Pipelined):
                performer.answer = self.registrations.answer
            else:
                performer.tell_failure = partial(self.driver.feed, name)
            self.driver.slots[name] = Slot(name, role, performer)

    def _tables(self, role: str) -> RoleTables:
        return RoleTables(role, self.host_store, self.shared_store)

    def _handlers(self, role: str) -> Mapping[type, Handler]:
        handlers: dict[type, Handler] = {
            **self.registrations.handlers(),
            **self._host.handlers(),
            **self.exchanges.handlers(role),
            **(self.policy.handlers(role) if self.policy is not None else {}),
            do.Probe: self._prober.probe,
            CountInFlight: self._count_in_flight,
            do.ForwardPacket: lambda action: self.plane.inject(action.packet),
        }
        if self.session_capture is not None:
            handlers.update(self.session_capture.handlers())
        if self.replaying is not None:
            handlers.update(self.replaying.handlers())
        if self.stand_in is not None:
            handlers.update(self.stand_in.handlers())
        return handlers

    async def _begin(self) -> None:
        """Restore the roles, then read messages: no role answers before it knows its earlier promises.

        Until here messages wait in their sockets: a decision of a role now would be undone by its own restoration.
        """
        self._restore()
        loop = asyncio.get_running_loop()
        for fileno, read in self.registrations.filenos().items():
            loop.add_reader(fileno, read)
        self.exchanges.begin()
        if self.policy is not None:
            await self.policy.begin()
        for slot in self.driver.slots.values():
            if isinstance(slot.performer, Sequential):
                await slot.performer.drained()
            self.driver.schedule(slot)
        if self.stand_in is not None:
            self.stand_in.capture_from(self.plane)
            await self.stand_in.begin()
        await self.groups.settled()
        await self.network.undo_stale()

    def _restore(self) -> None:
        """Restore the roles; the data plane is set to their state in one step, before any message is sent.

        It must not wait for anything: roles that are there are roles that are restored.
        """
        now = self.clock.now()
        self._make_slots()
        self._links = LinkFollower(
            self.settings, self.driver, self.events, self.exchanges.link_lost, self.registrations,
            self.network, self.plane, self.memberships,
        )  # fmt: skip
        self._adopt_sessions()
        others: dict[str, list[Action]] = {}
        changes = self.plane.reconcile(self.driver.restored(self._tables, others, now))
        if changes:
            self.events.emit("reconciled", detail={"changes": len(changes.actions)})
        self.forwarder.keep(changes.refused)
        if (foreign := self.settings.foreign_agent) is not None and foreign.static:
            self.deliveries = DeliveryWatch(
                foreign.static, self.plane, lambda event: self.driver.feed("foreign_agent", event)
            )
            self._closers.callback(self.deliveries.close)
            self.forwarder.followers.append(self.deliveries.applied)
        for name, actions in others.items():
            self.groups.applied(actions)
            rest = (action for action in actions if type(action) not in FORWARDING)
            self.driver.slots[name].performer.perform(rest)
        self.driver.tell_wall_clock()
        # Before any timer: no solicitation is sent on a link that is down.
        for interface in self.settings.node.interfaces:
            self._links.tell(interface, LinkState.of(self.watch.find(interface)))
        self._plane_readers.tell_pages(self.driver.feed)

    def _adopt_sessions(self) -> None:
        if self.stand_in is not None:
            for flow in self.stand_in.adopt():
                self.events.emit(
                    "session-lost", None, flow.local, flow, {"reason": "the daemon died with it"}
                )
        if self.session_capture is not None:
            from locum.node.sessions.claimed import claimed_flows

            self.session_capture.adopt(claimed_flows(self.host_store))

    async def stop(self, *, remove: bool = True) -> None:
        """End; with `remove` the network is left as it was found, else forwarding goes on without us."""
        self._manager.stopping()
        self.events.emit("stopping")
        if remove and (slot := self.driver.slots.get("mobile_node")) is not None:
            from locum.node.control.sleep import SleepControl

            await SleepControl(self, slot).leave()
        if remove and "foreign_agent" in self.driver.slots:
            await farewell(self.driver, self.clock.now())
        self.driver.stop()
        if remove:
            await self.groups.settled()
            await self.beside.close()
            await self.network.undo_all()
            self._plane_readers.close()
            self.plane.remove()
            if self.wireguard is not None:
                await self.wireguard.close(remove=True)
        await self._closers.aclose()

    # Forwarding and the host's network -------------------------------------------------------------------------------

    def _opening(self, packet: bytes) -> None:
        if self.stand_in is not None:
            self.stand_in.openings.came(packet)

    def _owned(self, home_address: IPv4Address) -> None:
        self.registrations.home_address = home_address

    def _count_in_flight(self, action: CountInFlight) -> None:
        from locum.node.plane.in_flight_count import counted

        event = InFlightCounted(
            action.home_addresses[0], action.peer, action.incoming, counted(self.plane, action)
        )
        asyncio.get_running_loop().call_soon(self.driver.feed, "foreign_agent", event)

    # Links -----------------------------------------------------------------------------------------------------------

    def _link_changed(self, name: str, link: Link | None) -> None:
        if self.wireguard is not None:
            self.wireguard.link_changed(name, link)
        if self._links is not None:
            self._links.changed(name, link)

    def _probe_source(self, link: str) -> IPv4Address:
        """Source of probes to a visitor: the agent's address on the link or else its care-of address."""
        foreign = self.settings.foreign_agent
        assert foreign is not None
        interface = self.watch.ipv4_interface(link)
        return foreign.configuration.care_of_address if interface is None else interface.ip

    def interface_states(self) -> dict[str, str]:
        """Each configured interface as "up", "down" or "absent"."""
        links = {name: self.watch.find(name) for name in self.settings.node.interfaces}
        return {
            name: "absent" if link is None else "up" if link.up else "down" for name, link in links.items()
        }
