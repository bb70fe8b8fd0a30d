"""TCP between two roaming devices whose tunnels differ, against the same devices with tunnels of one shape.

The source of `bench.chain` has a home address too, and a tunnel to the encapsulator, which is the home agent of both. A stream from
the source leaves its tunnel there and enters that of the destination. Every ordered pair of six shapes and both inner
families is tried once. One sample tells little: the worst of them are tried again, in turns with both pairs of like
tunnels, and the one whose median is the least is measured.
"""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from statistics import median

from bench.chain import DECAPSULATOR, ENCAPSULATOR, HOME_ADDRESS, SOURCE, Chain, chain
from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import Namespace, bpf_filesystem, stop
from bench.report import quantity
from locum.dataplane.plane import DataPlane
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ForwardingAction,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    Side,
    TunnelAcceptance,
    Verdict,
)

NAMES = ("tunnel_pairs",)
DOUBTFUL, TRIES = 5, 3
"""Pairs that are tried again, and samples of each."""
SEGMENT = 1300
"""Bytes of a TCP segment: it fits all tunnels, so that pairs differ in nothing else."""

Address = IPv4Address | IPv6Address
Shape = tuple[Encapsulation, int]
"""Encapsulation, and family of the outer header. Segments go IP in IP through a minimal one."""
SHAPES: tuple[Shape, ...] = tuple(
    (encapsulation, family)
    for encapsulation in (Encapsulation.IPIP, Encapsulation.GRE, Encapsulation.UDP)
    for family in (4, 6)
)
HOMES: dict[int, tuple[Address, Address]] = {
    4: (HOME_ADDRESS, ip_address("198.19.0.2")),
    6: (ip_address("fd09::1"), ip_address("fd09::2")),
}
"""Home addresses of destination and source, by family."""
NEAR: dict[int, tuple[Address, Address]] = {
    4: (ip_address("198.18.1.1"), SOURCE),
    6: (ip_address("fd01::1"), ip_address("fd01::2")),
}
"""Ends of the source's tunnel: home agent and source."""
FAR: dict[int, tuple[Address, Address]] = {
    4: (ENCAPSULATOR, DECAPSULATOR),
    6: (ip_address("fd02::1"), ip_address("fd02::2")),
}
"""Ends of the destination's tunnel: home agent and decapsulator."""


def _tunnel(shape: Shape, ends: dict[int, tuple[Address, Address]], *, turned: bool = False) -> Tunnel:
    encapsulation, family = shape
    one, other = reversed(ends[family]) if turned else ends[family]
    port = 434 if encapsulation is Encapsulation.UDP else 0
    return Tunnel(one, other, encapsulation, port, port)


@dataclass(frozen=True, slots=True)
class Roaming:
    """The chain with data planes at source, encapsulator and decapsulator."""

    over: Chain
    planes: tuple[tuple[Namespace, DataPlane], ...]

    def use(self, of_source: Shape, of_destination: Shape) -> None:
        """Tunnels of these shapes from now on."""
        near, far = _tunnel(of_source, NEAR), _tunnel(of_destination, FAR)
        entries: list[list[ForwardingAction]] = [
            [LocalEndpoint(near.destination)],
            [LocalEndpoint(near.source), LocalEndpoint(far.source)],
            [LocalEndpoint(far.destination)],
        ]
        for home, further in HOMES.values():
            entries[0] += [
                AcceptTunnel(TunnelAcceptance(near.source, further, Side.TO_HOME_ADDRESS)),
                InstallOutbound(OutboundEntry(further, None, _tunnel(of_source, NEAR, turned=True))),
            ]
            for tunnel, address in ((near, further), (far, home)):
                entries[1] += [
                    AcceptTunnel(TunnelAcceptance(tunnel.destination, address, Side.FROM_HOME_ADDRESS)),
                    InstallBinding(BindingEntry(address, Verdict.ENCAPSULATE, (tunnel,))),
                ]
            entries[2] += [
                AcceptTunnel(TunnelAcceptance(far.source, home, Side.TO_HOME_ADDRESS, "fore", home)),
                InstallOutbound(OutboundEntry(home, "fore", _tunnel(of_destination, FAR, turned=True))),
            ]
        for (space, plane), actions in zip(self.planes, entries, strict=True):
            with space.entered():
                plane.reconcile(actions)

    def rate(self, family: int, seconds: int) -> float:
        """One TCP stream from source to destination, in Gbit/s of payload that arrived."""
        home, further = HOMES[family]
        command = (
            "iperf3",
            "-J",
            "-c",
            str(home),
            "-B",
            str(further),
            "-M",
            str(SEGMENT),
            "-t",
            str(seconds),
        )
        answer = json.loads(self.over.source.run(*command, timeout=seconds + 60))
        return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def _address(over: Chain) -> None:
    """Add home addresses, IPv6 and the ways between them to the chain."""
    for space, device, address in (
        (over.source, "lo", "198.19.0.2/32"),
        (over.source, "lo", "fd09::2/128"),
        (over.source, "fore", "fd01::2/64"),
        (over.encapsulator, "back", "fd01::1/64"),
        (over.encapsulator, "fore", "fd02::1/64"),
        (over.decapsulator, "back", "fd02::2/64"),
        (over.decapsulator, "fore", "fd03::1/64"),
        (over.destination, "back", "fd03::2/64"),
        (over.destination, "lo", "fd09::1/128"),
    ):
        space.ip(f"addr add {address} dev {device}{' nodad' if ':' in address else ''}")
    over.source.ip("-6 route add default via fd01::1")
    over.decapsulator.ip("-6 route add default via fd02::1")
    over.destination.ip("-6 route add default via fd03::1 src fd09::1")
    hardware = over.destination.ip("-o link show dev back").split("link/ether ")[1].split()[0]
    for home in (HOMES[4][0], HOMES[6][0]):
        over.decapsulator.ip(f"neigh replace {home} lladdr {hardware} dev fore nud permanent")


@contextlib.contextmanager
def roaming() -> Iterator[Roaming]:
    """The chain with its data planes, and an iperf3 server at the destination."""
    with contextlib.ExitStack() as stack:
        over = stack.enter_context(chain())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        pins = stack.enter_context(bpf_filesystem(folder / "bpf"))
        _address(over)
        planes = []
        for space, name, links in (
            (over.source, "source", ("fore",)),
            (over.encapsulator, "encapsulator", ("back", "fore")),
            (over.decapsulator, "decapsulator", ("back", "fore")),
        ):
            with space.entered():
                plane = DataPlane.open(
                    f"bench-{name}", links, bpf_root=pins, forwarding=space is not over.source
                )
            stack.callback(_remove, space, plane)
            planes.append((space, plane))
        server = over.destination.start("iperf3", "-s", output=subprocess.DEVNULL, errors=subprocess.DEVNULL)
        stack.callback(stop, server)
        yield Roaming(over, tuple(planes))


def _remove(space: Namespace, plane: DataPlane) -> None:
    with space.entered():
        plane.remove()


def _text(shape: Shape) -> str:
    return f"{shape[0].name}/IPv{shape[1]}"


def _survey(road: Roaming, family: int, seconds: int) -> dict[tuple[Shape, Shape], float]:
    """Each pair's rate over the lesser of its two like pairs', which are sampled beside it."""
    ratios = {}
    for place, one in enumerate(SHAPES):
        for other in SHAPES[place + 1 :]:
            pairs = ((one, one), (one, other), (other, one), (other, other))
            rates = []
            for pair in pairs:
                road.use(*pair)
                rates.append(road.rate(family, seconds))
            like = min(rates[0], rates[3])
            ratios[one, other], ratios[other, one] = rates[1] / like, rates[2] / like
    return ratios


def _tried_again(road: Roaming, family: int, pair: tuple[Shape, Shape]) -> float:
    """The median of its ratio to the slower of its two like pairs, each sampled in turn with them."""
    ratios = []
    for _ in range(TRIES):
        rates = []
        for sampled in (pair, (pair[0], pair[0]), (pair[1], pair[1])):
            road.use(*sampled)
            rates.append(road.rate(family, 1))
        ratios.append(rates[0] / min(rates[1:]))
    return median(ratios)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row of NAMES, if it is wanted."""
    if not set(NAMES) & set(wanted):
        return []
    with roaming() as road:
        surveys = {family: _survey(road, family, 1) for family in HOMES}
        places = [(family, pair) for family, ratios in surveys.items() for pair in ratios]
        places.sort(key=lambda place: surveys[place[0]][place[1]])
        again = {place: _tried_again(road, *place) for place in places[:DOUBTFUL]}
        family, worst = min(again, key=lambda place: again[place])

        def along(pair: tuple[Shape, Shape]) -> float:
            road.use(*pair)
            return road.rate(family, settings.seconds)

        values, first, second = in_turns(
            settings.rounds,
            lambda: along(worst),
            lambda: along((worst[0], worst[0])),
            lambda: along((worst[1], worst[1])),
        )
    baselines = first if median(first) < median(second) else second
    ratios = sorted(ratio for found in surveys.values() for ratio in found.values())
    notes = (
        f"worst of 60 pairs: {_text(worst[0])} to {_text(worst[1])}, IPv{family} inside; the {DOUBTFUL} least were tried again: "
        f"{quantity(min(again.values()))} to {quantity(max(again.values()))} (medians of {TRIES})",
        f"all pairs in one sample each: median {quantity(median(ratios))}, least {quantity(ratios[0])}, "
        f"greatest {quantity(ratios[-1])} of the slower of their two like pairs",
    )
    return [Measurement("tunnel_pairs", "Gbit/s", values, baselines, notes)]
