"""What one packet costs: BPF_PROG_TEST_RUN over a table of many bindings. For benchmarks; nothing else uses it.

It makes a network namespace of its own for the route of the outer packet, and changes nothing outside.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median

from pyroute2 import IPRoute

from locum.dataplane import maps
from locum.dataplane.kernel import OBJECT, Limits
from locum.dataplane.libbpf import DataPlaneError, Object, ProgramRun
from locum.roles.actions import BindingEntry, Tunnel, Verdict

CLONE_NEWNET = 0x40000000
HOME_AGENT, CARE_OF = IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2")
FIRST_HOME = int(IPv4Address("11.0.0.0"))
CHUNK = 65536
TC_ACT_REDIRECT = 7


@dataclass(frozen=True, slots=True)
class Measurement:
    """Nanoseconds of one packet, by number of bindings: `hit` is encapsulated, `miss` has no binding."""

    bindings: int
    hit: float
    miss: float


@contextmanager
def private_network() -> Iterator[None]:
    """This thread in a new network namespace with a route to the care-of address."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a new network namespace")
    try:
        with IPRoute() as route:
            route.link("set", index=1, state="up")
            route.link("add", ifname="m0", kind="veth", peer={"ifname": "m1"})
            for name in ("m0", "m1"):
                route.link("set", index=route.link_lookup(ifname=name)[0], state="up")
            index = route.link_lookup(ifname="m0")[0]
            route.addr("add", index=index, address=str(HOME_AGENT), prefixlen=24)
            route.neigh("add", dst=str(CARE_OF), lladdr="02:00:00:00:00:02", ifindex=index)
        Path("/proc/sys/net/ipv4/conf/lo/forwarding").write_text("1")
        yield
    finally:
        libc.setns(before, 0)
        os.close(before)


def fill(loaded: Object, number: int) -> None:
    """Put `number` bindings, with their counters, into the tables."""
    tunnel = Tunnel(HOME_AGENT, CARE_OF)
    value = maps.binding(BindingEntry(HOME_AGENT, Verdict.ENCAPSULATE, (tunnel,)), flows=False)
    zero = maps.COUNTER.pack(0, 0)
    for start in range(0, number, CHUNK):
        keys = [maps.address(IPv4Address(FIRST_HOME + i)) for i in range(start, min(start + CHUNK, number))]
        loaded.maps["binding_count"].put_many([(key, zero) for key in keys])
        loaded.maps["bindings"].put_many([(key, value) for key in keys])


def udp_frame(destination: IPv4Address, payload: int = 64) -> bytes:
    """An Ethernet frame with a UDP packet of 10.1.0.2 to `destination`."""
    length = 28 + payload
    head = bytes((0x45, 0)) + length.to_bytes(2, "big") + b"\x00\x00\x40\x00\x40\x11\x00\x00"
    head += bytes((10, 1, 0, 2)) + destination.packed
    return (
        bytes(12)
        + b"\x08\x00"
        + head
        + b"\x13\x88\x13\x88"
        + (8 + payload).to_bytes(2, "big")
        + bytes(2 + payload)
    )


class Bench:
    """Programs loaded beside any running node, with `bindings` entries. Use within `private_network`."""

    def __init__(self, bindings: int) -> None:
        self.bindings = bindings
        self._loaded = Object(
            OBJECT, Limits(bindings=max(bindings, 1024)).sizes(), None, programs=("locum_measure",)
        )
        fill(self._loaded, bindings)
        self._run = ProgramRun(self._loaded.program("locum_measure"))

    def nanoseconds(self, packet: bytes, *, repeat: int = 200_000, rounds: int = 5) -> float:
        """Median over `rounds` of the mean over `repeat` runs."""
        return median(self._run.run(packet, repeat=repeat)[3] for _ in range(rounds))

    def encapsulates(self, packet: bytes) -> bool:
        """Does the program send this packet into a tunnel? A measurement of anything else would be worthless."""
        return self._run.run(packet)[0] == TC_ACT_REDIRECT

    def measure(self, *, spread: int = 64) -> Measurement:
        """Cost with destinations spread over the table, so that not one entry alone is in the cache."""
        step = max(self.bindings // spread, 1)
        homes = [IPv4Address(FIRST_HOME + i) for i in range(0, self.bindings, step)][:spread]
        if not all(self.encapsulates(udp_frame(home)) for home in homes):
            raise DataPlaneError("the measured program does not encapsulate: no route to the care-of address")
        hits = [self.nanoseconds(udp_frame(home), repeat=20_000, rounds=3) for home in homes]
        miss = self.nanoseconds(udp_frame(IPv4Address("12.0.0.1")))
        return Measurement(self.bindings, median(hits), miss)

    def close(self) -> None:
        self._loaded.close()


def measure_bindings(numbers: list[int]) -> list[Measurement]:
    """One measurement for each number of bindings, in the same run. Needs root."""
    found = []
    with private_network():
        for number in numbers:
            bench = Bench(number)
            try:
                found.append(bench.measure())
            finally:
                bench.close()
    return found
