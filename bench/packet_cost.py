"""Cost of one packet in the forwarding program, by BPF_PROG_TEST_RUN, with many bindings and with one.

The value is the time of a packet among others to the same binding: test runs repeated in the kernel, for bindings drawn at random from the
table. The program `locum_measure` takes the tunnel's header off again after each run, or there would be no second; its figure
includes that. The note has the other extreme: the real ingress program, every packet to another binding than the one before, so
that each meets its table entries outside the processor's caches.
"""

import contextlib
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from statistics import mean, median

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed
from bench.report import quantity
from locum.dataplane.kernel.libbpf import DataPlaneError, ProgramRun
from locum.dataplane.kernel.loading import Object
from locum.dataplane.layout.entries import PROGRAM as CHANGES
from locum.dataplane.limits import Limits
from locum.dataplane.measure import FIRST_HOME, TC_ACT_REDIRECT, fill, private_network, udp_frame
from locum.dataplane.plane import OBJECT

_SIZES = {"packet_cost_1k": 1_000, "packet_cost_1m": 1_000_000}
_PROGRAMS = ("locum_measure", "locum_ingress")
_PAYLOAD = 18
"""Bytes of UDP payload that make a frame of 64 bytes with its check sequence."""
_REPEAT = 5_000
"""Runs of one packet in the kernel: long enough that the timer's own cost vanishes."""
_DRAWN, _DRAWN_SCATTERED = 12, 4_000
"""Bindings drawn for one sample."""


@dataclass(slots=True)
class Loaded:
    """The programs with `size` bindings, and packets to bindings drawn at random."""

    size: int
    measured: ProgramRun
    ingress: ProgramRun
    dice: random.Random

    def _packets(self, number: int) -> list[bytes]:
        homes = (IPv4Address(FIRST_HOME + self.dice.randrange(self.size)) for _ in range(number))
        return [udp_frame(home, _PAYLOAD) for home in homes]

    def repeated(self) -> float:
        """Nanoseconds of a packet among others to the same binding."""
        return mean(self._time(self.measured, packet, _REPEAT) for packet in self._packets(_DRAWN))

    def scattered(self) -> float:
        """Nanoseconds of a packet to another binding than the one before; with the kernel's timer, some 60."""
        packets = self._packets(_DRAWN_SCATTERED)
        return median(self._time(self.ingress, packet, 1) for packet in packets)

    @staticmethod
    def _time(run: ProgramRun, packet: bytes, repeat: int) -> int:
        verdict, _, _, nanoseconds = run.run(packet, repeat=repeat)
        if verdict != TC_ACT_REDIRECT:
            raise CommandFailed(f"the program did not encapsulate the packet but returned {verdict}")
        return nanoseconds


@contextlib.contextmanager
def _loaded(sizes: Collection[int]) -> Iterator[list[Loaded]]:
    """The programs once for each size, in a namespace where the tunnels have a route."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(private_network())
        tables = []
        for size in sizes:
            loaded = Object(
                OBJECT, Limits(bindings=max(size, 1024)).sizes(), None, programs=(*_PROGRAMS, CHANGES)
            )
            stack.callback(loaded.close)
            fill(loaded, size)
            measured, ingress = (ProgramRun(loaded.program(name)) for name in _PROGRAMS)
            tables.append(Loaded(size, measured, ingress, random.Random(size)))
        yield tables


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of _SIZES that are wanted. Raises CommandFailed."""
    sizes = {name: max(int(size * settings.scale), 2) for name, size in _SIZES.items() if name in wanted}
    try:
        with _loaded([1, *sizes.values()]) as tables:
            alone, *repeated = in_turns(settings.short_rounds, *(table.repeated for table in tables))
            lone, *scattered = in_turns(settings.rounds, *(table.scattered for table in tables))
    except DataPlaneError as error:
        raise CommandFailed(str(error)) from error
    rows = []
    for (name, size), values, far in zip(sizes.items(), repeated, scattered, strict=True):
        note = (
            f"{size:,} bindings, 64-byte frames; with every packet to another binding, outside the caches, "
            f"{quantity(median(far))} ns against {quantity(median(lone))} with one binding "
            f"(ratio {quantity(median(far) / median(lone))})"
        )
        rows.append(Measurement(name, "ns", values, alone, (note,)))
    return rows
