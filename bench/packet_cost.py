"""What one packet costs in the forwarding program, by BPF_PROG_TEST_RUN, with a table of many bindings and with one.

The value is the time of a packet among others to the same binding: test runs repeated in the kernel, for bindings drawn at random from the
table. The program `locum_measure` takes the tunnel's header off again after each run, or there would be no second; its figure
includes that. The note has the other extreme: the real ingress program, every packet to another binding than the one before, so
that each meets its table entries outside the processor's caches.
"""

import contextlib
import random
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import mean, median

from bench.flood import frame
from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, join, namespaces
from bench.report import quantity
from locum.dataplane import maps
from locum.dataplane.build import OBJECTS
from locum.dataplane.libbpf import DataPlaneError, Object, ProgramRun
from locum.roles.actions import BindingEntry, Tunnel, Verdict

_SIZES = {"packet_cost_1k": 1_000, "packet_cost_1m": 1_000_000}
_FIRST_HOME_ADDRESS = IPv4Address("10.64.0.1")
_CARE_OF_ADDRESSES = 200
_TUNNEL_SOURCE = IPv4Address("198.18.2.1")
_CORRESPONDENT = IPv4Address("198.18.1.2")
_REDIRECTED = 7  # TC_ACT_REDIRECT
_REPEAT = 5_000
"""Runs of one packet in the kernel: long enough that the timer's own cost vanishes."""
_DRAWN, _DRAWN_COLD = 40, 4_000
"""Bindings drawn for one sample."""


@dataclass(slots=True)
class Loaded:
    """The programs with `size` bindings, and generators of packets to them."""

    size: int
    ifindex: int
    measured: ProgramRun
    ingress: ProgramRun
    dice: random.Random

    def _packets(self, number: int) -> Iterator[bytes]:
        for _ in range(number):
            home_address = _FIRST_HOME_ADDRESS + self.dice.randrange(self.size)
            yield frame(bytes(6), bytes(6), _CORRESPONDENT, home_address, 1024)

    def repeated(self) -> float:
        """Nanoseconds of a packet among others to the same binding."""
        return mean(self._time(self.measured, packet, _REPEAT) for packet in self._packets(_DRAWN))

    def scattered(self) -> float:
        """Nanoseconds of a packet to another binding than the one before; with the kernel's timer, some 60."""
        packets = list(self._packets(_DRAWN_COLD))
        return median(self._time(self.ingress, packet, 1) for packet in packets)

    def _time(self, run: ProgramRun, packet: bytes, repeat: int) -> int:
        verdict, _, _, nanoseconds = run.run(packet, ifindex=self.ifindex, repeat=repeat)
        if verdict != _REDIRECTED:
            raise CommandFailed(f"the program did not encapsulate the packet but returned {verdict}")
        return nanoseconds


def _fill(loaded: Object, size: int) -> None:
    """Bindings in a row from the first home address, spread over _CARE_OF_ADDRESSES."""
    values = []
    for number in range(_CARE_OF_ADDRESSES):
        tunnel = Tunnel(_TUNNEL_SOURCE, _TUNNEL_SOURCE + 1 + number)
        entry = BindingEntry(_FIRST_HOME_ADDRESS, Verdict.ENCAPSULATE, (tunnel,))
        values.append(maps.binding(entry, flows=False))
    keys = [maps.address(_FIRST_HOME_ADDRESS + number) for number in range(size)]
    loaded.maps["bindings"].put_many([(key, values[n % _CARE_OF_ADDRESSES]) for n, key in enumerate(keys)])
    counter = bytes(maps.COUNTER.size)
    loaded.maps["binding_count"].put_many([(key, counter) for key in keys])


@contextlib.contextmanager
def _loaded(sizes: Collection[int]) -> Iterator[list[Loaded]]:
    """The programs once for each size, in a namespace where the tunnels have a route."""
    with contextlib.ExitStack() as stack:
        space, beyond = stack.enter_context(namespaces("cost", "beyond"))
        join(space, "eth0", beyond, "eth0")
        space.ip(f"addr add {_TUNNEL_SOURCE}/16 dev eth0")
        space.sysctl({"ipv4.ip_forward": "1"})
        stack.enter_context(space.entered())
        tables = []
        for size in sizes:
            limits = {"bindings": size, "binding_count": size}
            loaded = Object(OBJECTS / "locum.bpf.o", limits, None)
            stack.callback(loaded.close)
            _fill(loaded, size)
            tables.append(
                Loaded(
                    size,
                    socket.if_nametoindex("eth0"),
                    ProgramRun(loaded.program("locum_measure")),
                    ProgramRun(loaded.program("locum_ingress")),
                    random.Random(size),
                )
            )
        yield tables


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of _SIZES that are wanted. Raises CommandFailed."""
    sizes = {name: max(int(size * settings.scale), 2) for name, size in _SIZES.items() if name in wanted}
    try:
        with _loaded([1, *sizes.values()]) as tables:
            ways: list[Callable[[], float]] = [table.repeated for table in tables]
            alone, *repeated = in_turns(settings.rounds, *ways)
            cold_alone, *scattered = in_turns(settings.rounds, *(table.scattered for table in tables))
    except DataPlaneError as error:
        raise CommandFailed(str(error)) from error
    rows = []
    for (name, size), values, cold in zip(sizes.items(), repeated, scattered, strict=True):
        note = (
            f"{size:,} bindings, 64-byte frames; with every packet to another binding, outside the caches, "
            f"{quantity(median(cold))} ns against {quantity(median(cold_alone))} with one binding "
            f"(ratio {quantity(median(cold) / median(cold_alone))})"
        )
        rows.append(Measurement(name, "ns", values, alone, (note,)))
    return rows
