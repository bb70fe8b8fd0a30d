"""A network of roles in one process on a virtual clock: lossy links, a model of CoAP, of sessions and of forwarding.

Timelines read `world.sleep(); world.advance(5); assert …`. The peer's stream is a count of bytes: the owner of the flow
receives them, and every byte must end in the device's program exactly once.
"""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from heapq import heappop, heappush
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from random import Random

from locum.dataplane.layout.maps import Outcome
from locum.dataplane.state import ForwardingState, acceptance_key
from locum.node.tables import StoredRow
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.apps import AppOrder, AppsPaused, EndApps, PauseApps, StartApps
from locum.roles.action_values.direct_pages import DecidePage, DirectedDevice
from locum.roles.action_values.flows import UnwatchPort
from locum.roles.action_values.forwarding import (
    FORWARDING,
    BindingEntry,
    FlowVerdict,
    InstallBinding,
    LeaveAgent,
    NeighbourEntry,
    OutboundEntry,
    RefuseTunnel,
    ReleaseHeld,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveNeighbour,
    RemoveOutbound,
    Side,
    TunnelAcceptance,
    UseAgent,
)
from locum.roles.action_values.listeners import (
    ClosePorts,
    ConnectionAccepted,
    OpenPorts,
    ReplayAccepted,
    Replayed,
)
from locum.roles.action_values.locations import LocationTold, TellLocation
from locum.roles.action_values.paging import DropPaged, PageForwarding, ReleasePaged
from locum.roles.action_values.sessions import (
    AbandonSessions,
    AnswerPeers,
    Capture,
    Captured,
    Drained,
    DrainRound,
    DropSessions,
    FetchData,
    Fetched,
    FindSessions,
    Finished,
    FinishSessions,
    FoundSession,
    Freeze,
    FreezeFailed,
    HasRoom,
    HeldSession,
    InjectData,
    Injected,
    LeftSession,
    Loosen,
    Measured,
    MeasureSessions,
    NotPerformed,
    Process,
    ReleaseCaptured,
    Restored,
    RestoreSessions,
    ResumeSessions,
    SessionFailure,
    SessionFinal,
    SessionRecordItem,
    SessionsFound,
    SessionUse,
    StopAnswering,
    Stopped,
    StopSessions,
    Surveyed,
    SurveySessions,
    Thaw,
    Tighten,
    Tightened,
    WatchReading,
)
from locum.roles.flow_rows import TABLE
from locum.roles.foreign_agent.configuration import (
    AccessLink,
    ForeignAgentConfiguration,
    ReportingConfiguration,
    StaticVisitor,
)
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.location.configuration import LocationConfiguration
from locum.roles.location.role import LocationServer
from locum.roles.mnps.configuration import StandInConfiguration, StandInRegistrationConfiguration, StoodInFor
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.handover import Handover, OwnStandIn, Stage
from locum.roles.mobile_node.paging.configuration import PagingConfiguration
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.mobile_node.selection import EVERYTHING, Selection
from locum.roles.mobile_node.states import Down, Up
from locum.roles.registrant.configuration import (
    ALWAYS_LISTENS,
    ListeningPort,
    MobileNodeConfiguration,
    OwnWayConfiguration,
)
from locum.roles.registrant.registrant import RegistrationClient
from locum.roles.registrant.routing import NO_ROUTING, Routing
from locum.security.association import Algorithm, Association, Replay
from locum.security.sealing import sealing_keys
from locum.wire.control import MAX_SESSIONS, Flow, Handshake, Listener, Policy
from tests.roles.packets import decision, ordinary, packet_of, tunnel_of

HOA = IPv4Address("10.50.0.9")
HOA6 = IPv6Address("2001:db8:50::9")
HA = IPv4Address("10.5.0.1")
AN1, AN2, AN3 = IPv4Address("10.1.0.1"), IPv4Address("10.2.0.1"), IPv4Address("10.3.0.1")
STAND_IN = IPv4Address("10.3.0.9")
PEER = IPv4Address("10.9.0.1")
COLOCATED = IPv4Address("10.1.0.77")
MAC = bytes.fromhex("020000000009")
START = 1_790_000_000.0
HANDSHAKE = Handshake(1, 2, 1460, True, 64240)
PIDS = {0: (100,), 1: (101,), 2: (100, 102)}
TO_DEVICE = Flow(17, HOA, 5683, STAND_IN, 5683)


def flow(number: int, *, protocol: int = 6, local: IPv4Address = HOA) -> Flow:
    """The device's n-th connection."""
    return Flow(protocol, local, 40000 + number, PEER, 80)


def processes(pids: tuple[int, ...]) -> tuple[Process, ...]:
    """Each began when its number says."""
    return tuple(Process(pid, 10 * pid) for pid in pids)


def care_of_addresses(row: a.Persist) -> set[str]:
    """The device's care-of addresses in a home agent's row."""
    entries = row.value["care_of"]
    assert isinstance(entries, Sequence)
    addresses = set()
    for entry in entries:
        assert isinstance(entry, Mapping)
        addresses.add(str(entry["address"]))
    return addresses


@dataclass
class Session:
    """One connection as the peer, the device's kernel and the stand-in's kernel see it."""

    flow: Flow
    pids: tuple[int, ...]
    sent: int = 0  # bytes that the peer has sent and that are acknowledged
    at_device: int = 0  # bytes in the device's kernel
    at_stand_in: int = 0  # bytes since the capture in the stand-in's
    captured_at: int | None = None
    held_by_stand_in: bool = False  # restored there
    stopped: bool = False
    handover: bytes = b""  # under which the stand-in has it
    lost: bool = False
    room: int = 1 << 40  # bytes the device's receive buffer takes before a drain
    memory: int = 1 << 40  # bytes that its kernel takes beyond the buffer, when it is told to
    buffered: int = 0
    reads: bool = True
    heard: float = 0.0  # when the stand-in got the last byte
    base: int = 0  # at_device when it was captured
    tight: bool = False  # its socket is in repair mode
    closed: bool = False  # its program has ended
    accepted: bool = False  # by the stand-in, for a port that the device listens on
    reset: bool = False  # the stand-in has told the peer that the connection has ended

    def read(self) -> None:
        """Its program has had the time to."""
        self.buffered = 0 if self.reads else self.buffered


@dataclass
class Host:
    """A role, its rows and its data plane's state."""

    name: str
    make: Callable[[], a.Role]
    role: a.Role = field(init=False)
    rows: dict[tuple[str, str], a.Persist] = field(default_factory=dict)
    forwarding: ForwardingState = field(default_factory=ForwardingState)
    neighbours: dict[tuple[str, Addr], NeighbourEntry] = field(default_factory=dict)
    via: UseAgent | None = None
    events: list[a.Emit] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sent: list[bytes] = field(default_factory=list)
    alive: bool = True
    wall_ahead: float = 0.0  # seconds that its wall clock is ahead of its steady one

    def tables(self) -> tuple[object, ...]:
        """Everything that must be the same after a restart, and must not move for a forged message."""
        return (
            dict(self.rows),
            deepcopy(self.forwarding),
            dict(self.neighbours),
        )

    def clear_tables(self) -> None:
        self.forwarding = ForwardingState()
        self.neighbours.clear()

    @property
    def bindings(self) -> dict[Addr, BindingEntry]:
        """Entries of all stages; a role has one of them for a home address."""
        return {**self.forwarding.bindings, **self.forwarding.visited, **self.forwarding.local_ends}

    @property
    def acceptances(self) -> dict[tuple[Addr, Addr, Side], TunnelAcceptance]:
        listed = self.forwarding.acceptances.values()
        return {
            (acceptance.outer_source, acceptance.home_address, acceptance.side): acceptance
            for acceptance in listed
        }

    @property
    def outbound(self) -> dict[tuple[Addr, str | None], OutboundEntry]:
        return {
            (outbound_entry.home_address, outbound_entry.link): outbound_entry
            for outbound_entry in self.forwarding.outbound_entries()
        }

    @property
    def endpoints(self) -> set[Addr]:
        return self.forwarding.endpoints

    @property
    def flows(self) -> dict[Flow, FlowVerdict]:
        return self.forwarding.flows

    @property
    def watched(self) -> set[tuple[Addr, int]]:
        return self.forwarding.watched

    def forward(self, action: a.Action) -> None:
        """Change the forwarding. Every binding changes something, and only existing entries are removed."""
        match action:
            case InstallBinding(entry):
                assert self.forwarding.stage(entry.stage).get(entry.home_address) != entry, "not a difference"
            case RemoveBinding(address):
                assert address in self.forwarding.stage(action.stage), f"{action} removes nothing"
            case RefuseTunnel(entry):
                assert acceptance_key(entry) in self.forwarding.acceptances, f"{action} removes nothing"
            case RemoveOutbound(address, link):
                assert (address, link) in self.outbound, f"{action} removes nothing"
            case RemoveLocalEndpoint(address):
                assert address in self.endpoints, f"{action} removes nothing"
            case UnwatchPort(address, port):
                assert (address, port) in self.watched, f"{action} removes nothing"
        self.forwarding.perform(action)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class World:
    """Fig. 5 with one device. `loss` is a probability per datagram, `delay` seconds one way."""

    def __init__(
        self,
        seed: int = 0,
        *,
        loss: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 0.01,
        sessions: int = 2,
        replay: Replay = Replay.TIMESTAMP,
        algorithm: Algorithm = Algorithm.HMAC_SHA_256,
        colocated: bool = False,
        default: bool = True,
        challenge: bool = False,
        agents_keyed: bool = False,
        skew: float = 0.0,
        lifetime: int = 300,
        fa_lifetime: int = 1800,
        registers: bool = False,
        routing: Routing = NO_ROUTING,
        listening: tuple[ListeningPort, ...] = (),
        unread_beyond: int = 16 << 20,
        own_way: OwnWayConfiguration = ALWAYS_LISTENS,
        located: Collection[str] = (),
        forwarding: PageForwarding = PageForwarding.REGISTRATION,
        direct_forwarding: PageForwarding = PageForwarding.REGISTRATION,
    ) -> None:
        """`located`: which of "ha", "an" and "mn" report to a location server, on the home agent's host; "asked": the
        home agent asks it. `forwarding`: when packets that page the device begin to go to its access node;
        `direct_forwarding`: those after a direct page.

        `registers`: the stand-in registers itself (R4), and there is no default care-of address. `routing` is the
        device's own; a changed one applies from its next start on.
        """
        self.routing = routing
        self.boot, self.stranded = "first", 5.0
        self.unread_beyond, self.unread_beyond_total = unread_beyond, 4 * unread_beyond
        self.watch: Callable[[a.Action], object] = lambda action: None  # the device's actions
        self.refuse_inject: set[Flow] = set()
        self.listening = listening
        self.apps: tuple[AppOrder, ...] = ()  # of the device, from its next start on
        self.paging = PagingConfiguration()  # the same
        self.directed = DirectedDevice({STAND_IN: sealing_keys(b"d" * 16, b"", b"\x04", b"\x36")})  # the same
        self.asked_to_decide: list[DecidePage] = []  # the device's program
        self.spoken: dict[int, bytes] = {}  # by proxies, in the session of this number
        self.surplus: dict[int, int] = {}
        self.agreed: list[Tighten] = []
        self.ports: dict[bytes, tuple[Listener, ...]] = {}  # open at the stand-in, by handover
        self.nobody_listens = False
        self.paged: list[a.Action] = []  # releases and drops of packets that waited for the device
        self.calls: list[a.SendRegistration] = []  # of access nodes, to the sleeping device
        self.now = START
        self.random = Random(seed)
        self.loss, self.duplicate, self.delay, self.skew = loss, duplicate, delay, skew
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._exchange = count(1)
        self._exchanges: dict[int, tuple[Host, int]] = {}
        self.sessions = {flow(n): Session(flow(n), PIDS.get(n, (200 + n,))) for n in range(sessions)}
        self.frozen: set[int] = set()
        self.numbers: dict[
            bytes, dict[int, Flow]
        ] = {}  # by handover: the flow of each session at the stand-in
        self.radio = {"radio0": True, "radio1": True}
        self.stand_in_silent = False
        self.drop_634: Callable[[bytes], bool] = lambda body: False
        self.drop_632: Callable[[bytes], bool] = lambda body: False
        self.authorised: tuple[Addr, ...] = (HOA, HOA6)
        self.trusted = True  # the stand-in may trigger
        self.after_freeze: Callable[[], None] = lambda: None
        self.left: tuple[LeftSession, ...] = ()  # found, and unfit to be handed over
        self.unfreezable: set[int] = set()
        self.answering: set[Flow] = set()  # whose peers the device answers in the stand-in's place
        self.fail: type | None = None  # actions of the device that cannot be performed
        self.refuse_restore: set[Flow] = set()
        self.refuse_capture: set[Flow] = set()
        key = Association(300, b"k" * 16, algorithm, replay)
        agent_key = Association(400, b"a" * 16, algorithm)
        mn_fa = Association(500, b"f" * 16, algorithm)
        mobile = Mobile(HOA, key, HOA6, AN3 if default else None, STAND_IN)
        own = Association(301, b"s" * 16, algorithm, replay)
        registration = None
        if registers:
            mobile = Mobile(HOA, key, HOA6, stand_ins=(AuthorisedStandIn("one", own, STAND_IN),))
            devices = (StoodInFor(HOA, HA, own, 1, HOA6),)
            registration = StandInRegistrationConfiguration(STAND_IN, ("eth0",), devices)
        keyed: dict[Addr, Association] = {AN1: agent_key, AN2: agent_key} if agents_keyed else {}
        ha_keyed: dict[Addr, Association] = {HA: agent_key} if agents_keyed else {}
        visitors: dict[Addr, Association] = {HOA: mn_fa} if agents_keyed else {}

        def agent(address: IPv4Address, link: str) -> Callable[[], ForeignAgent]:
            configuration = ForeignAgentConfiguration(
                address,
                (AccessLink(link, address),),
                challenge=challenge,
                registration_lifetime=fa_lifetime,
                notified=frozenset((HOA, STAND_IN)),
                reporting=ReportingConfiguration(HA if "an" in located else None),
            )
            static = (StaticVisitor(HOA, HA, link, STAND_IN, HOA6),) if address == AN3 else ()
            homes = ha_keyed if address != AN3 else {}
            return lambda: ForeignAgent(configuration, homes, visitors, static, self.random)

        def device() -> MobileNodeConfiguration:
            return MobileNodeConfiguration(
                HOA,
                HA,
                ("radio0", "radio1"),
                key,
                HOA6,
                colocated=colocated,
                lifetime=lifetime,
                routing=self.routing,
                boot=self.boot,
                stranded=self.stranded,
                own_way=own_way,
                unread_beyond=self.unread_beyond,
                unread_beyond_total=self.unread_beyond_total,
                listening=self.listening,
                apps=self.apps,
                directed=self.directed,
                location_server=HA if "mn" in located else None,
            )

        stand_in = StandInConfiguration(
            STAND_IN,
            AN3,
            (IPv4Network("10.50.0.0/16"), IPv6Network("2001:db8:50::/48")),
            registration=registration,
            home_agent=HA,
            location_server=HA if located else None,
            page_forwarding=direct_forwarding,
            sealing=dict.fromkeys((HOA, HOA6), sealing_keys(b"d" * 16, b"", b"\x36", b"\x04")),
        )
        agents: dict[Addr, Association] = {AN1: mn_fa, AN2: mn_fa} if agents_keyed else {}
        home = HomeAgentConfiguration(
            HA,
            located="ha" in located,
            page_forwarding=forwarding,
            location_server=HA if "asked" in located else None,
        )
        self.ha = Host("ha", lambda: HomeAgent(home, [mobile], keyed, self.random))
        nodes = LocationConfiguration(frozenset((AN1, AN2)), frozenset((STAND_IN, HA)))
        self.location = Host("location", lambda: LocationServer(nodes))
        self.an1 = Host("an1", agent(AN1, "radio0"))
        self.an2 = Host("an2", agent(AN2, "radio1"))
        self.an3 = Host("an3", agent(AN3, "eth0"))
        self.mn = Host(
            "mn",
            lambda: SleepingNode(
                RegistrationClient(device(), agents, self.random),
                (OwnStandIn("mnps", STAND_IN, registers),),
                self.random,
                self.paging,
            ),
        )
        self.mnps = Host("mnps", lambda: StandIn(stand_in, self.random, lambda _, __: None))
        self.hosts = [self.ha, self.an1, self.an2, self.an3, self.mnps, self.mn]
        if located:
            self.hosts.insert(0, self.location)
        for host in self.hosts:
            self.start(host)

    # Time ----------------------------------------------------------------------------------------------------------

    def start(self, host: Host) -> None:
        """Start, or restart with its rows; `restore` gives the data plane's state."""
        host.role = host.make()
        host.alive = True
        host.clear_tables()
        if host is self.mn:
            host.via = None
            self.answering.clear()
            self._adopt()
        rows = [StoredRow(row.table, row.key, json.dumps(row.value)) for row in host.rows.values()]
        self.perform(host, host.role.restore(rows, now=self.clock(host)))
        self.tell(host, a.WallClockStepped(host.wall_ahead))
        if host is self.mn:
            for link, up in self.radio.items():
                addresses = (COLOCATED,) if link == "radio0" else ()
                event = a.LinkUp(link, addresses) if up else a.LinkDown(link)
                self.perform(host, host.role.happened(event, now=self.clock(host)))

    def _adopt(self) -> None:
        """Work of a device's node before its role restores: sockets are at their real place."""
        claimed: dict[Flow, bool] = {}  # whether the programs run
        over = (Stage.RETURNED, Stage.ABANDONED)
        for (table, key), row in self.mn.rows.items():
            if table != TABLE or (handover := Handover.from_row(key, row.value)).stage in over:
                continue
            if handover.boot == self.boot:
                claimed |= dict.fromkeys(handover.flows, handover.loose)
        for session in self.sessions.values():
            if session.flow not in claimed and not (session.accepted and session.held_by_stand_in):
                session.captured_at = None
            session.tight &= session.flow in claimed and not claimed[session.flow]
        self.frozen &= {
            pid
            for session in self.sessions.values()
            if session.flow in claimed and not claimed[session.flow]
            for pid in session.pids
        }

    def clock(self, host: Host) -> float:
        return self.now + (self.skew if host is self.mn else 0.0)

    def at(self, seconds: float, what: Callable[[], None]) -> None:
        heappush(self._queue, (self.now + seconds, next(self._order), what))

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        for _ in range(200_000):
            times: list[tuple[float, Host | None]] = [(self._queue[0][0], None)] if self._queue else []
            for host in self.hosts:
                deadline = host.role.deadline() if host.alive else None
                if deadline is not None:
                    times.append((deadline - self.clock(host) + self.now, host))
            earliest = min(times, key=lambda entry: entry[0], default=(end, None))
            if earliest[0] > end:
                self.now = end
                return
            self.now = max(self.now, earliest[0])
            if earliest[1] is None:
                heappop(self._queue)[2]()
            else:
                host = earliest[1]
                self.perform(host, host.role.timeout(now=self.clock(host)))
            self.check()
        raise AssertionError("the world does not come to rest")

    # Commands --------------------------------------------------------------------------------------------------------

    @property
    def device(self) -> SleepingNode:
        assert isinstance(self.mn.role, SleepingNode)
        return self.mn.role

    def sleep(self, **options: object) -> None:
        self.perform(self.mn, self.device.sleep(now=self.clock(self.mn), **options))  # type: ignore[arg-type]

    def hand_over(self, selection: Selection = EVERYTHING) -> None:
        self.perform(self.mn, self.device.give(selection, now=self.clock(self.mn)))

    def take_back(self, selection: Selection = EVERYTHING) -> None:
        self.perform(self.mn, self.device.take(selection, now=self.clock(self.mn)))

    def wake(self) -> None:
        self.perform(self.mn, self.device.wake(now=self.clock(self.mn)))

    def cut(self, link: str) -> None:
        self.radio[link] = False
        self.tell(self.mn, a.LinkDown(link))

    def mend(self, link: str) -> None:
        self.radio[link] = True
        self.tell(self.mn, a.LinkUp(link, (COLOCATED,) if link == "radio0" else ()))

    def tell(self, host: Host, event: a.Event) -> None:
        if host.alive:
            self.perform(host, host.role.happened(event, now=self.clock(host)))

    def abandon(self) -> None:
        self.perform(self.mn, self.device.abandon(now=self.clock(self.mn)))

    def boot_again(self) -> None:
        """The device loses power: its programs and sockets are gone, its rows are there."""
        self.boot += "-again"
        self.frozen.clear()
        for session in self.sessions.values():
            session.lost, session.captured_at, session.tight = True, None, False
        self.start(self.mn)

    def kill(self, host: Host) -> None:
        host.alive = False

    def step_wall_clock(self, host: Host, seconds: float) -> None:
        """Step the host's wall clock ahead, or back."""
        host.wall_ahead += seconds
        self.tell(host, a.WallClockStepped(host.wall_ahead))

    def suspend(self, host: Host, seconds: float) -> None:
        """Suspend the host for so long: it neither acts nor receives."""
        host.alive = False
        self.advance(seconds)
        host.alive = True

    def give(self, host: Host, message: bytes, source: Source) -> None:
        """A datagram arrives."""
        if host.alive:
            host.sent.append(message)
            self.perform(host, host.role.receive(message, source, now=self.clock(host)))

    def peer_sends(self, number: int, size: int) -> None:
        """The peer's bytes reach the owner of the flow; without one, the peer sends them again later."""
        session = self.sessions[flow(number)]
        here = self.path_of_data(number)
        if session.held_by_stand_in and not session.stopped and here == "mnps":
            if self._takes(self.mnps, session.flow):
                session.at_stand_in += size
                session.heard = self.now
                session.sent += size
        elif here == "mn" and self._takes(self.mn, session.flow) and not session.held_by_stand_in:
            session.at_device += size
            session.sent += size

    def _takes(self, host: Host, which: Flow) -> bool:
        """True if packets of this flow get to the sockets of the host."""
        return decision(host.forwarding, packet_of(which, link="eth0")).outcome is Outcome.PASSED

    def peer_connects(self, port: int, size: int = 0) -> Session | None:
        """A new connection of the peer, with its first bytes; None if no socket accepts it now."""
        for handover, listeners in self.ports.items():
            accepting = [listener.port for listener in listeners if listener.policy is Policy.ACCEPT]
            if port not in accepting or self.path_of_data() != "mnps" or (HOA, port) not in self.mnps.watched:
                continue
            number = MAX_SESSIONS - 1 - sum(session.accepted for session in self._under(handover))
            made = Session(Flow(6, HOA, port, PEER, 50_000 + number), (300,), size, at_stand_in=size)
            made.accepted = made.held_by_stand_in = True
            made.handover, made.captured_at = handover, 0
            self.sessions[made.flow] = made
            self.numbers.setdefault(handover, {})[number] = made.flow
            self.tell(self.mnps, ConnectionAccepted(handover, number, made.flow, HANDSHAKE))
            return made
        return None

    def path_of_data(self, number: int | None = None) -> str | None:
        """Destination of the peer's packets by the home agent's data plane, of that connection or of none."""
        packet = ordinary(HOA) if number is None else packet_of(flow(number))
        ends: dict[Addr, str] = {AN3: "mnps", AN1: "mn", AN2: "mn", COLOCATED: "mn"}
        tunnel = tunnel_of(self.ha.forwarding, packet)
        return None if tunnel is None else ends.get(tunnel.destination)

    def check(self) -> None:
        """Invariants of every moment."""
        for session in self.sessions.values():
            running = session.captured_at is None and not session.lost
            living = session.held_by_stand_in and not session.stopped
            delivered = self.mnps.flows.get(session.flow) is FlowVerdict.DELIVER
            assert not (running and living and delivered), f"two owners of {session.flow}"
            if not session.lost and session.captured_at is None:
                assert session.at_device == session.sent, "a byte is missing or came twice"
        registered = self.ha.rows.get(("binding", str(HOA)))
        if registered is not None and self.ha.alive:
            listed = care_of_addresses(registered)
            for (table, _), row in self.ha.rows.items():
                listed |= care_of_addresses(row) if table == "stand_in" else set()
            default = {str(AN3)} if self.ha.bindings.get(HOA) and self.has_default() else set()
            accepted = {str(outer) for outer, home, _ in self.ha.acceptances if home == HOA}
            redirected = self.redirected()
            assert accepted == listed | default | redirected, "acceptances are not the care-of addresses"

    def redirected(self) -> set[str]:
        """The access node to which packets that page the device go before it has registered."""
        assert isinstance(self.ha.role, HomeAgent)
        change = self.ha.role.paging.redirections.of(HOA)
        return {str(change.care_of)} if change is not None and change.in_force else set()

    def has_default(self) -> bool:
        assert isinstance(self.ha.role, HomeAgent)
        return any(entry.default_care_of for entry in self.ha.role.visitor_list(now=self.now))

    @property
    def default(self) -> Addr | None:
        """The default care-of address that the home agent would use."""
        assert isinstance(self.ha.role, HomeAgent)
        return self.ha.role.visitor_list(now=self.now)[0].default_care_of

    # Performing --------------------------------------------------------------------------------------------------------

    def perform(self, host: Host, actions: list[a.Action]) -> None:
        for action in actions:
            assert host.alive or host is self.mn
            self._perform(host, action)

    def _perform(self, host: Host, action: a.Action) -> None:
        if host is self.mn:
            self.watch(action)
        if host is self.mn and self.fail is not None and isinstance(action, self.fail):
            self.at(0.0, lambda: self.tell(host, NotPerformed(action, "it does not work")))
            return
        match action:
            case NeighbourEntry():
                host.neighbours[action.link, action.address] = action
            case RemoveNeighbour():
                del host.neighbours[action.link, action.address]
            case UseAgent():
                host.via = action
            case LeaveAgent():
                host.via = None
            case a.Persist():
                host.rows[action.table, action.key] = action
            case a.Forget():
                host.rows.pop((action.table, action.key), None)
            case a.Emit():
                host.events.append(action)
            case a.Count():
                host.counts[action.reason] = host.counts.get(action.reason, 0) + 1
            case a.SendRegistration() | a.Reply() | a.Advertise() | a.Solicit():
                self._transmit(host, action)
            case a.Ask():
                self._ask(host, action)
            case a.Answer():
                self._answer(action)
            case TellLocation(location):
                self.at(0.0, lambda: self.tell(self.location, LocationTold(location)))
            case ReleaseHeld():
                pass
            case DecidePage():
                self.asked_to_decide.append(action)
            case ReleasePaged() | DropPaged():
                self.paged.append(action)
            case _ if type(action) in FORWARDING:
                host.forward(action)
            case _:
                self._session(host, action)

    # Datagrams -----------------------------------------------------------------------------------------------------------

    def _transmit(self, host: Host, action: a.Action) -> None:
        match action:
            case a.SendRegistration() if host is self.mn:
                link = action.link or "radio0"
                source = Source(action.source or HOA, 434, link, MAC, action.to)
                if action.to == HA:
                    self._fly(self.ha, action.message, Source(action.source or HOA, 434, "core"), link)
                    return
                self._fly(self._agent(link), action.message, source, link)
            case a.SendRegistration() if host is self.mnps:
                source = Source(STAND_IN, 434, "eth0", MAC, action.to)
                self._fly(self.an3, action.message, source, None)
            case a.SendRegistration() if host is self.ha:
                self._from_home(action.to, action.message)
            case a.SendRegistration() if action.to == HOA:
                self.calls.append(action)
                if action.link is not None and action.link in self.radio:
                    address = AN1 if host is self.an1 else AN2
                    source = Source(address, 434, action.link, b"\x02" * 6, HOA)
                    self._fly(self.mn, action.message, source, action.link)
            case a.SendRegistration():
                address = {"an1": AN1, "an2": AN2, "an3": AN3}[host.name]
                self._fly(self.ha, action.message, Source(address, 434, "core"), None)
            case a.Reply() if host is self.ha:
                self._from_home(action.to.address, action.message)
            case a.Reply() if action.to.address == HA:
                address = {"an1": AN1, "an2": AN2, "an3": AN3}.get(host.name, COLOCATED)
                self._fly(self.ha, action.message, Source(address, 434, "core"), None)
            case a.Reply() | a.Advertise():
                link = action.to.link if isinstance(action, a.Reply) else action.link
                if link == "eth0":
                    self._fly(self.mnps, action.message, Source(AN3, 434, link, b"\x03" * 6), None)
                if link not in self.radio:
                    return
                address = AN1 if host is self.an1 else AN2
                port = 434 if isinstance(action, a.Reply) else 0
                self._fly(self.mn, action.message, Source(address, port, link, b"\x02" * 6), link)
            case a.Solicit() if host is self.mnps:
                self._fly(self.an3, action.message, Source(STAND_IN, 0, "eth0", MAC), None)
            case a.Solicit():
                source = Source(HOA, 0, action.link, MAC)
                self._fly(self._agent(action.link), action.message, source, action.link)

    def _from_home(self, to: Addr, message: bytes) -> None:
        hosts: dict[Addr, Host] = {AN1: self.an1, AN2: self.an2, AN3: self.an3, COLOCATED: self.mn}
        target = hosts.get(to)
        if target is self.mn:
            self._fly(self.mn, message, Source(HA, 434, "radio0"), "radio0")
        elif target is not None:
            self._fly(target, message, Source(HA, 434, "core"), None)

    def _agent(self, link: str) -> Host:
        return self.an1 if link == "radio0" else self.an2

    def _fly(self, target: Host, message: bytes, source: Source, link: str | None) -> None:
        """Loss and duplication; FIFO, for delay is the same for all."""
        copies = 0 if self.random.random() < self.loss else 1
        copies += 1 if copies and self.random.random() < self.duplicate else 0

        def arrive() -> None:
            if link is None or self.radio[link]:
                self.give(target, message, source)

        for _ in range(copies):
            if link is None or self.radio[link]:
                self.at(self.delay, arrive)

    # CoAP ------------------------------------------------------------------------------------------------------------------

    def device_reachable(self) -> bool:
        """True if packets from the stand-in to the home address reach the device (peer rule)."""
        if self.mn.via is None or not self.radio[self.mn.via.link]:
            return False
        tunnel = tunnel_of(self.ha.forwarding, packet_of(TO_DEVICE))
        return tunnel is not None and tunnel.destination == self.mn.via.care_of

    def _ask(self, host: Host, action: a.Ask) -> None:
        agents: dict[Addr, Host] = {AN1: self.an1, AN2: self.an2, AN3: self.an3}
        servers: dict[Addr, Host] = {STAND_IN: self.mnps, HOA: self.mn, HA: self.ha, **agents}
        if action.path in ("1135", "1212"):  # the location server is on the home agent's host
            servers[HA] = self.location
        target = servers[action.peer]
        ended: list[bool] = []

        def fail() -> None:
            if not ended:
                ended.append(True)
                self.tell(host, a.NoAnswer(action.request, "timeout"))

        def deliver(attempt: int) -> None:
            if ended:
                return
            dropped = action.path == "634" and self.drop_634(action.body)
            silent = target is self.mnps and (self.stand_in_silent or dropped)
            path = self.device_reachable() if self.mn in (host, target) else True
            if target.alive and path and not silent:
                number = next(self._exchange)
                self._exchanges[number] = (host, action.request)
                peers: dict[str, Addr] = {"mn": HOA, "an2": AN2, "mnps": STAND_IN, "ha": HA}
                peer = peers.get(host.name, AN1)
                told = host in (self.mn, self.mnps) or action.path in ("618", "1170", "1210")
                authorised = self.authorised if told else ()
                trusted = host is self.mnps and self.trusted
                self.tell(target, a.Asked(number, action.path, action.body, peer, authorised, trusted))
            elif attempt < 3:
                self.at(2.0 * 2**attempt, lambda: deliver(attempt + 1))

        self._ends = getattr(self, "_ends", {})
        self._ends[host.name, action.request] = ended
        self.at(self.delay, lambda: deliver(0))
        self.at(action.timeout, fail)

    def _answer(self, action: a.Answer) -> None:
        host, request = self._exchanges[action.exchange]
        if self.drop_632(action.body):
            return
        ended = self._ends[host.name, request]

        def arrive() -> None:
            if ended:
                return
            if host is self.mn and not self.device_reachable():
                return
            ended.append(True)
            self.tell(host, a.Answered(request, action.body))

        self.at(self.delay, arrive)

    # Sessions ----------------------------------------------------------------------------------------------------------------

    def _session(self, host: Host, action: a.Action) -> None:
        event = self._session_event(host, action)
        if event is not None:
            waits = isinstance(event, Drained) and any(unread for _, unread in event.unread)
            self.at(0.5 if waits else 0.001, lambda: self.tell(host, event))

    def _session_event(self, host: Host, action: a.Action) -> a.Event | None:
        match action:
            case FindSessions():
                alive = [session for session in self.sessions.values() if not session.lost]
                found = [(session, tuple(f"program{pid}" for pid in session.pids)) for session in alive]
                return SessionsFound(
                    tuple(
                        FoundSession(session.flow, processes(session.pids), names) for session, names in found
                    ),
                    self.left,
                )
            case Freeze(stopped):
                running = {
                    process: "it waits for a disk" for process in stopped if process.pid in self.unfreezable
                }
                self.frozen |= {process.pid for process in stopped if process not in running}
                self.after_freeze()
                return FreezeFailed(running) if running else None
            case Thaw(thawed):
                self.frozen -= {process.pid for process in thawed}
            case Capture(flows):
                return self._capture(flows)
            case ReleaseCaptured(flows) | AbandonSessions(flows):
                for of_session in flows:
                    self.sessions[of_session].captured_at = None
                    self.sessions[of_session].tight = False
                    self.sessions[of_session].lost |= isinstance(action, AbandonSessions)
                    self.answering.discard(of_session)
            case StartApps() | EndApps():
                pass
            case PauseApps(handover):
                return AppsPaused(handover, {}, self.spoken, self.surplus)
            case Tighten(flows):
                self.agreed.append(action)
                return self._tighten(flows)
            case AnswerPeers(finals):
                for final in finals:
                    assert self.sessions[final.flow].tight
                    assert self.mn.flows[final.flow] is FlowVerdict.SUSPEND
                self.answering |= {final.flow for final in finals}
            case StopAnswering(flows):
                self.answering -= set(flows)
            case WatchReading(flows):
                self._watch_reading(flows)
            case Loosen(flows, released):
                for of_session in flows:
                    assert self.mn.flows[of_session] is FlowVerdict.SUSPEND
                    self.sessions[of_session].tight = False
                    self.frozen -= set(self.sessions[of_session].pids)
                self.frozen -= {process.pid for process in released}
            case RestoreSessions(handover, items):
                good = [item for item in items if item.flow not in self.refuse_restore]
                for item in good:
                    session = self.sessions[item.flow]
                    assert not session.held_by_stand_in, f"{item.flow} lives there already"
                    session.held_by_stand_in, session.at_stand_in, session.stopped = True, 0, False
                    session.handover, session.heard = handover, self.now
                self.numbers[handover] = {item.session: item.flow for item in good}
                bad = tuple((item.session, "refused") for item in items if item not in good)
                return Restored(handover, tuple(item.session for item in good), bad)
            case DropSessions(handover, numbers, reset):
                dropped = self._under(handover)
                if numbers:
                    dropped = [self.sessions[f] for n, f in self.numbers[handover].items() if n in numbers]
                for session in dropped:
                    session.reset |= reset and session.held_by_stand_in
                    session.held_by_stand_in = session.stopped = False
            case ResumeSessions(handover):
                for session in self._under(handover):
                    session.stopped = False
            case SurveySessions():
                here = [session for session in self.sessions.values() if session.held_by_stand_in]
                return Surveyed(tuple(self._use(session) for session in here))
            case MeasureSessions(handover):
                held = [(n, self.sessions[f]) for n, f in self._numbers(handover)]
                totals = tuple(HeldSession(n, session.flow, session.at_stand_in) for n, session in held)
                return Measured(handover, totals)
            case StopSessions(handover, fetched, limit):
                return self._stop(handover, dict(fetched), limit)
            case FetchData(exchange, handover, number, offset, limit):
                session = self.sessions[dict(self._numbers(handover))[number]]
                size = max(0, min(limit, session.at_stand_in - offset))
                return Fetched(exchange, bytes(size), offset + size < session.at_stand_in)
            case OpenPorts(handover, listeners):
                self.ports[handover] = listeners
                for number, which in self.numbers.get(handover, {}).items():
                    if self.sessions[which].accepted and self.sessions[which].held_by_stand_in:
                        self.tell(self.mnps, ConnectionAccepted(handover, number, which, HANDSHAKE))
            case ClosePorts(handover):
                del self.ports[handover]
            case ReplayAccepted(which, handshake, data):
                session = self.sessions[which]
                assert handshake == HANDSHAKE and session.stopped and len(data) == session.at_stand_in
                assert self.mn.flows[which] is FlowVerdict.SUSPEND
                if self.nobody_listens:
                    session.captured_at, session.lost = None, True
                    return Replayed(which, "no program listens")
                session.at_device, session.captured_at = len(data), None
                return Replayed(which)
            case InjectData(pieces, beyond):
                taken = tuple(
                    (f, self._inject(f, data, f in beyond))
                    for f, data in pieces
                    if f not in self.refuse_inject
                )
                refused = [f for f, _ in pieces if f in self.refuse_inject]
                return Injected(taken, tuple(SessionFailure(f, "refused") for f in refused))
            case DrainRound(flows):
                for of_session in flows:
                    self.sessions[of_session].read()
                return Drained(
                    tuple((of_session, self.sessions[of_session].buffered) for of_session in flows)
                )
            case FinishSessions(finals):
                for final in finals:
                    session = self.sessions[final.flow]
                    assert session.at_device == session.base + final.total
                    assert session.stopped and session.tight
                    assert self.mn.flows[final.flow] is FlowVerdict.HOLD
                    session.captured_at, session.tight = None, False
                    self.answering.discard(final.flow)
                return Finished(tuple(final.flow for final in finals))
            case _:
                raise AssertionError(f"nobody performs {action}")
        return None

    def _use(self, session: Session) -> SessionUse:
        number = next(n for n, number in self.numbers[session.handover].items() if number == session.flow)
        return SessionUse(session.handover, number, self.now - session.heard, session.at_stand_in)

    def _under(self, handover: bytes) -> list[Session]:
        return [session for session in self.sessions.values() if session.handover == handover]

    def _watch_reading(self, flows: tuple[Flow, ...]) -> None:
        """Look now and then."""

        def look() -> None:
            ready = [
                of_session
                for of_session in flows
                if self.sessions[of_session].reads or self.sessions[of_session].closed
            ]
            for of_session in ready:
                self.sessions[of_session].read()
            if ready and self.mn.alive:
                self.tell(self.mn, HasRoom(tuple(ready)))
            if rest := tuple(of_session for of_session in flows if of_session not in ready):
                self._watch_reading(rest)

        self.at(0.3, look)

    def _tighten(self, flows: tuple[Flow, ...]) -> Tightened:
        failures = tuple(
            SessionFailure(of_session, "does not stand still")
            for of_session in flows
            if self.unfreezable.intersection(self.sessions[of_session].pids)
        )
        unfrozen = {failure.flow for failure in failures}
        for session in (self.sessions[of_session] for of_session in flows if of_session not in unfrozen):
            session.tight = True
            self.frozen |= set() if session.closed else set(session.pids)
        positions = tuple(
            (of_session, self.sessions[of_session].at_device - self.sessions[of_session].base)
            for of_session in flows
        )
        gone = tuple(of_session for of_session in flows if self.sessions[of_session].closed)
        return Tightened(flows, positions, gone, failures)

    def _inject(self, which: Flow, data: bytes, beyond: bool) -> int:
        session = self.sessions[which]
        assert session.captured_at is not None and session.tight and set(session.pids) <= self.frozen
        room = session.memory if beyond else min(session.room, session.memory)
        taken = max(min(len(data), room - session.buffered), 0)
        session.at_device += taken
        session.buffered += taken
        return taken

    def _capture(self, flows: tuple[Flow, ...]) -> Captured:
        records: list[SessionRecordItem] = []
        failures: list[SessionFailure] = []
        for of_session in flows:
            session = self.sessions[of_session]
            assert set(session.pids) <= self.frozen
            assert self.mn.flows[of_session] is FlowVerdict.SUSPEND
            if of_session in self.refuse_capture:
                failures.append(SessionFailure(of_session, "not supported"))
                continue
            session.captured_at = session.base = session.at_device
            session.tight = True
            records.append(SessionRecordItem(len(records), of_session, {0: of_session.to_cbor(), 1: 1}))
        return Captured(tuple(records), tuple(failures))

    def _numbers(self, handover: bytes) -> list[tuple[int, Flow]]:
        assert isinstance(self.mnps.role, StandIn)
        taken = next(held for held in self.mnps.role.handovers() if held.identifier == handover)
        return [(session.session, session.flow) for session in taken.held]

    def _stop(self, handover: bytes, fetched: dict[int, int], limit: int) -> Stopped:
        finals = []
        for number, which in self._numbers(handover):
            session = self.sessions[which]
            session.stopped = True
            start = fetched.get(number, 0)
            tail = bytes(min(limit, session.at_stand_in - start))
            limit -= len(tail)
            finals.append(
                SessionFinal(number, which, session.at_stand_in, tail_offset=start, tail=tail, timestamp=7)
            )
        return Stopped(handover, tuple(finals))


def awake(world: World) -> bool:
    """True if the device has all its sessions, or those that it did not give away."""
    return isinstance(world.device.state, Up)


def asleep(world: World) -> bool:
    """True if the device has handed over and is down."""
    return isinstance(world.device.state, Down)
