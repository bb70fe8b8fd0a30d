"""Facts that hold in every scenario with flows: nothing is delivered twice, nothing loops, and counters tell the truth.

They are taken from all nodes' captures at once. A packet is known again by what no node on its way changes: addresses,
protocol, ports, the identification that its sender gave it (IPv4), sequence numbers, and the start of its payload
(`arrivals.py`).
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from locum.lab.captures import pcap
from locum.lab.captures.arrivals import arrivals
from locum.lab.captures.pcap import TCP, UDP, Address, Datagram
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Table
from locum.lab.network.topology import Place
from locum.lab.report.checks import Checks
from locum.lab.timeline import Event
from locum.lab.world import Lab

IPIP, IPV6_IN, GRE = 4, 41, 47
MOBILE_IP = 434
TUNNEL_DATA = 4  # RFC 3519 section 3.3
HOMES: frozenset[Address] = frozenset((HOME_ADDRESS4, HOME_ADDRESS6))


@dataclass(frozen=True, slots=True)
class Inner:
    """A packet without its tunnels. `outer` is the tunnel it was seen in (source, destination), None: in none."""

    datagram: Datagram
    outer: tuple[Address, Address] | None


def inner_packets(file: Path) -> Iterator[Inner]:
    """Every packet of a capture, taken out of IP-in-IP, GRE and UDP tunnels; fragments but the first are left out."""
    for datagram in pcap.datagrams(file):
        yield _unpacked(datagram)


def _unpacked(datagram: Datagram) -> Inner:
    ether_type, start = 0, 0
    body = datagram.transport
    if datagram.protocol in (IPIP, IPV6_IN):
        ether_type = 0x0800 if datagram.protocol == IPIP else 0x86DD
    elif datagram.protocol == GRE and len(body) >= 4:
        flags, ether_type = struct.unpack_from("!HH", body)
        start = 8 if flags & 0x2000 else 4
    elif (
        datagram.protocol == UDP and len(body) > 12 and MOBILE_IP in datagram.ports and body[8] == TUNNEL_DATA
    ):
        ether_type, start = {IPIP: 0x0800, IPV6_IN: 0x86DD}.get(body[9], 0), 12
    if ether_type not in (0x0800, 0x86DD):
        return Inner(datagram, None)
    frame = pcap.Frame(
        datagram.time,
        datagram.outgoing,
        datagram.interface,
        ether_type,
        body[start:],
        datagram.transport_length,
    )
    inside = pcap.datagram_of(frame)
    return Inner(datagram, None) if inside is None else Inner(inside, (datagram.source, datagram.destination))


def delivered_twice(files: dict[str, Path], nodes: Iterable[str], homes: frozenset[Address] = HOMES) -> int:
    """Packets for the home addresses that arrived at more than one of these nodes.

    Bare acknowledgements over IPv6 are left out: two of them can be alike to the last bit.
    """
    packed = frozenset(home.packed for home in homes)
    places: defaultdict[bytes, set[str]] = defaultdict(set)
    for node in nodes:
        for arrival in arrivals(files[node], packed):
            if arrival.destination in packed and not arrival.bare:
                places[arrival.key].add(node)
    return sum(1 for found in places.values() if len(found) > 1)


def looped(files: dict[str, Path], homes: frozenset[Address] = HOMES) -> int:
    """Packets from or to the home addresses that came to a node's interface again, with fewer hops left than before."""
    packed = frozenset(home.packed for home in homes)
    loops = 0
    for file in files.values():
        seen: dict[tuple[int, bytes, bytes], int] = {}
        again: set[tuple[int, bytes, bytes]] = set()
        for arrival in arrivals(file, packed):
            place = (arrival.interface, arrival.outer, arrival.key)
            if seen.setdefault(place, arrival.hops) != arrival.hops:
                again.add(place)
        loops += len(again)
    return loops


def standing_rule(port: int | str, to: Sequence[str] = ("mn", "default")) -> Table:
    """Configuration of a home agent's rule with a permanent target, for UDP to a port or a range."""
    return _standing({"protocol": "udp", "destination_port": port}, to)


def standing_rule_from(port: int, to: Sequence[str] = ("mn", "default")) -> Table:
    """The same for TCP from a port of the correspondent."""
    return _standing({"protocol": "tcp", "source_port": port}, to)


def _standing(selector: Table, to: Sequence[str]) -> Table:
    return {"home_agent": {"mobile": {"rule": [{"id": 1, "priority": 10, "to": to, **selector}]}}}


def add_standing_rule(
    lab: Lab, home_address: Address, port: int | str, to: Sequence[str] = ("mn", "default")
) -> None:
    """The same for one home address, by command: where a plan has several."""
    ways = [part for way in to for part in ("--to", way)]
    lab.command("ha", "flow", "add", "--home-address", str(home_address), "--priority", "10", *ways,
                "--protocol", "udp", "--destination-port", str(port))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stint:
    """One time of a flow rule in the home agent's kernel, and how many packets it counted then."""

    identifier: int
    action: str
    selector: dict[str, Any]
    since: dict[str, float]
    """From when on, for each home address that it is for: it may have come later than that, never before."""
    until: float
    packets: int
    tunnels: frozenset[str] | None = None
    """Destination of its packets; None: a permanent rule, which alone matches its packets."""

    def had(self, packet: Datagram, home: Address, tunnel: Address | None) -> bool:
        """True if the rule matched this packet to `home`. `tunnel` is its tunnel's destination; None: it left in no tunnel."""
        since = self.since.get(str(home))
        if since is None or not since <= packet.time <= self.until:
            return False
        if tunnel is not None and self.tunnels is not None and str(tunnel) not in self.tunnels:
            return False
        return takes({"selector": self.selector}, packet)


def stints(
    events: Iterable[Event], standing: Sequence[dict[str, Any]], first: Mapping[str, str] | None = None
) -> list[Stint]:
    """Of all rules that the home agent had, by its events, and those that stand, as `locum flow list -j` prints them.

    `first` has the IPv4 home address of each device by its IPv6 one: it is what events call the device.
    """
    devices = first or {}
    found: list[Stint] = []
    begun: dict[tuple[str, int], float] = {}
    ended: dict[tuple[str, int], float] = {}

    def since(home: str, rule: int) -> float:
        return max(begun.get((devices.get(home, home), rule), 0.0), ended.get((home, rule), 0.0))

    for event in events:
        home, detail = str(event.home_address), event.detail
        if event.kind == "rules-changed":
            begun |= {(home, rule): event.time for rule in detail["set"]}
        elif event.kind == "rule-ended":
            rule = detail["id"]
            found.append(
                Stint(rule, detail["action"], detail["selector"], {home: since(home, rule)}, event.time,
                      detail["packets"], frozenset(detail["tunnels"]))
            )  # fmt: skip
            ended[home, rule] = event.time
    for row in standing:
        homes = {4: row.get("home_address"), 6: row.get("home_address_v6")}
        times = {home: since(home, row["id"]) for home in (str(homes[version]) for version in row["live"])}
        found.append(Stint(row["id"], row["action"], row["selector"], times, float("inf"), row["packets"]))
    return found


def judge_flows(
    lab: Lab,
    checks: Checks,
    homes: frozenset[Address] = HOMES,
    translated: Collection[Address] = (),
) -> None:
    """Make the checks that every scenario with flows has; with captures closed and the lab still standing.

    `translated` are the addresses that the home agent puts in place of home addresses.
    """
    ends = [
        node.name
        for node in lab.topology.nodes
        if node.place in (Place.MOBILE_NODE, Place.STAND_IN) and node.name in lab.captures.files
    ]
    checks.equal("delivered_twice", delivered_twice(lab.captures.files, ends, homes), 0, "packets")
    hosts = {name: file for name, file in lab.captures.files.items() if name not in lab.captures.routers}
    checks.equal("looped", looped(hosts, homes), 0, "packets")  # what goes round comes through one of them
    first = {str(row.get("home_address_v6")): str(row["home_address"]) for row in lab.bindings()}
    rules = stints(lab.timeline.of("ha"), lab.flow_rules(), first)
    own = frozenset(lab.topology.address4("ha", link) for link in lab.topology.interfaces("ha"))
    judge_counters(lab.captures.files["ha"], rules, checks, translated, own)


def judge_counters(
    file: Path,
    rules: Sequence[Stint],
    checks: Checks,
    translated: Collection[Address] = (),
    own: Collection[Address] = (),
) -> None:
    """Compare the home agent's counters by rule with packets in tunnels, and with dropped and local ones.

    Which rule took a packet is found by selector, time and tunnel. That no rule has taken any packet is a failure too.
    `own` are the home agent's addresses: packets into a tunnel to one of them stay on its host.
    """
    meant: dict[bytes, Address] = {}  # the home address before it is translated
    here = {str(address) for address in own}
    seen: Counter[int] = Counter()
    arrived: defaultdict[int, set[bytes]] = defaultdict(
        set
    )  # held packets come in twice: by their link, and released
    left: set[bytes] = set()
    for packet in inner_packets(file):
        one, tunnel = packet.datagram, None if packet.outer is None else packet.outer[1]
        if one.outgoing == (tunnel is None):
            continue
        if not one.outgoing:
            meant[_unchanged(one)] = home = one.destination
        else:
            home = (
                meant.get(_unchanged(one), one.destination)
                if one.destination in translated
                else one.destination
            )
            left.add(_known_by(one))
        for number, rule in enumerate(rules):
            stays = rule.action == "forward" and not here.isdisjoint(rule.tunnels or ())
            if (rule.action == "forward" and not stays) == one.outgoing and rule.had(one, home, tunnel):
                if stays:
                    arrived[number].add(_known_by(one))
                else:
                    seen[number] += 1
                break
    for number, packets in arrived.items():
        seen[number] += len(packets - left)
    names: Counter[int] = Counter()
    for number, rule in enumerate(rules):
        names[rule.identifier] += 1
        again = f"_{names[rule.identifier]}" if names[rule.identifier] > 1 else ""
        checks.equal(f"rule_{rule.identifier}{again}_counted", rule.packets, seen[number], "packets")
    counted = sum(rule.packets for rule in rules)
    checks.equal("rule_counters_add_up", counted, seen.total(), "packets")
    checks.more_than("packets_by_rules", counted, 0, "packets")


def _unchanged(one: Datagram) -> bytes:
    """The part of a packet that translation of its destination leaves unchanged, without checksums."""
    head = struct.pack("!HB", one.identification, one.protocol)
    return head + one.source.packed + one.transport[:6] + one.transport[8:16]


def _known_by(one: Datagram) -> bytes:
    """Fields that identify a packet on its path through a node."""
    head = struct.pack("!HB", one.identification, one.protocol)
    return head + one.source.packed + one.destination.packed + one.transport[:32]


def takes(rule: dict[str, Any], packet: Datagram) -> bool:
    """True if a rule's selector, as `locum flow list -j` prints it, matches a packet to a home address.

    An ICMP error counts as a packet of the flow that it is about.
    """
    selector, packet = rule["selector"], _of_its_flow(packet)
    if selector.get("family", packet.source.version) != packet.source.version:
        return False
    ports = packet.ports if packet.protocol in (TCP, UDP) and len(packet.transport) >= 4 else (None, None)
    return (
        _is_in(selector.get("source"), packet.source)
        and _is_in(selector.get("destination"), packet.destination)
        and _number_in(selector.get("protocol"), packet.protocol)
        and _number_in(selector.get("source_port"), ports[0])
        and _number_in(selector.get("destination_port"), ports[1])
    )


_ERRORS = {1: (3, 11, 12), 58: (1, 2, 3, 4)}
"""Types of ICMP and ICMPv6 messages that quote a packet."""


def _of_its_flow(packet: Datagram) -> Datagram:
    """The packet, or in the place of an ICMP error the answer to the TCP or UDP packet that it quotes."""
    quoted = packet.transport[8:]
    if packet.transport[0] not in _ERRORS.get(packet.protocol, ()) or not quoted:
        return packet
    four = quoted[0] >> 4 == 4
    at, size = (12, 4) if four else (8, 16)
    protocol, ports = quoted[9 if four else 6], quoted[(quoted[0] & 15) * 4 if four else 40 :][:4]
    if protocol not in (TCP, UDP) or len(ports) < 4:
        return packet
    sender, receiver = (ip_address(quoted[begin : begin + size]) for begin in (at, at + size))
    transport = ports[2:] + ports[:2]
    return replace(packet, protocol=protocol, source=receiver, destination=sender, transport=transport)


def _is_in(text: str | None, address: Address) -> bool:
    """An address, a prefix, or "first-last"."""
    if text is None:
        return True
    if "-" in text:
        first, last = (ip_address(part) for part in text.split("-"))
        return first.version == address.version and int(first) <= int(address) <= int(last)
    network = ip_network(text)
    return network.version == address.version and address in network


_PROTOCOLS = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}


def _number_in(value: int | str | None, number: int | None) -> bool:
    """A number, a protocol's name, or "first-last"."""
    if value is None:
        return True
    if number is None:
        return False
    if isinstance(value, str) and value in _PROTOCOLS:
        return _PROTOCOLS[value] == number
    first, _, last = str(value).partition("-")
    return int(first) <= number <= int(last or first)
