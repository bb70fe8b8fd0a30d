"""Random forwarding of one home address as the roles of a host ask for it: pieces of a state for the model."""

from collections.abc import Callable
from random import Random

from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    FilterPlace,
    InstallFilter,
    InstallTranslation,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    InstallOutbound,
    OutboundEntry,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow
from tests.dataplane.model.grammar import LOCALS, PEERS, PORTS, REMOTES, Grammar
from tests.dataplane.model.translation_grammar import INTERFACES

# Reverse tunnels come from other hosts than tunnels to a home address.
REVERSE, INWARD = REMOTES[0::2], REMOTES[1::2]


class RoleGrammar:
    """Adds to a state the actions of one role, chosen at random."""

    def __init__(self, seed: int) -> None:
        self.grammar, self.random = Grammar(seed), Random(seed)
        self.roles: tuple[Callable[[ForwardingState, Addr], None], ...] = (
            self.nothing,
            self.home_agent,
            self.visited,
            self.left,
            self.device,
            self.stand_in,
            self.closed,
        )

    def add(self, state: ForwardingState, home: Addr) -> None:
        self.random.choice(self.roles)(state, home)

    def nothing(self, state: ForwardingState, home: Addr) -> None:
        """No role has the home address."""

    def home_agent(self, state: ForwardingState, home: Addr) -> None:
        """Bindings to anywhere but this host, with rules and shares; reverse tunnels; translations."""
        g = self.grammar
        found = g.binding(home)
        tunnels = tuple(self.tunnel() for _ in found.tunnels)
        peer_tunnel = None if found.peer_tunnel is None else self.tunnel()
        rules = g.rules.rules(self.tunnel) if found.rules else ()
        entry = BindingEntry(home, found.verdict, tunnels, found.peer, peer_tunnel, rules, found.weights)
        state.perform(InstallBinding(entry))
        for tunnel in tunnels:
            source = self.random.choice(REVERSE)
            state.perform(AcceptTunnel(TunnelAcceptance(source, home, Side.FROM_HOME_ADDRESS)))
            if self.random.random() < 0.3:
                self.translate(state, home, tunnel.destination)

    def visited(self, state: ForwardingState, home: Addr) -> None:
        """An access node delivers to a visitor, whose packets go into a tunnel."""
        hop = self.random.choice((None, *PEERS))
        self.accept(state, home, link="lan0", next_hop=hop)
        state.perform(InstallOutbound(OutboundEntry(home, "lan0", self.tunnel())))
        for place in (FilterPlace.TO_VISITOR, FilterPlace.FROM_VISITOR):
            self.filter(state, home, place)

    def left(self, state: ForwardingState, home: Addr) -> None:
        """An access node whose visitor is elsewhere, or not there yet."""
        verdict = self.random.choice((Verdict.ENCAPSULATE, Verdict.HOLD, Verdict.REPORT, Verdict.DROP))
        tunnels = (self.tunnel(),) if verdict is Verdict.ENCAPSULATE else ()
        state.perform(InstallBinding(BindingEntry(home, verdict, tunnels, at=Stage.VISITED)))
        self.accept(state, home)

    def device(self, state: ForwardingState, home: Addr) -> None:
        """The home address is on this host; some of its flows are captured."""
        self.accept(state, home, end=self.random.choice((None, *LOCALS)))
        state.perform(InstallOutbound(OutboundEntry(home, None, self.tunnel())))
        peers = [peer for peer in PEERS if peer.version == home.version]
        for _ in range(self.random.choice((0, 2, 5))):
            local, remote = self.random.choice(PORTS), self.random.choice(PORTS)
            flow = Flow(self.random.choice((6, 17)), home, local, self.random.choice(peers), remote)
            state.perform(SetFlow(FlowEntry(flow, self.random.choice(list(FlowVerdict)))))

    def stand_in(self, state: ForwardingState, home: Addr) -> None:
        """As the device, with a guard."""
        self.device(state, home)
        state.perform(InstallBinding(BindingEntry(home, Verdict.GUARD)))
        self.filter(state, home, FilterPlace.EMISSION)
        if self.random.random() < 0.5:
            self.translate(state, home, None)

    def closed(self, state: ForwardingState, home: Addr) -> None:
        """Packets to the home address wait or are dropped."""
        verdict = self.random.choice((Verdict.HOLD, Verdict.REPORT, Verdict.DROP))
        state.perform(InstallBinding(BindingEntry(home, verdict)))

    # Pieces

    def tunnel(self, *, local: bool = False) -> Tunnel:
        return self.grammar.tunnel(local=local)

    def accept(
        self,
        state: ForwardingState,
        home: Addr,
        link: str | None = None,
        next_hop: Addr | None = None,
        end: Addr | None = None,
    ) -> None:
        source = self.random.choice(INWARD)
        to = TunnelAcceptance(source, home, Side.TO_HOME_ADDRESS, link, next_hop, end=end)
        state.perform(AcceptTunnel(to))

    def filter(self, state: ForwardingState, home: Addr, place: FilterPlace) -> None:
        if self.random.random() < 0.4:
            state.perform(InstallFilter(self.grammar.rules.filter(home, place)))

    def translate(self, state: ForwardingState, home: Addr, tunnel: Addr | None) -> None:
        inside = [interface for interface in INTERFACES if interface.version == home.version]
        state.perform(InstallTranslation(Translation(home, self.random.choice(inside), tunnel)))
