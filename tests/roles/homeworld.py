"""A home agent with registrants that sign as the test says, a virtual clock and a model of its data plane."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any

from locum.dataplane.state import ForwardingState
from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.flows import InstallTranslation, RemoveTranslation, Rule, Translation
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    RefuseTunnel,
    RemoveBinding,
    TunnelAcceptance,
)
from locum.roles.action_values.locations import TellLocation
from locum.roles.action_values.paging import ReleasePaged
from locum.roles.home_agent.binding import AuthorisedStandIn, Mobile
from locum.roles.home_agent.configuration import HomeAgentConfiguration
from locum.roles.home_agent.role import HomeAgent
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.rules import LAST_RULE
from locum.security.association import Association, Replay
from locum.security.replay import home_nonce, nonce_identification, ntp64
from locum.wire.mobile_ip.extensions import (
    AuthKind,
    Extension,
    FlowAction,
    FlowBinding,
    Ipv6PrefixRequest,
    Multipath,
)
from locum.wire.mobile_ip.registration import Code, Flag, RegistrationReply, RegistrationRequest
from locum.wire.mobile_ip.vendor import FlowOperation, FlowRule, MnpsRole, encode_vendor
from locum.wire.takes import Takes
from locum.wire.traffic_selector import Ipv4Selector, TrafficSelector
from tests.roles.packets import care_of, ordinary

HOA, HOA6 = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9")
HA = IPv4Address("10.5.0.1")
AN1, AN2, AN3, AN4 = (IPv4Address(f"10.{number}.0.1") for number in range(1, 5))
ONE, TWO = IPv4Address("10.3.0.9"), IPv4Address("10.4.0.9")  # interface addresses of the stand-ins
ONE6 = IPv6Address("2001:db8:3::9")
START = 1_790_000_000.0
DEVICE_KEY = Association(300, b"k" * 16)
ONE_KEY, TWO_KEY = Association(1100, b"1" * 16), Association(1200, b"2" * 16)
STAND_INS = (AuthorisedStandIn("one", ONE_KEY, ONE, ONE6), AuthorisedStandIn("two", TWO_KEY, TWO))
MOBILE = Mobile(HOA, DEVICE_KEY, HOA6, AN3, ONE, stand_ins=STAND_INS)


class Registrant:
    """A registrant: the mobile node, or a stand-in with its interface address."""

    def __init__(
        self, home: "Home", name: str, association: Association, address: IPv4Address | None
    ) -> None:
        self.home, self.name, self.association, self.address = home, name, association, address
        self.nonce = 0
        self._last = 0

    def extensions(self, takes: Takes) -> tuple[Extension, ...]:
        return () if self.address is None else (encode_vendor(MnpsRole(self.address, takes)),)

    def request(
        self,
        care_of: IPv4Address,
        lifetime: int,
        *,
        bid: int | None = None,
        takes: Takes = Takes.ALL,
        flags: Flag = Flag.T,
        rules: Sequence[Extension] = (),
        more: Sequence[Extension] = (),
        ipv6: bool = True,
        multipath: dict[str, Any] | None = None,
        **changes: Any,
    ) -> bytes:
        """The bytes of a signed request."""
        extensions: list[Extension] = [] if bid is None else [Multipath(bid, **(multipath or {}))]
        extensions += [Ipv6PrefixRequest(HOA6)] if ipv6 else []
        extensions += [*self.extensions(takes), *more, *rules]
        self._last = max(self._last + 1, ntp64(self.home.now))
        identification = self._last
        if self.association.replay is Replay.NONCE:
            identification = nonce_identification(self.nonce, self._last & 0xFFFFFFFF)
        whole = RegistrationRequest(lifetime, HOA, HA, care_of, identification, flags, tuple(extensions))
        return signed(replace(whole, **changes).encode(), AuthKind.MN_HA, self.association)

    def register(self, care_of: IPv4Address, lifetime: int = 300, **options: Any) -> int:
        """Register, or cancel with lifetime 0; the code of the answer."""
        return self.home.give(self.request(care_of, lifetime, **options), self)

    def cancel(self, care_of: IPv4Address = HOA, **options: Any) -> int:
        return self.register(care_of, 0, **options)


class Home:
    """The home agent, its rows, and its data plane's state."""

    def __init__(
        self,
        mobile: Mobile = MOBILE,
        configuration: HomeAgentConfiguration | None = None,
        replay: Replay = Replay.TIMESTAMP,
    ) -> None:
        self.now = START
        self.configuration = configuration or HomeAgentConfiguration(HA)
        self.mobile = replace(
            mobile,
            association=replace(mobile.association, replay=replay),
            stand_ins=tuple(
                replace(stand_in, association=replace(stand_in.association, replay=replay))
                for stand_in in mobile.stand_ins
            ),
        )
        self.rows: dict[tuple[str, str], a.Persist] = {}
        self.counts: dict[str, int] = {}
        self.events: list[a.Emit] = []
        self.answers: list[a.Answer] = []
        self.located: list[TellLocation] = []
        # Entries that were in force when packets that had waited for the device went out.
        self.released: list[BindingEntry | None] = []
        self.device = Registrant(self, "mn", self.mobile.association, None)
        keys = {stand_in.name: stand_in.association for stand_in in self.mobile.stand_ins}
        self.one = Registrant(self, "one", keys.get("one", ONE_KEY), ONE)
        self.two = Registrant(self, "two", keys.get("two", TWO_KEY), TWO)
        self.registrants = (self.device, self.one, self.two)
        self.start()

    def start(self) -> None:
        """Start, or start again with the rows that were kept."""
        self.role = HomeAgent(self.configuration, [self.mobile], {}, Random(7))
        self.state = ForwardingState()
        self.perform(self.role.restore(list(self.rows.values()), now=self.now))

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := self.role.deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.perform(self.role.timeout(now=self.now))
        self.now = end

    def give(self, message: bytes, who: Registrant | None = None) -> int:
        """A request arrives; the code of the reply, which is never larger than a refused request."""
        actions = self.role.receive(message, Source(AN1, 434, "core"), now=self.now)
        replies = [action for action in actions if isinstance(action, a.Reply)]
        self.perform([action for action in actions if not isinstance(action, a.Reply)])
        if not replies:
            return -1
        reply = RegistrationReply.decode(replies[0].message)
        assert reply.accepted or len(replies[0].message) <= len(message)
        if who is not None and who.association.replay is Replay.NONCE:
            who.nonce = home_nonce(reply.identification)
        return int(reply.code)

    def perform(self, actions: Sequence[a.Action]) -> None:
        for action in actions:
            self._perform(action)

    def _perform(self, action: a.Action) -> None:
        match action:
            case InstallBinding(entry):
                assert self.state.bindings.get(entry.home_address) != entry, "not a difference"
                sources = {acceptance.outer_source for acceptance in self.acceptances}
                assert sources.issuperset(target.destination for target in entry.tunnels)
                self.state.perform(action)
            case RemoveBinding(address):
                assert address in self.state.bindings
                self.state.perform(action)
            case AcceptTunnel(entry):
                assert entry not in self.acceptances
                self.state.perform(action)
            case RefuseTunnel(entry):
                assert entry in self.acceptances
                self.state.perform(action)
            case InstallTranslation(translation):
                assert translation not in self.translations
                self.state.perform(action)
            case RemoveTranslation(address, tunnel):
                assert (address, tunnel) in self.state.translations
                self.state.perform(action)
            case a.Persist():
                self.rows[action.table, action.key] = action
            case a.Forget():
                self.rows.pop((action.table, action.key), None)
            case a.Count():
                self.counts[action.reason] = self.counts.get(action.reason, 0) + 1
            case a.Emit():
                self.events.append(action)
            case LocalEndpoint():
                self.state.perform(action)
            case a.Answer():
                self.answers.append(action)
            case TellLocation():
                self.located.append(action)
            case ReleasePaged(address):
                self.released.append(self.bindings.get(address))
            case _:
                raise AssertionError(f"a home agent does not {action}")

    def tables(self) -> tuple[object, ...]:
        """Everything that a refused request must leave as it was."""
        return dict(self.rows), *self.forwarding()

    def forwarding(self) -> tuple[object, ...]:
        return dict(self.bindings), self.acceptances, self.translations

    @property
    def bindings(self) -> Mapping[Addr, BindingEntry]:
        return self.state.bindings

    @property
    def acceptances(self) -> set[TunnelAcceptance]:
        return set(self.state.acceptances.values())

    @property
    def translations(self) -> set[Translation]:
        return set(self.state.translations.values())

    def care_of(self, address: Addr = HOA) -> list[Addr]:
        """Destinations of packets that match no rule."""
        return care_of(self.state, ordinary(address))

    def entry(self, address: Addr = HOA) -> BindingEntry:
        return self.bindings[address]

    def flow_rules(self, address: Addr = HOA) -> tuple[Rule, ...]:
        """The rules that the kernel has, without the home agent's own for packets of further stand-ins."""
        found = self.bindings.get(address)
        return () if found is None else tuple(rule for rule in found.rules if rule.identifier <= LAST_RULE)

    def rules(self, address: Addr = HOA) -> dict[int, list[Addr]]:
        """Identifier -> where its packets go."""
        return {
            flow_rule.identifier: [one.tunnel.destination for one in flow_rule.candidates]
            for flow_rule in self.flow_rules(address)
        }

    def sources(self, address: Addr = HOA) -> set[Addr]:
        return {
            acceptance.outer_source for acceptance in self.acceptances if acceptance.home_address == address
        }


def rule(
    identifier: int,
    priority: int,
    *bids: int,
    selector: TrafficSelector | None = None,
    operation: FlowOperation = FlowOperation.ADD,
    share: bool = False,
) -> tuple[Extension, ...]:
    """A named flow binding; without binding identifiers it drops. The selector is for TCP port 80 of the peer."""
    what = Ipv4Selector(protocol=(6, 6), source_port=(80, 80)) if selector is None else selector
    action = FlowAction.FORWARD if bids else FlowAction.DROP
    return (
        encode_vendor(FlowRule(operation, identifier, priority, share)),
        FlowBinding(action, bids, what),
    )


def removal(identifier: int) -> tuple[Extension, ...]:
    return (encode_vendor(FlowRule(FlowOperation.REMOVE, identifier)),)


ACCEPTED = int(Code.ACCEPTED)
