"""One running node: opens what its roles need, drives them with messages, events and time, and takes it all down again.

The only owner of the event loop, the clock and the order of starting and stopping. Policy is the roles' business; each
hand that performs an action is in a file of its own.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Interface
from typing import TYPE_CHECKING, Any, cast

from locum.node.assembly import limits, roles
from locum.node.clock import KEEP_EVERY, SteadyClock, WallClockWatch
from locum.node.coap.exchanges import Exchanges
from locum.node.config.settings import Address, Settings
from locum.node.control.answering import Answers
from locum.node.control.server import ControlSocket
from locum.node.events import EventStream
from locum.node.host.link_follower import LinkFollower
from locum.node.host.link_watch import LinkState, LinkWatch
from locum.node.host.network import HostNetwork
from locum.node.host.service_manager import ServiceManager
from locum.node.multicast.group_joins import GroupJoins
from locum.node.performer import Hand, Performer, Pipelined, Sequential, collection
from locum.node.plane.delivery_watch import DeliveryWatch
from locum.node.registration.demultiplexer import RegistrationIo
from locum.node.registration.prober import Prober
from locum.node.store import Store
from locum.roles import actions as do
from locum.roles.action_values.addresses import Source
from locum.roles.action_values.contexts import CountInFlight, InFlightCounted
from locum.roles.action_values.forwarding import (
    FORWARDING,
    LeaveAgent,
    NeighbourEntry,
    RemoveNeighbour,
    UseAgent,
)
from locum.roles.actions import Action, Event, Role
from locum.roles.profile_requests import OwnHomeAddress
from locum.wire.control import Flow

if TYPE_CHECKING:
    from locum.dataplane.data_plane import DataPlane
    from locum.node.coap.learnt_associations import LearntAssociations
    from locum.node.multicast.memberships import Memberships
    from locum.node.policy.radius import RadiusClient
    from locum.node.registration.echo_responder import EchoResponder
    from locum.node.registration.echo_watch import EchoWatch
    from locum.node.sessions.device import Napping
    from locum.node.sessions.last_sent import LastSent
    from locum.node.sessions.replaying import Replaying
    from locum.node.sessions.stand_in import StandIn
    from locum.roles.home_agent.role import HomeAgent
    from locum.sessions.datagrams.keep_alive import KeepAliveRule
    from locum.sessions.datagrams.record import Repeated

log = logging.getLogger("locum.node")
_LONGEST_WAIT = 30.0  # seconds; in a loop whose timers stand still while the machine is suspended


@dataclass(slots=True)
class Slot:
    """A role and what drives it."""

    name: str
    role: Role
    performer: Performer
    timer: asyncio.TimerHandle | None = None
    due: float = float("inf")  # steady seconds for which the timer is set
    unscheduled: bool = False  # the timer will be looked at soon
    told: set[Callable[[], None]] = field(default_factory=set)  # called after every step


class Node:
    """All of one node. `start`, then `stop`; `failed` is set when the node cannot go on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_at = 0.0  # steady seconds
        self.slots: dict[str, Slot] = {}
        self.events: EventStream
        self.store: Store
        self.clock: SteadyClock
        self.watch: LinkWatch
        self.network: HostNetwork
        self.plane: DataPlane
        self.registrations: RegistrationIo
        self.exchanges: Exchanges
        self._prober: Prober
        self.policy: RadiusClient | None = None
        self.learnt: LearntAssociations | None = None
        self.napping: Napping | None = None
        self.replaying: Replaying | None = None
        self.stand_in: StandIn | None = None
        self.deliveries: DeliveryWatch | None = None
        self.memberships: Memberships | None = None
        self.groups: GroupJoins
        self._widening: asyncio.TimerHandle | None = None
        self._keeping: asyncio.TimerHandle | None = None
        self._plane_readers: dict[int, Callable[[], object]] = {}
        self._begun_in_vain = False
        self._stopped = False
        self._manager = ServiceManager()
        self._closers = contextlib.AsyncExitStack()
        self._links = LinkFollower(self)
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
        self._control = ControlSocket(node.socket, Answers(self).answer, self._subscribe)
        self._control.check()
        self.store = Store(node.database)
        self._closers.push_async_callback(self.store.close)
        self._open_clock()
        try:
            self.events = EventStream(node.name, node.log_events, node.event_bytes)
        except OSError as problem:
            said = f"{settings.file}: [node] log_events: {problem.filename}: {problem.strerror}"
            raise OSError(problem.errno, said) from None
        self._closers.callback(self.events.close)
        self.watch = LinkWatch(self._links.changed)
        await self.watch.open()
        self._closers.push_async_callback(self.watch.close)
        for interface in node.interfaces:
            if self.watch.find(interface) is None:
                self.events.emit("link-missing", detail={"link": interface})
        self._miss_addresses()
        self.network = HostNetwork(self.store)
        await self.network.open()
        self._closers.push_async_callback(self.network.close)
        self.groups = GroupJoins(self.network, self.events)
        await self._open_plane()
        await self._prepare_host()
        self._open_registrations()
        self._open_memberships()
        self._open_sessions()
        self._prober = Prober(partial(self.feed, "foreign_agent"), self._probe_source)
        self._closers.callback(self._prober.close)
        await self._open_policy()
        self.exchanges = Exchanges(settings, self.store, self.events, self.feed, self.learnt)
        await self.exchanges.open()
        self._closers.push_async_callback(self.exchanges.close)
        await self._begin()
        await self._control.open()
        self._closers.push_async_callback(self._control.close)
        self.events.emit("started", detail={"roles": list(self.slots), "pid": os.getpid()})
        self._manager.ready(", ".join(name.replace("_", " ") for name in self.slots))

    def _open_clock(self) -> None:
        self.clock = SteadyClock(self.store)
        self.started_at = self.clock.now()
        self._keep_clock()
        self._closers.callback(self._close_clock)
        self._closers.callback(WallClockWatch(self._now).close)

    def _keep_clock(self) -> None:
        self.clock.keep()
        self._keeping = asyncio.get_running_loop().call_later(KEEP_EVERY, self._keep_clock)

    def _close_clock(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
        self.clock.keep()

    def _miss_addresses(self) -> None:
        """Sockets work as soon as the address is there; one that is mistyped never is."""
        settings = self.settings
        mobile = settings.mobile_node
        # Home addresses of a device on this host are given to it by us.
        own = () if mobile is None else (mobile.home_address, mobile.home_address_v6)
        for table, key, role in (
            ("control", "address", settings.control),
            ("home_agent", "address", settings.home_agent),
            ("foreign_agent", "care_of_address", settings.foreign_agent),
            ("mnps", "address", settings.mnps),
        ):
            address: Address | None = getattr(role, key, None)
            if address is None or address.is_unspecified or address in own or self.watch.is_local(address):
                continue
            self.events.emit("address-missing", detail={"address": address, "table": table, "key": key})
            log.warning("%s: [%s] %s: %s is no address of this host yet", settings.file, table, key, address)

    async def _open_plane(self) -> None:
        from locum.dataplane.data_plane import DataPlane

        node = self.settings.node
        router = self.settings.home_agent is not None or self.settings.foreign_agent is not None
        self.plane = DataPlane.open(
            node.name, node.interfaces, bpf_root=node.bpf_dir, limits=limits(self.settings), forwarding=router
        )
        self._closers.push_async_callback(self._end_plane)
        if self.settings.home_agent is not None:
            from locum.node.plane.ended_rules import teller

            self.plane.tell_ended_rules(teller(self.events))
        foreign = self.settings.foreign_agent
        self.plane.serve_visitors(foreign.links if foreign is not None else ())
        self._plane_readers = {self.plane.fileno(): self._held}
        if self.settings.ends_tunnels:
            from locum.dataplane.kernel.reassembly import Reassembly

            whole = Reassembly(self.plane.take_reassembled, self._path_narrowed)
            self._closers.callback(whole.close)
            self._plane_readers |= {fileno: partial(whole.read, fileno) for fileno in whole.filenos()}
        for fileno, read in self._plane_readers.items():
            asyncio.get_running_loop().add_reader(fileno, read)
        self._closers.callback(self._leave_plane)

    def _leave_plane(self) -> None:
        """The data plane is about to end: nothing is read from it and nothing written to it any more."""
        for fileno in self._plane_readers:
            asyncio.get_running_loop().remove_reader(fileno)
        if self._widening is not None:
            self._widening.cancel()

    def _path_narrowed(self, destination: Address, mtu: int) -> None:
        from locum.dataplane.kernel.network import PATH_MTU_AGE

        self.plane.path_mtu(destination, mtu)
        if self._widening is not None:
            self._widening.cancel()
        self._widening = asyncio.get_running_loop().call_later(PATH_MTU_AGE + 1, self.plane.refresh)

    async def _end_plane(self) -> None:
        """Forwarding outlives us, unless it never began: after a failed start the host is as it was found."""
        if self._begun_in_vain and not self.plane.adopted:
            await self.network.undo_all()
            self.plane.remove()
        self.plane.close()

    async def _prepare_host(self) -> None:
        mobile, mnps = self.settings.mobile_node, self.settings.mnps
        if mobile is not None:
            for address in (mobile.home_address, mobile.home_address_v6):
                if address is not None and not address.is_unspecified:
                    await self.network.own_home_address(address)
        if mnps is not None:
            from locum.dataplane.kernel.device import device_name

            # what was held comes back by the re-injection device
            links = (*mnps.links, device_name(self.settings.node.name))
            agent = self.settings.home_agent is not None or self.settings.foreign_agent is not None
            await self.network.receive_for(mnps.home_prefixes, links, forwards=agent)
            if self.settings.home_agent is not None:
                await self.network.send_home(mnps.home_prefixes, links[-1])

    def _open_memberships(self) -> None:
        foreign = self.settings.foreign_agent
        if foreign is None or foreign.multicast_link is None:
            return
        from locum.node.multicast.memberships import Memberships

        self.memberships = Memberships(
            foreign.links, self.watch, self.events, lambda event: self.feed("foreign_agent", event)
        )
        self.memberships.open()
        self._closers.callback(self.memberships.close)

    def _open_registrations(self) -> None:
        self.registrations = RegistrationIo(
            self.settings, self.watch, self.events, self.deliver, self.plane.take_reassembled, self.feed
        )
        mnps = self.settings.mnps
        if self.settings.roles == ("mnps",) and (mnps is None or not mnps.devices):
            return  # it takes part in no registration
        self.registrations.open()
        self._closers.callback(self._close_registrations)
        mobile = self.settings.mobile_node
        if mobile is not None and mobile.mode == "colocated" and mobile.traversal.mode != "off":
            from locum.node.registration.echo_watch import EchoWatch

            echoes = EchoWatch(
                mobile.home_address, mobile.home_agent, lambda event: self.feed("mobile_node", event)
            )
            self._listen(echoes)
        home = self.settings.home_agent
        if home is not None and home.nat_traversal:
            from locum.node.registration.echo_responder import EchoResponder

            self._listen(
                EchoResponder(home.address, self._tunnelled_in_udp, lambda packet: self.plane.inject(packet))
            )

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
        slot = self.slots.get("home_agent")
        if slot is None:
            return False
        bound = cast("HomeAgent", slot.role).revocation.revocable(home_address)
        return any(each.outer is not None for each in bound)

    def _open_sessions(self) -> None:
        node = self.settings.node
        if self.settings.mobile_node is not None and self.settings.mobile_node.mnps is not None:
            from locum.node.sessions.device import Napping
            from locum.node.sessions.replaying import Replaying

            self.napping = Napping(
                node.name, node.run_dir, self.settings.mobile_node.freeze, self.store,
                lambda event: self.feed("mobile_node", event), lambda packet: self.plane.inject(packet),
                self.settings.mobile_node.exclusions, self.plane.divert,
                self._keep_alive(self.settings.mobile_node.keep_alive),
            )  # fmt: skip
            self._closers.push_async_callback(self.napping.close)
            napping = self.napping
            self.replaying = Replaying(
                lambda event: self.feed("mobile_node", event), lambda packet: self.plane.inject(packet),
                lambda: napping.frozen,
            )  # fmt: skip
            self._closers.push_async_callback(self.replaying.close)
            self.replaying.tell_impossible(self.settings.mobile_node.listening, self.events.emit)
        if self.settings.mnps is not None:
            from locum.node.host.local_peers import LocalPeers
            from locum.node.sessions.stand_in import StandIn

            self.stand_in = StandIn(
                node.name, self.settings.mnps, self.store, lambda event: self.feed("mnps", event),
                lambda told: self.events.emit(told.kind, told.message, told.home_address, told.flow, told.detail),
                LocalPeers(self.network, self.watch), lambda packet: self.plane.inject(packet),
                self.events.count,
            )  # fmt: skip
            self._closers.push_async_callback(self.stand_in.close)

    def _keep_alive(self, rules: "Sequence[KeepAliveRule]") -> "Callable[[Flow], Repeated | None]":
        """What a stand-in is to repeat on a UDP flow; nothing is observed without a rule."""
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
            self.settings.policy, self.settings.asks_policy_from, self.events, self.feed
        )
        self._closers.push_async_callback(self.policy.close)
        await self.policy.open()
        control, mnps = self.settings.control, self.settings.mnps
        if mnps is not None and control is not None:
            from locum.node.coap.learnt_associations import LearntAssociations

            ask = partial(self.policy.association, control.address)
            self.learnt = LearntAssociations(
                ask, control.associations, mnps.home_prefixes, self.store, self.events, self.clock.now
            )
            self._closers.push_async_callback(self.learnt.close)
            self.learnt.restore()

    def _make_slots(self) -> None:
        for name, role in roles(self.settings, self._link_interface).items():
            kind = Pipelined if name == "home_agent" else Sequential
            performer = kind(name, self.store, self.events, self._forward, self._hands(name))
            if isinstance(performer, Pipelined):
                performer.answer = self.registrations.answer
            else:
                performer.tell_failure = partial(self.feed, name)
            self.slots[name] = Slot(name, role, performer)

    def _hands(self, role: str) -> Mapping[type, Hand]:
        hands: dict[type, Hand] = {
            **self.registrations.hands(),
            **self.exchanges.hands(role),
            **(self.policy.hands(role) if self.policy is not None else {}),
            NeighbourEntry: self._neighbour,
            RemoveNeighbour: self._remove_neighbour,
            UseAgent: self._use_agent,
            LeaveAgent: self._leave_agent,
            OwnHomeAddress: self._own_home_address,
            do.Probe: self._prober.probe,
            CountInFlight: self._count_in_flight,
        }
        if self.napping is not None:
            hands.update(self.napping.hands())
        if self.replaying is not None:
            hands.update(self.replaying.hands())
        if self.stand_in is not None:
            hands.update(self.stand_in.hands())
        return hands

    async def _begin(self) -> None:
        """Restore the roles, then hear. Nobody is answered by a role that does not know yet what it promised before.

        Until here messages wait in their sockets: what a role decided now would be undone by its own restoration.
        """
        self._restore()
        loop = asyncio.get_running_loop()
        for fileno, read in self.registrations.filenos().items():
            loop.add_reader(fileno, read)
        self.exchanges.begin()
        for slot in self.slots.values():
            if isinstance(slot.performer, Sequential):
                await slot.performer.drained()
            self._schedule(slot)
        if self.stand_in is not None:
            await self.stand_in.begin()
        await self.groups.settled()
        await self.network.undo_stale()

    def _restore(self) -> None:
        """Roles say what they want; the data plane is made so in one step, before anything is sent.

        It must not wait for anything: roles that are there are roles that are restored.
        """
        now = self.clock.now()
        self._make_slots()
        self._adopt_sessions()
        wanted: dict[str, list[Action]] = {}
        for slot in self.slots.values():
            rows = [
                do.Persist(table, key, value)
                for table in do.TABLES
                for key, value in self.store.rows(collection(slot.name, table)).items()
            ]
            wanted[slot.name] = slot.role.restore(rows, now=now)
        changes = self.plane.reconcile(
            action for actions in wanted.values() for action in actions if type(action) in FORWARDING
        )
        if changes:
            self.events.emit("reconciled", detail={"changes": len(changes.actions)})
        if (foreign := self.settings.foreign_agent) is not None and foreign.static:
            self.deliveries = DeliveryWatch(
                foreign.static, self.plane, lambda event: self.feed("foreign_agent", event)
            )
            self._closers.callback(self.deliveries.close)
        self.groups.applied(action for actions in wanted.values() for action in actions)
        for name, actions in wanted.items():
            self.slots[name].performer.perform(action for action in actions if type(action) not in FORWARDING)
        self._tell_wall_clock()
        # Before any timer: nobody solicits on a link that is down.
        for interface in self.settings.node.interfaces:
            self._links.tell(interface, LinkState.of(self.watch.find(interface)))

    def _adopt_sessions(self) -> None:
        if self.stand_in is not None:
            for flow in self.stand_in.adopt():
                self.events.emit(
                    "session-lost", None, flow.local, flow, {"reason": "the daemon died with it"}
                )
        if self.napping is not None:
            from locum.node.boot import boot_id
            from locum.roles.mobile_node.handover import Handover, Stage

            boot, over = boot_id(), (Stage.RETURNED, Stage.ABANDONED)
            claimed: dict[Flow, bool] = {}
            for key, row in self.store.rows(collection("mobile_node", "handover")).items():
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    handover = Handover.from_row(key, row)
                    if handover.stage not in over and handover.boot == boot:
                        claimed |= dict.fromkeys(handover.flows, handover.loose)
            self.napping.adopt(claimed)

    async def stop(self, *, remove: bool = True) -> None:
        """End; with `remove` the network is left as it was found, else forwarding goes on without us."""
        self._manager.stopping()
        self.events.emit("stopping")
        if remove and (slot := self.slots.get("mobile_node")) is not None:
            from locum.node.control.sleep import SleepControl

            await SleepControl(self, slot).leave()
        if remove and "foreign_agent" in self.slots:
            from locum.node.control.answering.revocations import farewell

            await farewell(self)
        self._stopped = True
        for slot in self.slots.values():
            if slot.timer is not None:
                slot.timer.cancel()
        if remove:
            await self.groups.settled()
            await self.network.undo_all()
            self._leave_plane()
            self.plane.remove()
        await self._closers.aclose()

    # Messages, events and time -------------------------------------------------------------------------------------

    def deliver(self, role: str, message: bytes, source: Source) -> None:
        """A registration or discovery message for a role."""
        slot = self.slots[role]
        self._step(slot, lambda now: slot.role.receive(message, source, now=now))

    def feed(self, role: str, event: Event) -> None:
        """An event for a role."""
        slot = self.slots.get(role)
        if slot is not None:
            self._step(slot, lambda now: slot.role.happened(event, now=now))

    def command(self, role: str, command: Callable[[Role, float], Sequence[Action]]) -> None:
        """What a person asks a role to do; exceptions of the role are the caller's."""
        slot = self.slots[role]
        slot.performer.perform(command(slot.role, self._now()))
        self._after(slot)

    def _now(self) -> float:
        """Steady seconds; the roles have heard by then where the wall clock is."""
        now, before = self.clock.now(), self.clock.ahead
        if self.clock.stepped(now):
            self.clock.keep()
            self.events.emit("clock-stepped", detail={"seconds": round(self.clock.ahead - before, 3)})
            self._tell_wall_clock()
        return now

    def _tell_wall_clock(self) -> None:
        for name in self.slots:
            self.feed(name, do.WallClockStepped(self.clock.ahead))

    def _step(self, slot: Slot, decide: Callable[[float], Sequence[Action]]) -> None:
        try:
            actions = decide(self._now())
        except Exception:
            self.events.count("internal-error")
            log.exception("%s failed to decide", slot.name)
            return
        slot.performer.perform(actions)
        self._after(slot)

    def _after(self, slot: Slot) -> None:
        if not slot.unscheduled:  # once for all the messages that are read in one go
            slot.unscheduled = True
            asyncio.get_running_loop().call_soon(self._schedule, slot)
        if slot.told:
            for tell in tuple(slot.told):
                tell()

    def _schedule(self, slot: Slot) -> None:
        """Set the timer, unless one that is set comes first anyway."""
        slot.unscheduled = False
        if self._stopped:
            return
        due = slot.role.deadline()
        if due is None or (slot.timer is not None and slot.due <= due):
            return
        if slot.timer is not None:
            slot.timer.cancel()
        slot.due = due
        delay = min(max(0.0, due - self.clock.now()), _LONGEST_WAIT)
        slot.timer = asyncio.get_running_loop().call_later(delay, self._timeout, slot)

    def _timeout(self, slot: Slot) -> None:
        slot.timer = None
        due = slot.role.deadline()
        if due is not None and due <= self.clock.now():
            self._step(slot, lambda now: slot.role.timeout(now=now))
        else:
            self._schedule(slot)

    # Forwarding and the host's network -------------------------------------------------------------------------------

    def _forward(self, actions: Sequence[Action]) -> None:
        self.plane.apply(actions)
        self.groups.applied(actions)
        if self.deliveries is not None:
            self.deliveries.applied(actions)

    def _held(self) -> None:
        self.plane.read_held()  # they wait in the data plane's queue until a role releases them
        for packet in self.plane.read_openings():
            if self.stand_in is not None:
                self.stand_in.openings.came(packet)

    async def _neighbour(self, action: NeighbourEntry) -> None:
        if self.memberships is not None:
            self.memberships.neighbour(action)
        await self.network.visitor(action.link, action.address, action.link_layer)

    async def _remove_neighbour(self, action: RemoveNeighbour) -> None:
        if self.memberships is not None:
            self.memberships.remove_neighbour(action)
        await self.network.remove_visitor(action.link, action.address)

    def _count_in_flight(self, action: CountInFlight) -> None:
        from locum.node.plane.in_flight_count import counted

        event = InFlightCounted(
            action.home_addresses[0], action.peer, action.incoming, counted(self.plane, action)
        )
        asyncio.get_running_loop().call_soon(self.feed, "foreign_agent", event)

    async def _use_agent(self, action: UseAgent) -> None:
        if action.colocated:
            from locum.dataplane.kernel.device import device_name

            device = device_name(self.settings.node.name)
            await self.network.use_home_address(action.link, device, action.home_addresses)
            return
        await self.network.use_agent(action.link, action.agent, action.link_layer, action.home_addresses)

    async def _own_home_address(self, action: OwnHomeAddress) -> None:
        if action.before is not None:
            await self.network.disown_home_address(action.before)
        await self.network.own_home_address(action.home_address)
        if isinstance(action.home_address, IPv4Address):
            self.registrations.home_address = action.home_address

    async def _leave_agent(self, action: LeaveAgent) -> None:
        await self.network.leave_agent(action.link)

    # Links -----------------------------------------------------------------------------------------------------------

    def _link_interface(self, link: str) -> IPv4Interface | None:
        """The IPv4 address of a link, with its network."""
        known = self.watch.find(link)
        addresses = known.addresses if known is not None else {}
        own = ((each, length) for each, length in addresses.items() if isinstance(each, IPv4Address))
        return next((IPv4Interface(each) for each in own), None)

    def _link_address(self, link: str) -> IPv4Address | None:
        interface = self._link_interface(link)
        return None if interface is None else interface.ip

    def _probe_source(self, link: str) -> IPv4Address:
        """Who asks a visitor: the agent, by its address on the link or else by its care-of address."""
        foreign = self.settings.foreign_agent
        assert foreign is not None
        return self._link_address(link) or foreign.care_of_address

    def _subscribe(self, tell: Callable[[str], None]) -> Callable[[], None]:
        return self.events.subscribe(tell)

    @property
    def stopping(self) -> bool:
        """Nothing is decided any more."""
        return self._stopped

    def facts(self) -> dict[str, Any]:
        """What `locum status` says about the node itself."""
        return {
            "node": self.settings.node.name,
            "roles": list(self.slots),
            "pid": os.getpid(),
            "since": self.clock.for_people(self.started_at),
            "interfaces": {
                name: "absent" if (link := self.watch.find(name)) is None else "up" if link.up else "down"
                for name in self.settings.node.interfaces
            },
        }
