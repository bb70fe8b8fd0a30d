"""The model's decision about one packet, with reasons in words (`locum explain`).

It asks the model and the forwarding state that was written, not the kernel: nothing is sent and nothing is counted.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from locum.dataplane.layout import maps
from locum.dataplane.layout.maps import Outcome, Reason
from locum.dataplane.model.decision import Model
from locum.dataplane.model.environment import Environment, Result
from locum.dataplane.model.following import WITH_PORTS
from locum.dataplane.model.frames import ETHERTYPES, outer_headers
from locum.dataplane.model.parse import AH, ESP, REGISTRATION_PORT, Packet
from locum.dataplane.model.tables import Met
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    OTHERWISE_RULE,
    WAITING,
    Encapsulation,
    Filter,
    FilterPlace,
    Rule,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import (
    BindingEntry,
    FlowVerdict,
    OutboundEntry,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.ip.checksum import checksum

_TAP = 0x7FFFFFFF  # no packet of a question comes by the re-injection device
_STAGES = {Stage.HOME: "home agent", Stage.VISITED: "access node", Stage.LOCAL: "local end"}
_OUTCOMES = {
    Outcome.PASSED: "is left to the kernel as it is",
    Outcome.HELD: "waits in the hold queue",
    Outcome.DELIVERED: "is delivered",
    Outcome.ENCAPSULATED: "goes into the tunnel",
    Outcome.TOO_BIG: "does not fit the tunnel: the kernel answers or fragments it",
    Outcome.LOCAL: "ends on this host",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A packet. Addresses are of one family; ports are those of TCP, UDP and the like, the SPI that of AH and ESP."""

    source: Addr
    destination: Addr
    protocol: int = 6
    source_port: int = 0
    destination_port: int = 0
    dscp: int = 0
    spi: int = 0
    flow_label: int = 0
    link: str | None = None  # on which it arrives; None: a program of this host sends it
    outer_source: Addr | None = None  # it arrives in a tunnel from this address

    def packet(self) -> bytes:
        """From its IP header on. ValueError for addresses of two families."""
        if self.source.version != self.destination.version:
            raise ValueError(f"{self.source} and {self.destination} are of two families")
        payload = self._transport()
        if self.source.version == 4:
            head = bytes((0x45, self.dscp << 2)) + (20 + len(payload)).to_bytes(2, "big") + b"\0\0\x40\0"
            head += bytes((64, self.protocol))
            head += checksum(head + self.source.packed + self.destination.packed).to_bytes(2, "big")
        else:
            word = 6 << 28 | self.dscp << 22 | self.flow_label
            head = word.to_bytes(4, "big") + len(payload).to_bytes(2, "big") + bytes((self.protocol, 64))
        return head + self.source.packed + self.destination.packed + payload

    def _transport(self) -> bytes:
        if self.protocol in WITH_PORTS:
            ports = maps.port(self.source_port) + maps.port(self.destination_port)
            return (ports + b"\0\0\0\0\0\0\0\0\x50\x02").ljust(20, b"\0")
        spi = self.spi.to_bytes(4, "big")
        return {ESP: spi, AH: b"\x3b\0\0\0" + spi}.get(self.protocol, b"").ljust(20, b"\0")


@dataclass(frozen=True, slots=True)
class Explanation:
    """Result for the packet, its reasons, and both in words (`text`)."""

    outcome: Outcome
    reason: Reason
    steps: tuple[str, ...]  # steps of the decision, in order
    entry: BindingEntry | None = None  # of the last stage that was asked
    rule: Rule | None = None
    tunnel: Tunnel | None = None  # that it goes into
    link: str | None = None  # that it is delivered on
    # Filters that were asked, each with the identifier of the rule that took the packet, 0 for none.
    filters: tuple[tuple[FilterPlace, int], ...] = ()

    @property
    def verdict(self) -> str:
        """One line, without the packet: "goes into the tunnel to 10.2.0.2"."""
        if self.outcome is Outcome.DROPPED:
            return f"is dropped: {self.reason.label}"
        words = _OUTCOMES[self.outcome]
        if self.outcome is Outcome.ENCAPSULATED and self.tunnel is not None:
            return f"{words} to {self.tunnel.destination}"
        return f"{words} on {self.link}" if self.link is not None else words

    @property
    def text(self) -> str:
        """The steps and the verdict, one a line."""
        return "\n".join((*self.steps, f"the packet {self.verdict}"))


def explain(
    state: ForwardingState, question: Question, *, links: Collection[str], own: Collection[Addr] = ()
) -> Explanation:
    """Return the decision of a node with this state about the packet.

    `links` are the links that are there now, `own` the addresses of the attached ones. ValueError for a question that
    no packet answers: two families, or a tunnel to a node that is the end of none.
    """
    named = dict.fromkeys((*links, *_named_links(state)))
    indices = {name: number for number, name in enumerate(named, start=1)}
    known = frozenset(maps.address(address) for address in own)
    model = Model(state, Environment(_TAP, indices, known))
    result = _decide(model, state, question, indices)
    return _explanation(model, state, result, {number: name for name, number in indices.items()}, links)


def _decide(model: Model, state: ForwardingState, question: Question, indices: Mapping[str, int]) -> Result:
    packet = question.packet()
    if question.outer_source is not None:
        packet = _tunnelled(state, question, packet)
    frame = bytes(12) + ETHERTYPES[packet[0] >> 4] + packet
    if question.link is None:
        return model.egress(frame, 0)
    if question.link not in indices:
        raise ValueError(f"there is no link {question.link}")
    return model.ingress(frame, indices[question.link])


def _tunnelled(state: ForwardingState, question: Question, packet: bytes) -> bytes:
    outer = question.outer_source
    assert outer is not None
    ends = [endpoint for endpoint in sorted(state.endpoints, key=str) if endpoint.version == outer.version]
    if not ends:
        raise ValueError(f"no tunnel from {outer} ends on this host")
    inner = Packet(b"", b"", len(packet), 0, 0, question.source.version, question.protocol, 0, 64)
    homes = (question.source, question.destination)
    about = [
        acceptance
        for acceptance in state.acceptances.values()
        if acceptance.outer_source == outer and acceptance.home_address in homes
    ]
    ports = [acceptance.source_port for acceptance in about if acceptance.source_port]
    only = any(
        acceptance.end is None for acceptance in about
    )  # then no question is about the stand-in of this host
    taken = {acceptance.end for acceptance in about}
    end = next((end for end in ends if (end in taken) != only), ends[0])
    tunnel = Tunnel(outer, end)
    if ports:  # it comes in UDP (RFC 3519), or not at all
        tunnel = Tunnel(outer, end, Encapsulation.UDP, ports[0], REGISTRATION_PORT)
    return outer_headers(tunnel, inner) + packet


def _named_links(state: ForwardingState) -> Iterator[str]:
    for acceptance in state.acceptances.values():
        if acceptance.link is not None:
            yield acceptance.link
    for entry in state.outbound_entries():
        if entry.link is not None:
            yield entry.link


def _explanation(
    model: Model, state: ForwardingState, result: Result, names: Mapping[int, str], links: Collection[str]
) -> Explanation:
    steps: list[str] = []
    entry: BindingEntry | None = None
    rule: Rule | None = None
    tunnel: Tunnel | None = None
    filters: list[tuple[FilterPlace, int]] = []
    for place, met in enumerate(model.met):
        following = model.met[place + 1] if place + 1 < len(model.met) else None
        steps.append(_words(state, met, following, links))
        match met:
            case BindingEntry():
                entry = met
            case Rule():
                rule = met
            case Tunnel():
                tunnel = met
            case OutboundEntry():
                tunnel = met.tunnel
            case (Filter() as found, taken):
                filters.append((found.place, 0 if taken is None else taken.identifier))
    if not steps:
        steps.append("no entry is about it")
    if result.outcome is not Outcome.ENCAPSULATED:
        tunnel = None
    elif entry is not None and tunnel is None:
        tunnel = entry.tunnels[0]
    link = names.get(result.ifindex) if result.outcome is Outcome.DELIVERED else None
    return Explanation(result.outcome, result.reason, tuple(steps), entry, rule, tunnel, link, tuple(filters))


def _words(state: ForwardingState, met: Met, following: Met | None, links: Collection[str]) -> str:
    match met:
        case BindingEntry():
            words = f"{_STAGES[_stage(state, met)]}: entry of {met.home_address}: {met.verdict.value}"
            ruled = met.rules and not isinstance(following, Rule)
            return f"{words}; none of its {len(met.rules)} flow rules takes it" if ruled else words
        case Rule():
            pages = ", and it waits until the device is awake" if met.verdict in WAITING else ""
            if met.identifier == OTHERWISE_RULE:
                return f"the device sleeps, and no rule names it: {met.verdict.value}{pages}"
            return (
                f"flow rule {met.identifier} takes it: {met.verdict.value}{pages}; {_selector(met.selector)}"
            )
        case Tunnel():
            here = ", which ends on this host" if met.destination in state.endpoints else ""
            return f"tunnel {met.source} > {met.destination} ({met.encapsulation.value}){here}"
        case TunnelAcceptance():
            end = "" if met.end is None else f" to {met.end}"
            words = f"out of the tunnel from {met.outer_source}{end}, {met.side.value} {met.home_address}"
            if met.link is None:
                return words
            if met.by_route:
                return f"{words}, by the route: it is a visitor on {met.link}"
            gone = "" if met.link in links else ", which is not there"
            return f"{words}: to {met.next_hop or met.home_address} on {met.link}{gone}"
        case OutboundEntry():
            entered = f"entered on {met.link}" if met.link is not None else "of this host"
            return f"outbound entry of {met.home_address}, {entered}: tunnel to {met.tunnel.destination}"
        case FlowVerdict():
            return f"flow table: {met.value}"
        case Translation():
            return f"translation: {met.home_address} becomes {met.interface_address}"
        case (found, taken):
            decided = "no rule takes it" if taken is None else f"rule {taken.identifier} takes it"
            verdict = found.otherwise if taken is None else taken.verdict
            return f"filter {found.place.value} of {found.home_address}: {decided}: {verdict.value}"


def _stage(state: ForwardingState, entry: BindingEntry) -> Stage:
    if entry.verdict is Verdict.GUARD:
        return Stage.LOCAL
    return next(stage for stage in Stage if state.stage(stage).get(entry.home_address) == entry)


def _selector(selector: object) -> str:
    """The parts that it compares, "protocol 6, destination_port 80-443"."""
    parts = []
    for name in getattr(type(selector), "__slots__", ()):
        bounds = getattr(selector, name)
        if bounds is not None:
            first, last = bounds
            parts.append(f"{name} {first}" if first == last else f"{name} {first}-{last}")
    return ", ".join(parts) or "every packet"
