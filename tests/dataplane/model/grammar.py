"""Random packets for the comparison: a weighted grammar around a few addresses, so that most packets meet an entry."""

from ipaddress import IPv4Address, ip_address
from random import Random

from locum.dataplane.layout.maps import (
    MARK_ANSWER,
    MARK_COPY,
    MARK_LOCAL,
    MARK_MTU,
    MARK_RELEASED,
    MARK_RENEWED,
    MARK_SENT,
    MARK_SIGNALLING,
)
from locum.dataplane.model.translation import FlowKey
from locum.dataplane.state import ForwardingState
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import Encapsulation, FilterPlace, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    FlowVerdict,
    OutboundEntry,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.wire.control import Flow
from locum.wire.ip.checksum import ones_sum
from tests.dataplane.model.rare_grammar import RareGrammar
from tests.dataplane.model.rule_grammar import RuleGrammar
from tests.dataplane.model.translation_grammar import (
    INTERFACES,
    about_packets_of,
    add_translations,
    answer,
    echo,
    error,
)

HOMES = [ip_address(a) for a in ("10.9.0.1", "10.9.0.2", "10.9.0.3", "fd09::1", "fd09::2", "fd09::3")]
PEERS = [ip_address(a) for a in ("10.1.0.2", "10.1.0.3", "fd01::2", "fd01::3")]
LOCALS = [ip_address(a) for a in ("10.2.0.1", "10.2.0.9", "fd02::1", "fd02::9")]
REMOTES = [ip_address(a) for a in ("10.3.0.1", "10.3.0.2", "fd03::1", "fd03::2")]
UNROUTED = [ip_address(a) for a in ("10.66.0.1", "fd66::1")]
ODD = [
    ip_address(a)
    for a in (
        "224.0.0.18",
        "224.0.1.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "10.9.0.255",
        "169.254.1.1",
        "127.0.0.1",
        "0.0.0.0",
        "ff01::1",
        "ff02::1",
        "ff05::1",
        "ff3e::1",
        "fe80::1",
        "::1",
        "::",
        "::ffff:10.9.0.1",
        "::ffff:10.1.0.2",
    )
]
BROADCASTS = [ip_address(a) for a in ("255.255.255.255", "10.9.0.255")]
IDENTIFICATIONS = (b"\0\0\0\1", b"\1\2\3\4")  # few, so that fragments find each other
HARDWARE = (b"\2\0\0\0\0\1", b"\2\0\0\0\0\2")  # of visitors
GRE_KEYS = (0, 7, 0xFFFFFFFF)
PORTS = (80, 443, 434, 5000)


class Grammar:
    """Packets and states from one seed."""

    def __init__(self, seed: int) -> None:
        self.random, self.apart = Random(seed), Random(-1 - seed)
        self.short = Random(-3000 - seed)  # of minimal encapsulation
        self.routed = Random(-4000 - seed)  # of acceptances with a link
        self._first_fragments: list[tuple[Addr, Addr, int, bytes]] = []
        self.rules = RuleGrammar(self.random, [*HOMES, *PEERS, *LOCALS], PORTS)
        self.rare = RareGrammar(self, Random(-1000 - seed), PEERS)

    # States

    def tunnel(self, *, local: bool = True) -> Tunnel:
        """Some lead to an end point of this very host, if `local`."""
        r = self.random
        start = r.choice(LOCALS)
        ends = r.choices((REMOTES, LOCALS if local else REMOTES, UNROUTED), (8, 2, 1))[0]
        end = r.choice([a for a in ends if a.version == start.version])
        encapsulation = r.choice((Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.UDP))
        if encapsulation is Encapsulation.IPIP and self.short.random() < 0.5:
            encapsulation = Encapsulation.MINIMAL
        key = r.choice(GRE_KEYS) if encapsulation is Encapsulation.GRE and r.random() < 0.5 else None
        return Tunnel(start, end, encapsulation, r.choice(PORTS), r.choice(PORTS), key)

    def state(self) -> ForwardingState:
        r = self.random
        state = ForwardingState(endpoints=set(LOCALS[::2]) | ({LOCALS[1]} if r.random() < 0.5 else set()))
        bound = self.apart.choice((0.9, 0.9, 0.4))
        for home in HOMES:
            if r.random() < bound:
                state.bindings[home] = self.binding(home)
            self.add_other_stages(state, home)
            for remote in (*REMOTES, *LOCALS):
                if r.random() < 0.7:
                    side = r.choice(list(Side))
                    link = r.choice([None, "lan0"])
                    hop = (
                        None if link is None or r.random() < 0.5 else r.choice([*PEERS, *PEERS, *INTERFACES])
                    )
                    port = r.choice((0, 0, 0, *PORTS))
                    inward = link is not None and side is Side.TO_HOME_ADDRESS
                    hardware = HARDWARE[int(home) % 2] if inward and int(home) % 3 else None
                    key = self.apart.choice(GRE_KEYS) if self.apart.random() < 0.2 else None
                    by_route = link is not None and self.routed.random() < 0.1
                    accepted = TunnelAcceptance(
                        remote, home, side, link, hop, port, None, hardware, key, by_route
                    )
                    state.perform(AcceptTunnel(accepted))
            if r.random() < 0.6:
                link = r.choice([None, "lan0", "out0"])
                state.outbound[home] = {link: OutboundEntry(home, link, self.tunnel())}
            for _ in range(r.choice((0, 0, 3, 8))):
                peer = r.choice([a for a in PEERS if a.version == home.version])
                flow = Flow(r.choice((6, 17)), home, r.choice(PORTS), peer, r.choice(PORTS))
                state.flows[flow] = r.choice(list(FlowVerdict))
            self.add_ends(state, home)
        self.rare.flows = list(state.flows)
        add_translations(r, state, HOMES, REMOTES)
        self.add_broadcasts(state)
        self.rare.add_services(state, HOMES)
        return state

    def narrow_paths(self) -> dict[Addr, int]:
        """MTUs of paths that routers have told of, by the end of the tunnel."""
        r = self.apart
        mtus = {4: (552, 576, 1000, 1280, 1420), 6: (1280, 1300, 1420)}
        return {remote: r.choice(mtus[remote.version]) for remote in REMOTES if r.random() < 0.5}

    def add_broadcasts(self, state: ForwardingState) -> None:
        """Acceptances of a device that has asked for broadcasts of its home network."""
        for remote in (remote for remote in REMOTES if remote.version == 4):
            for broadcast in BROADCASTS:
                if self.apart.random() < 0.5:
                    side = self.apart.choice(list(Side))
                    state.perform(AcceptTunnel(TunnelAcceptance(remote, broadcast, side)))

    def add_ends(self, state: ForwardingState, home: Addr) -> None:
        """Acceptances of single end points, beside the others or alone."""
        r = self.apart
        for remote in (*REMOTES, *LOCALS):
            if r.random() < 0.3:
                end, port = r.choice(LOCALS), r.choice((0, 0, 0, *PORTS))
                key = r.choice(GRE_KEYS) if r.random() < 0.2 else None
                at_end = TunnelAcceptance(
                    remote, home, Side.TO_HOME_ADDRESS, source_port=port, end=end, gre_key=key
                )
                state.perform(AcceptTunnel(at_end))

    def add_other_stages(self, state: ForwardingState, home: Addr) -> None:
        """Add actions of an access node and a stand-in on the same host, and filters."""
        r = self.random
        if r.random() < 0.3:
            verdict = r.choices(list(Verdict), (1, 9, 1, 1, 1, 0))[0]
            tunnels = (self.tunnel(),) if verdict is Verdict.ENCAPSULATE else ()
            state.visited[home] = BindingEntry(home, verdict, tunnels, at=Stage.VISITED)
        if r.random() < 0.3:
            verdict = r.choices(list(Verdict), (1, 0, 1, 1, 1, 4))[0]
            state.local_ends[home] = BindingEntry(home, verdict, at=Stage.LOCAL)
        for place in FilterPlace:
            if r.random() < 0.4:
                state.filters[home, place] = self.rules.filter(home, place)

    def binding(self, home: Addr) -> BindingEntry:
        r = self.random
        verdict = r.choices(list(Verdict), (1, 9, 1, 1, 1, 0))[0]
        count = r.choice((1, 1, 1, 2, 4)) if verdict is Verdict.ENCAPSULATE else 0
        weights = tuple(r.choice((1, 2, 5, 0xFFFF)) for _ in range(count)) if r.random() < 0.4 else ()
        peer = r.choice(PEERS) if r.random() < 0.3 else None
        peer_tunnel = self.tunnel() if peer is not None and r.random() < 0.7 else None
        rules = self.rules.rules(self.tunnel) if r.random() < 0.5 else ()
        # A copy that ends on this host goes there by the device, and the real program would judge it unseen.
        first = [self.tunnel()] if count else []
        tunnels = first + [self.tunnel(local=bool(weights)) for _ in range(count - 1)]
        return BindingEntry(home, verdict, tuple(tunnels), peer, peer_tunnel, rules, weights)

    # Packets

    def address(self, version: int, pools: list[list[Addr]]) -> Addr:
        r = self.random
        if r.random() < 0.04:
            pools = [ODD]
        found = [a for a in r.choice(pools) if a.version == version]
        return r.choice(found)

    def transport(self, version: int) -> tuple[int, bytes]:
        """Protocol and payload; in some the header of the protocol is cut short."""
        protocol, payload = self._transport(version)
        return protocol, payload[: self.random.randrange(21)] if self.random.random() < 0.03 else payload

    def _transport(self, version: int) -> tuple[int, bytes]:
        r = self.random
        kind = r.choices(("tcp", "udp", "icmp", "other"), (5, 4, 2, 2))[0]
        data = r.randbytes(r.choice((0, 1, 8, 40, 300, 460, 1216, 1232, 1400, 1452)))
        ports = r.choice(PORTS).to_bytes(2, "big") + r.choice(PORTS).to_bytes(2, "big")
        if kind == "tcp":
            return 6, ports + r.randbytes(8) + b"\x50\x10" + r.randbytes(6) + data
        if kind == "udp":
            lead = (
                bytes((r.choice((1, 3, 4, 4, 9)), r.choice((4, 41, 55)), 0, 0)) if r.random() < 0.6 else b""
            )
            check = r.randbytes(2) if r.random() < 0.8 else b"\0\0"
            return 17, ports + (8 + len(lead + data)).to_bytes(2, "big") + check + lead + data
        if kind == "icmp":
            if r.random() < 0.4:
                return (1 if version == 4 else 58), echo(r, version, data)
            if r.random() < 0.6:
                return (1 if version == 4 else 58), error(r, version, self.quoted(version))
            types = (0, 3, 5, 8, 9) if version == 4 else (1, 128, 130, 133, 135, 136, 137, 143, 144)
            return (1 if version == 4 else 58), bytes((r.choice(types), 0)) + r.randbytes(6) + data
        protocol = r.choice((0, 2, 4, 41, 47, 44, 50, 50, 51, 51, 60, 132, 132))
        number = r.choice((0, 1, 0xFFFFFFFF)).to_bytes(4, "big")  # an SPI
        lead = {50: number, 51: r.randbytes(4) + number, 132: ports}.get(protocol, b"")
        return protocol, lead + r.randbytes(r.choice((0, 3, 20, 48)))

    def quoted(self, version: int) -> bytes:
        """A packet that an error is about: from or to a home address or an interface address."""
        protocol, payload = self.transport(version)
        ends = (self.address(version, [HOMES, INTERFACES]), self.address(version, [PEERS]))
        source, destination = ends if self.random.random() < 0.5 else ends[::-1]
        return self.ip(source, destination, protocol, payload)

    def ip(self, source: Addr, destination: Addr, protocol: int, payload: bytes) -> bytes:
        r = self.random
        tos = r.choice((0, 0, 1, 2, 3, 0xB8, 0xFF))
        hops = r.choice((64, 64, 64, 255, 2, 1, 0))
        if isinstance(source, IPv4Address):
            return self.v4(source, destination, protocol, payload, tos, hops)
        extensions, first = self.extensions(protocol)
        body = extensions + payload
        if extensions and r.random() < 0.08:  # as in a first fragment that has only some of the headers
            body = body[: r.randrange(len(extensions) + 1)]
        word = (0x60000000 | tos << 20 | r.getrandbits(20)).to_bytes(4, "big")
        length = max(0, len(body) + (r.choice((-9, 7, 2000, -len(body))) if r.random() < 0.03 else 0))
        return (
            word
            + length.to_bytes(2, "big")
            + bytes((first, hops))
            + source.packed
            + destination.packed
            + body
        )

    def v4(
        self, source: Addr, destination: Addr, protocol: int, payload: bytes, tos: int, hops: int
    ) -> bytes:
        r = self.random
        options = r.randbytes(4 * r.choice((1, 2, 10))) if r.random() < 0.15 else b""
        if options and self.apart.random() < 0.2:
            lead = self.apart.choice((b"", b"\x01", b"\x01\x94\x02", b"\x00"))
            options = (lead + self.apart.choice((b"\x83\x03", b"\x89\x03")) + options)[: len(options)]
        field = r.choices((0x4000, 0, 0x2000, 0x00B9, 0x20B9), (8, 4, 1, 1, 1))[0]
        number = r.choice(IDENTIFICATIONS)[2:]
        if field == 0x2000:
            self._first_fragments.append((source, destination, protocol, number))
        elif field & 0xFF and self._first_fragments and r.random() < 0.7:
            source, destination, protocol, number = r.choice(self._first_fragments[-6:])
        length = 20 + len(options) + len(payload)
        if r.random() < 0.02:
            length += r.choice((-30, -1, 1, 5000))
        first = (4 if r.random() < 0.99 else 6) << 4 | (
            5 + len(options) // 4 if r.random() < 0.99 else r.randrange(16)
        )
        head = bytes((first, tos)) + max(length, 0).to_bytes(2, "big") + number + field.to_bytes(2, "big")
        head += bytes((hops, protocol)) + b"\x00\x00" + source.packed + destination.packed + options
        check = ones_sum(head) ^ 0xFFFF if r.random() < 0.95 else r.getrandbits(16)
        return head[:10] + check.to_bytes(2, "big") + head[12:] + payload

    def extensions(self, protocol: int) -> tuple[bytes, int]:
        """Extension headers before `protocol`: their bytes, and the number of the first."""
        r = self.random
        if r.random() < 0.8:
            return b"", protocol
        kinds = [r.choice((0, 43, 44, 60)) for _ in range(r.choice((1, 1, 2, 3, 8, 9)))]
        body = b""
        for place, kind in enumerate(kinds):
            following = kinds[place + 1] if place + 1 < len(kinds) else protocol
            if kind == 44:
                field = r.choice((0, 1, 0x0100, 0x0101))
                body += bytes((following, 0)) + field.to_bytes(2, "big") + r.choice(IDENTIFICATIONS)
            else:
                units = r.choice((0, 0, 1, 2)) if r.random() < 0.97 else 255
                body += bytes((following, units))
                if kind == 43:
                    body += bytes((r.choice((0, 2, 2, 3, 4, 4)), r.choice((0, 0, 1, 1, 2)))) + r.randbytes(4)
                    final = r.choice([a for a in (*HOMES, *PEERS) if a.version == 6])
                    body += (final.packed * 2)[: 8 * min(units, 2)]
                else:
                    body += r.randbytes(6 + 8 * min(units, 2))
        return body, kinds[0]

    def plain(self) -> tuple[int, bytes]:
        """(family, packet) with inner-looking addresses."""
        version = self.random.choice((4, 6))
        source = self.address(version, [*[HOMES] * 2, *[PEERS] * 4, LOCALS, INTERFACES])
        destination = self.address(version, [*[HOMES] * 9, PEERS, PEERS, LOCALS, INTERFACES])
        protocol, payload = self.transport(version)
        if protocol in (1, 58) and self.apart.random() < 0.7:
            payload = about_packets_of(destination, payload)
        return version, self.ip(source, destination, protocol, payload)

    def tunnelled(self, depth: int = 0) -> tuple[int, bytes]:
        """A packet in a tunnel to one of our end points, or from one."""
        return self.wrapped(
            *(self.tunnelled(1) if depth == 0 and self.random.random() < 0.1 else self.plain())
        )

    def wrapped(self, inner_family: int, inner: bytes) -> tuple[int, bytes]:
        """This packet in a tunnel."""
        r = self.random
        version = r.choice((4, 6))
        ends = ([REMOTES], [LOCALS]) if r.random() < 0.9 else ([LOCALS], [REMOTES])
        source, destination = self.address(version, ends[0]), self.address(version, ends[1])
        number = 4 if inner_family == 4 else 41
        kind = r.choice(("ip", "ip", "gre", "udp"))
        if kind == "ip" and version == inner_family == 4 and self.short.random() < 0.5:
            return 4, self.minimal(source, destination, inner)
        if kind == "ip":
            return version, self.ip(source, destination, number, inner)
        if kind == "gre":
            flags = r.choice((0, 0, 0x2000, 0x2000, 0x8000, 0xB000, 0x4000, 0x0800, 0x0400, 0x0200, 0x0001))
            ethertype = b"\x08\x00" if inner_family == 4 else b"\x86\xdd"
            if r.random() < 0.03:
                ethertype = r.randbytes(2)
            words = b"".join(
                r.choice(GRE_KEYS).to_bytes(4, "big") if bit == 0x2000 else r.randbytes(4)
                for bit in (0x8000, 0x2000, 0x1000)
                if flags & bit
            )
            body = flags.to_bytes(2, "big") + ethertype + words + inner
            if flags & 0x8000 and self.apart.random() < 0.8:
                body = body[:4] + b"\0\0" + body[6:]
                body = body[:4] + (ones_sum(body) ^ 0xFFFF).to_bytes(2, "big") + body[6:]
            return version, self.ip(source, destination, 47, body)
        ports = b"\x01\xb2" + r.choice(PORTS).to_bytes(2, "big")
        data = bytes((4 if r.random() < 0.9 else 1, number if r.random() < 0.95 else 55, 0, 0)) + inner
        length = 8 + len(data)
        head = ports + length.to_bytes(2, "big")
        check = 0
        if self.apart.random() < 0.3:
            check = ones_sum(
                source.packed + destination.packed + bytes((0, 17)) + length.to_bytes(2, "big") + head + data
            )
            check ^= self.apart.choice((0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, 0xFFF0))
            if self.apart.random() < 0.1:  # left to a device
                check = ones_sum(
                    source.packed + destination.packed + bytes((0, 17)) + length.to_bytes(2, "big")
                )
        if self.apart.random() < 0.02:
            head = ports + self.apart.choice((0, 7, 8, 4000, length - 1)).to_bytes(2, "big")
        return version, self.ip(source, destination, 17, head + check.to_bytes(2, "big") + data)

    def minimal(self, source: Addr, destination: Addr, inner: bytes) -> bytes:
        """The packet in minimal encapsulation, even one that must not be; in some the short header is damaged or cut."""
        r = self.short
        flags = r.choice((0x80, 0x80, 0x80, 0xD1, 0, 0x01))
        if r.random() < 0.9:  # one that an acceptance may be about
            source, destination = r.choice(REMOTES[:2]), LOCALS[0]
            inner = inner[:16] + r.choice(HOMES[:3]).packed + inner[20:]
        head = bytes((inner[9], flags, 0, 0)) + inner[16:20] + (inner[12:16] if flags & 0x80 else b"")
        check = ones_sum(head) ^ 0xFFFF if r.random() < 0.95 else r.getrandbits(16)
        head = head[:2] + check.to_bytes(2, "big") + head[4:]
        if r.random() < 0.03:
            return self.ip(source, destination, 55, head[: r.randrange(len(head))])
        return self.ip(source, destination, 55, head + inner[20:])

    def nested(self) -> tuple[int, bytes]:
        """A packet to a home address that is in several tunnels already, or has a limit of them."""
        r = self.apart
        family, packet = self.plain()
        for _ in range(r.choice((0, 1, 3, 4, 5))):
            family, packet = self.wrapped(family, packet)
        home = r.choice(HOMES)
        ends = [a for a in (*PEERS, *REMOTES, *LOCALS) if a.version == home.version]
        peer = r.choice(ends)
        protocol = 4 if family == 4 else 41
        if home.version == 4 or r.random() < 0.5:
            return home.version, self.ip(peer, home, protocol, packet)
        options = b"\0" * r.choice((0, 0, 1)) + bytes((r.choice((4, 4, 4, 1)), 1, r.choice((0, 0, 4))))
        options = options.ljust(6, b"\0")
        body = bytes((protocol, 0)) + options + packet
        head = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((60, 64))
        return 6, head + peer.packed + home.packed + body

    def frame(self, answered: FlowKey | None = None) -> bytes:
        """An Ethernet frame; sometimes cut short, padded, or altered in a few bytes.

        `answered` is a flow that was translated: the packet is one that comes back.
        """
        r = self.random
        family, packet = self.plain() if r.random() < 0.5 else self.tunnelled()
        if self.apart.random() < 0.03:
            family, packet = self.nested()
        if answered is not None:
            family, packet = answer(self, answered)
            family, packet = (family, packet) if r.random() < 0.5 else self.wrapped(family, packet)
        elif self.rare.random.random() < 0.15:
            family, packet = self.rare.packet(HOMES, [*PEERS, *LOCALS, *INTERFACES])
        if r.random() < 0.02:
            packet = r.randbytes(r.randrange(1, 200))
        if r.random() < 0.04:
            packet = packet[: r.randrange(1, len(packet) + 1)]
        if r.random() < 0.1:
            packet += bytes(r.randrange(1, 46))
        if r.random() < 0.04:
            altered = bytearray(packet)
            for _ in range(r.choice((1, 2, 5))):
                altered[r.randrange(min(len(altered), 80))] = r.getrandbits(8)
            packet = bytes(altered)
        ethertype = b"\x08\x00" if family == 4 else b"\x86\xdd"
        if r.random() < 0.01:
            ethertype = r.choice((b"\x08\x06", b"\x81\x00", b"\x08\x00", b"\x86\xdd"))
        # The kernel refuses a test run with less than an IP header; a real network does not, see test_forwarding.
        shortest = {b"\x08\x00": 20, b"\x86\xdd": 40}.get(ethertype, 1)
        frame = r.randbytes(12) + ethertype + packet.ljust(shortest, b"\x00")
        if r.random() < 0.02:  # IEEE 802.1Q or 802.1ad
            return frame[:12] + r.choice((b"\x81\x00", b"\x88\xa8")) + r.randbytes(2) + frame[12:]
        return frame

    def received(self, frame: bytes, hardware: bytes) -> bytes:
        """The frame as an interface with this link-layer address receives it: mostly for this host."""
        r = self.random
        other = bytes((r.getrandbits(8) & 0xFE,)) + r.randbytes(5)
        group = b"\x01\x00\x5e" + r.randbytes(3)
        return r.choices((hardware, other, b"\xff" * 6, group), (90, 4, 3, 3))[0] + frame[6:]

    def mark(self) -> int:
        r = self.random
        if r.random() < 0.8:
            return 0
        copies = (MARK_COPY | number for number in range(5))
        return r.choice(
            (
                1,
                MARK_MTU | 1480,
                MARK_RELEASED,
                MARK_LOCAL,
                MARK_LOCAL | 1,
                MARK_ANSWER,
                MARK_SIGNALLING,
                MARK_RENEWED,
                MARK_SENT,
                *copies,
            )
        )
