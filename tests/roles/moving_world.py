"""The network of world.py with access nodes that know each other, and numbered packets from the home agent to the device.

Every packet takes the path in the tables of home agent and access nodes; `arrived` has those at the device.
"""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

from locum.dataplane.layout.maps import Outcome
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import CountInFlight, DropHeld, InFlightCounted
from locum.roles.action_values.flows import ForwardGroup, RemoveFilter, Tunnel
from locum.roles.action_values.forwarding import ReleaseHeld, RemoveBinding, Stage, Verdict
from locum.roles.foreign_agent.configuration import AccessLink, ForeignAgentConfiguration, StaticVisitor
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.registrant.configuration import MobileNodeConfiguration
from locum.roles.registrant.registrant import RegistrationClient
from locum.security.association import Association
from tests.roles.packets import decision, ordinary, tunnel_after_release, tunnel_of
from tests.roles.world import AN1, AN2, AN3, HA, HOA, HOA6, STAND_IN, Host, World

ALL: Mapping[Addr, frozenset[Addr]] = {access_node: frozenset() for access_node in (AN1, AN2, AN3)}
WIRE = 0.003  # seconds between two nodes of the core, for packets
PACE = 0.005  # seconds between packets of the correspondent


def at_the_device(association: Association) -> Association:
    """The other end of an association: with two SPIs they are exchanged."""
    if association.sent_spi is None:
        return association
    return replace(association, spi=association.sent_spi, sent_spi=association.spi)


class MovingWorld(World):
    """`transfer`: whether the device announces its context. `agents` adds keys to access nodes."""

    def __init__(
        self,
        *,
        transfer: bool = True,
        agents: Mapping[Addr, Mapping[str, Any]] | None = None,
        mobiles: Mapping[Addr, Mapping[Addr, Association]] | None = None,
        **options: Any,
    ) -> None:
        self.packets: dict[str, dict[Addr, list[int]]] = {}
        self.sent_packets = 0
        self.arrived: list[int] = []
        self.lost: list[tuple[int, str]] = []
        self.groups: dict[str, dict[Addr, tuple[str, ...]]] = {}
        self.mute: set[str] = set()  # hosts that answer no CoAP request
        self._sending = False
        super().__init__(agents_keyed=True, **options)
        self._answers: dict[tuple[str, int], Host] = {}
        for host, address, link in (
            (self.an1, AN1, "radio0"),
            (self.an2, AN2, "radio1"),
            (self.an3, AN3, "eth0"),
        ):
            more = dict((agents or {}).get(address, {}))
            known = dict((mobiles or {}).get(address, {}))
            self._remake(host, address, link, more, known)
        device = MobileNodeConfiguration(
            HOA,
            HA,
            ("radio0", "radio1"),
            self.key(),
            HOA6,
            lifetime=options.get("lifetime", 300),
            context_transfer=transfer,
            boot=self.boot,
        )
        keys = {
            peer: at_the_device(found) for peer, known in (mobiles or {}).items() if (found := known.get(HOA))
        }
        self.mn.make = lambda: SleepingNode(
            RegistrationClient(device, keys, self.random), self.own_stand_ins(), self.random
        )

        for host in (self.an1, self.an2, self.an3, self.mn):
            host.rows.clear()
            self.start(host)

    def key(self) -> Association:
        return Association(300, b"k" * 16)

    def own_stand_ins(self) -> Any:
        assert isinstance(self.mn.role, SleepingNode)
        return self.mn.role.stand_ins

    def _remake(
        self,
        host: Host,
        address: IPv4Address,
        link: str,
        more: dict[str, Any],
        known: dict[Addr, Association],
    ) -> None:
        configuration = replace(
            ForeignAgentConfiguration(
                address,
                (AccessLink(link, address),),
                notified=frozenset((HOA, STAND_IN)),
                access_nodes={
                    access_node: homes for access_node, homes in ALL.items() if access_node != address
                },
                upstream="core",
                revocation=False,
            ),
            **more,
        )
        static = (StaticVisitor(HOA, HA, link, STAND_IN, HOA6),) if address == AN3 else ()
        keyed = address != AN3  # as the home agent of world.py has it
        homes: dict[Addr, Association] = {HA: Association(400, b"a" * 16)} if keyed else {}
        host.make = lambda: ForeignAgent(configuration, homes, known, static, self.random)

    # Packets ---------------------------------------------------------------------------------------------------------

    def stream(self, seconds: float) -> None:
        """The correspondent sends for so long, while time passes."""
        self._sending = True
        self.at(0.0, self._send)
        self.advance(seconds)
        self._sending = False
        self.advance(1.0)

    def _send(self) -> None:
        if not self._sending:
            return
        self.sent_packets += 1
        number = self.sent_packets
        tunnel = tunnel_of(self.ha.forwarding, ordinary(HOA))
        if tunnel is None:
            self.lost.append((number, "no-binding"))
        else:
            self._carry(tunnel, number)
        self.at(PACE, self._send)

    def _carry(self, tunnel: Tunnel, number: int) -> None:
        """Through a tunnel to an access node."""
        hosts = {AN1: self.an1, AN2: self.an2, AN3: self.an3}
        host = hosts[IPv4Address(str(tunnel.destination))]
        self.at(WIRE, lambda: self._leave_tunnel(host, tunnel.source, number))

    def _leave_tunnel(self, host: Host, source: Addr, number: int) -> None:
        found = decision(host.forwarding, ordinary(HOA, outer_source=source))
        match found.outcome:
            case Outcome.DELIVERED:
                assert found.link is not None
                self._by_link(host, found.link, number)
            case Outcome.HELD:
                self.packets.setdefault(host.name, {}).setdefault(HOA, []).append(number)
            case Outcome.ENCAPSULATED:
                assert found.tunnel is not None
                self._carry(found.tunnel, number)
            case Outcome.PASSED:
                self._by_route(host, number)
            case _:
                self.lost.append((number, f"{host.name}: {found.reason.label}"))

    def _by_route(self, host: Host, number: int) -> None:
        link = next((link for link, address in host.neighbours if address == HOA), None)
        if link is None:
            self.lost.append((number, f"{host.name}: no route"))
        else:
            self._by_link(host, link, number)

    def _by_link(self, host: Host, link: str, number: int) -> None:
        if link == "eth0" or self.radio[link]:
            self.arrived.append(number)
        else:
            self.lost.append((number, f"{host.name}: {link} is down"))

    def _release(self, host: Host, action: ReleaseHeld) -> None:
        entry = host.bindings.get(action.home_address)
        holding = entry is not None and entry.verdict is Verdict.HOLD
        if holding and not action.ahead:
            return
        for number in self.packets.get(host.name, {}).pop(action.home_address, []):
            tunnel = tunnel_after_release(host.forwarding, ordinary(HOA))
            if tunnel is None:
                self._by_route(host, number)
            else:
                self._carry(tunnel, number)

    # Actions ---------------------------------------------------------------------------------------------------------

    def _perform(self, host: Host, action: a.Action) -> None:
        match action:
            case ReleaseHeld():
                self._release(host, action)
            case DropHeld(address):
                for number in self.packets.get(host.name, {}).pop(address, []):
                    self.lost.append((number, f"{host.name}: dropped"))
            case CountInFlight():
                self.at(0.0, lambda: self._counted(host, action))
            case ForwardGroup():
                self.groups.setdefault(host.name, {})[action.group] = tuple(action.links)
            case RemoveFilter(address, place):
                assert (address, place) in host.forwarding.filters
                super()._perform(host, action)
            case RemoveBinding(address) if host in (self.an1, self.an2, self.an3):
                assert action.stage is Stage.VISITED
                super()._perform(host, action)
            case _:
                super()._perform(host, action)

    def _counted(self, host: Host, action: CountInFlight) -> None:
        """Count a packet from the tunnel like one sent before the move."""
        moving = self.sent_packets if self._sending and not action.incoming else 0
        event = InFlightCounted(action.home_addresses[0], action.peer, action.incoming, moving)
        self.tell(host, event)

    def links(self, up: str | None) -> None:
        """Set the radio links; each access node sees its own one only."""
        for link, host in (("radio0", self.an1), ("radio1", self.an2)):
            wanted = up in (link, "both")
            if self.radio[link] == wanted:
                continue
            if wanted:
                self.mend(link)
            else:
                self.cut(link)
            self.tell(host, a.LinkUp(link) if wanted else a.LinkDown(link))

    # CoAP between access nodes ---------------------------------------------------------------------------------------

    def _ask(self, host: Host, action: a.Ask) -> None:
        if action.path not in ("622", "624"):
            super()._ask(host, action)
            return
        addresses = {self.an1.name: AN1, self.an2.name: AN2, self.an3.name: AN3}
        target = {AN1: self.an1, AN2: self.an2, AN3: self.an3}[IPv4Address(str(action.peer))]
        ended: list[bool] = []
        self._ends = getattr(self, "_ends", {})
        self._ends[host.name, action.request] = ended

        def fail() -> None:
            if not ended:
                ended.append(True)
                self.tell(host, a.NoAnswer(action.request, "timeout"))

        def deliver() -> None:
            if target.alive and target.name not in self.mute:
                number = next(self._exchange)
                self._exchanges[number] = (host, action.request)
                self.tell(target, a.Asked(number, action.path, action.body, addresses[host.name], ()))

        self.at(self.delay, deliver)
        self.at(action.timeout, fail)

    def move(self, to: str) -> None:
        """`locum move --to`."""
        self.perform(self.mn, self.device.move(to, now=self.clock(self.mn)))

    def agent(self, host: Host) -> ForeignAgent:
        assert isinstance(host.role, ForeignAgent)
        return host.role
