"""Packets that a decision turns on and that chance hardly makes: the comparison draws some of them in every world."""

from ipaddress import IPv4Address, ip_address
from random import Random
from typing import TYPE_CHECKING

from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.forwarding import BindingEntry, Side, Stage, TunnelAcceptance, Verdict
from locum.wire.control import Flow

if TYPE_CHECKING:
    from tests.dataplane.model.grammar import Grammar

EDGES = (
    "223.255.255.255",  # before and after 224.0.0.0/24, and at the ends of what stays on a link
    "224.0.0.0",
    "224.0.0.255",
    "224.0.1.0",
    "224.1.0.5",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.255",
    "126.255.255.255",
    "127.0.0.0",
    "128.0.0.1",
    "0.255.255.255",
    "1.0.0.1",
    "169.253.0.1",
    "169.254.0.0",
    "169.255.0.1",
    "ff00::1",
    "ff01::1",
    "ff02::16",
    "ff12::1",
    "ff03::1",
    "ff05::1",
    "ff0e::1",
    "fe7f:ffff::1",
    "fe80::1",
    "febf::1",
    "fec0::1",
    "::",
    "::1",
    "::2",
    "1::",
)
TYPES = {
    4: (0, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13),
    6: (
        0,
        1,
        4,
        5,
        128,
        129,
        130,
        132,
        133,
        134,
        137,
        138,
        142,
        143,
        144,
        147,
        148,
        149,
        150,
        151,
        152,
        153,
        154,
    ),
}


class RareGrammar:
    """Rare packets for the states of `grammar`, from a random source of their own."""

    def __init__(self, grammar: "Grammar", random: Random, peers: list[Addr]) -> None:
        self._grammar, self.random = grammar, random
        self.flows: list[Flow] = []
        self.guarded: list[Addr] = []
        self.endpoints: list[Addr] = []
        self.acceptances: list[TunnelAcceptance] = []
        self.peers = peers
        self.edges = [ip_address(address) for address in EDGES]

    def add_services(self, state: ForwardingState, homes: list[Addr]) -> None:
        """Offer some services, and watch some ports of guarded home addresses; one of these has nothing else."""
        r = self.random
        if r.random() < 0.7:
            home = r.choice(homes)
            state.bindings.pop(home, None)
            state.local_ends[home] = BindingEntry(home, Verdict.GUARD, at=Stage.LOCAL)
            for flow in [flow for flow in state.flows if flow.local == home]:
                del state.flows[flow]
        self.endpoints = sorted(state.endpoints, key=str)
        self.acceptances = [a for a in state.acceptances.values() if a.outer_source not in state.endpoints]
        self.guarded = [home for home, entry in state.local_ends.items() if entry.verdict is Verdict.GUARD]
        for protocol, port in ((6, 443), (6, 80), (17, 5000), (17, 80)):
            if r.random() < 0.6:
                state.services.add((protocol, port))
        for home in homes:
            if r.random() < 0.6:
                state.watched.add((home, r.choice((443, 80, 434))))

    def packet(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """(family, packet)."""
        ways = (
            self._of_flow,
            self._of_flow,
            self._at_an_edge,
            self._at_an_edge,
            self._registering,
            self._at_a_guard,
            self._at_a_guard,
            self._accepted,
            self._accepted,
            self._accepted,
        )
        version = self.random.choice((4, 6))
        return self.random.choice(ways)(
            [address for address in homes if address.version == version],
            [address for address in others if address.version == version],
        )

    def _of_flow(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """A packet of a captured flow, in one direction or the other, now and then with one port changed."""
        r = self.random
        if not self.flows:
            return self._registering(homes, others)
        flow = r.choice(self.flows)
        ports = [flow.local_port, flow.peer_port]
        ends = [flow.local, flow.peer]
        if r.random() < 0.3:
            ports.reverse()
            ends.reverse()
        if r.random() < 0.1:
            ports[r.randrange(2)] ^= 1
        lead = b"".join(port.to_bytes(2, "big") for port in ports)
        rest = r.randbytes(8) + r.choice((b"\x50\x02", b"\x50\x12", b"\x50\x10", b"\x50\x06", b"\x50\x04"))
        rest += r.randbytes(6) + r.randbytes(r.choice((0, 20)))
        if flow.protocol == 17:
            rest = (8 + len(rest)).to_bytes(2, "big") + b"\0\0" + rest
        return flow.peer.version, self._grammar.ip(ends[0], ends[1], flow.protocol, lead + rest)

    def _at_a_guard(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """TCP or UDP of a guarded home address that no flow is captured of, to services and others."""
        r = self.random
        home = r.choice([home for home in self.guarded if home in homes] or homes)
        ports = ((5000, 80), (5000, 443), (80, 22), (9, 80), (80, 5000), (9, 434), (5000, 443))
        lead = b"".join(port.to_bytes(2, "big") for port in r.choice(ports))
        peer = r.choice((others[0], others[0], *others))
        if r.random() < 0.3:
            packet = self._grammar.ip(peer, home, 17, lead + b"\0\x0c\0\0data")
        else:
            flags = r.choice((0x02, 0x02, 0xC2, 0x12, 0x10, 0x06, 0x04))
            header = (
                lead + r.randbytes(8) + bytes((0x50, flags)) + r.randbytes(6) + r.randbytes(r.choice((0, 9)))
            )
            packet = self._grammar.ip(peer, home, 6, header[: r.choice((99, 99, 99, 20, 19, 13))])
        return self._grammar.wrapped(home.version, packet) if r.random() < 0.3 else (home.version, packet)

    def _accepted(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """A tunnel packet that an acceptance is about; now and then something of it is not as it says."""
        r = self.random
        if not self.acceptances:
            return self._registering(homes, others)
        accepted = r.choice(self.acceptances)
        home = accepted.home_address
        peer = r.choice([address for address in (*others, *self.peers) if address.version == home.version])
        ends = (home, peer) if accepted.side is Side.FROM_HOME_ADDRESS else (peer, home)
        protocol, payload = self._grammar.transport(home.version)
        inner = self._grammar.ip(*ends, protocol, payload)
        version, number = accepted.outer_source.version, 4 if home.version == 4 else 41
        key, port = accepted.gre_key, accepted.source_port
        if r.random() < 0.1:
            key, port = r.choice(((None, 0), (7, 0), (None, 434)))
        if key is not None or (not port and r.random() < 0.3):
            words = b"" if key is None else key.to_bytes(4, "big")
            head = (b"\x20\0" if words else b"\0\0") + (b"\x08\0" if number == 4 else b"\x86\xdd")
            protocol, body = 47, head + words + inner
        elif port or r.random() < 0.3:
            body = bytes((4, number, 0, 0)) + inner
            head = (port or 5000).to_bytes(2, "big") + b"\x01\xb2" + (8 + len(body)).to_bytes(2, "big")
            protocol, body = 17, head + b"\0\0" + body
        else:
            protocol, body = number, inner
        end = r.choice([end for end in self.endpoints if end.version == version])
        return version, self._grammar.ip(accepted.outer_source, end, protocol, body)

    def _at_an_edge(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """Addresses at the limits of a link, and the protocols of one; mostly out of a tunnel."""
        r, version = self.random, homes[0].version
        edges = [address for address in self.edges if address.version == version]
        source = r.choice(r.choice((homes, others, edges)))
        destination = r.choice(r.choice((homes, homes, edges)))
        payload = r.randbytes(r.choice((8, 24, 40)))
        protocol = r.choice((17, 2, 1, 1) if version == 4 else (17, 58, 58, 58))
        if protocol in (1, 58):
            payload = bytes((r.choice(TYPES[version]), 0)) + payload
        packet = self._grammar.ip(source, destination, protocol, payload)
        return self._grammar.wrapped(version, packet) if r.random() < 0.8 else (version, packet)

    def _registering(self, homes: list[Addr], others: list[Addr]) -> tuple[int, bytes]:
        """UDP at port 434, of a registration or not, between every kind of address."""
        r = self.random
        source, destination = (r.choice(r.choice((homes, others))) for _ in range(2))
        ports = r.choice(((434, 434), (5000, 434), (434, 5000), (435, 433)))
        data = bytes((r.choice((1, 3, 1, 3, 0, 2, 255)),)) + r.randbytes(r.choice((0, 1, 23)))
        data = data[: r.choice((0, 1, 100, 100, 100))]
        head = b"".join(port.to_bytes(2, "big") for port in ports) + (8 + len(data)).to_bytes(2, "big")
        version = 4 if isinstance(source, IPv4Address) else 6
        return version, self._grammar.ip(source, destination, 17, head + b"\0\0" + data)
