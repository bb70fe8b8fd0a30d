"""Throughput through Locum's data plane, plain kernel forwarding and kernel VXLAN, on one chain, in turns.

TCP is one iperf3 stream. UDP is a flood of 64-byte frames: the encapsulator's receive side is steered to the last processor and the sender
stays on the first, whose socket's send buffer holds it back; so the forwarding processor is the bottleneck, and what arrives is
counted by the destination's interface. In front of its frames is the room that network cards' drivers leave.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from statistics import median

from bench.chain import COMPARISON_MTU, HOME_ADDRESS, SOURCE, Carrier, Chain, chain
from bench.measurement import Measurement, Settings, in_turns, spread
from bench.namespaces import CommandFailed, bpf_filesystem, stop
from bench.quiet import last_processor
from bench.report import quantity

NAMES = ("tunnel_tcp", "tunnel_udp64", "tunnel_tcp_vxlan")
_LAST = (os.cpu_count() or 1) - 1
"""The last processor: receives TCP, forwards small packets."""
_WARM_UP = 0.5
"""Seconds at the beginning of a flood that do not count; iperf3 omits one second."""


class Road:
    """The chain under one carrier at a time; `use` changes it, starting and stopping our data plane."""

    def __init__(self, over: Chain, pins: Path) -> None:
        self._chain = over
        self._pins = pins
        self._forwarders: list[subprocess.Popen[str]] = []

    def use(self, carrier: Carrier) -> None:
        """Carry everything by `carrier` from now on; returns when packets cross. Raises CommandFailed."""
        self.clear()
        self._chain.carry(carrier)
        if carrier is Carrier.LOCUM:
            ends = {"encapsulator": self._chain.encapsulator, "decapsulator": self._chain.decapsulator}
            for role, space in ends.items():
                command = (sys.executable, "-m", "bench.forwarder", role, str(self._pins))
                self._forwarders.append(space.start(*command))
            for role, process in zip(ends, self._forwarders, strict=True):
                if process.stdout is None or process.stdout.readline() != "ready\n":
                    raise CommandFailed(f"the data plane at the {role} did not start")
        self._chain.wait_until_open()

    def clear(self) -> list[dict[str, int]]:
        """Take our data plane away; its counters, of encapsulator and decapsulator."""
        counters = []
        for process in self._forwarders:
            output, _ = process.communicate(timeout=20)
            counters.append(json.loads(output))
        self._forwarders.clear()
        return counters

    def abandon(self) -> None:
        """After an error: end the running processes."""
        for process in self._forwarders:
            stop(process)


def tcp(over: Chain, seconds: int) -> float:
    """One TCP stream from source to destination, in Gbit/s of payload that arrived; its ends on two processors."""
    command = ("iperf3", "-c", str(HOME_ADDRESS), "-J", "-t", str(seconds), "-O", "1", "-A", f"0,{_LAST}")
    answer = json.loads(over.source.run(*command, timeout=seconds + 30))
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def udp64(over: Chain, seconds: float) -> tuple[float, float]:
    """64-byte frames that arrive, in thousands per second, while the source floods; and the last processor's load."""
    gateway = over.encapsulator.ip("-o link show dev back").split("link/ether ")[1].split()[0]
    with contextlib.ExitStack() as stack:
        stack.enter_context(over.driver_headroom())
        sender = over.source.start(
            "taskset",
            "-c",
            "0",
            sys.executable,
            "-m",
            "bench.flood",
            "fore",
            gateway,
            str(SOURCE),
            str(HOME_ADDRESS),
        )
        stack.callback(stop, sender)
        if sender.stdout is None or sender.stdout.readline() != "ready\n":
            raise CommandFailed("the sender of small packets did not start")
        time.sleep(_WARM_UP)
        begin, before, used = time.monotonic(), over.received(), last_processor()
        time.sleep(seconds)
        after, end, used_then = over.received(), time.monotonic(), last_processor()
        sender.communicate(timeout=10)
    return (after - before) / (end - begin) / 1e3, (used_then - used) / (end - begin)


@contextlib.contextmanager
def _prepared() -> Iterator[tuple[Chain, Road]]:
    """The chain with an iperf3 server, small packets discarded on arrival, and forwarding on a processor of its own."""
    with contextlib.ExitStack() as stack:
        over = stack.enter_context(chain())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        pins = stack.enter_context(bpf_filesystem(folder / "bpf"))
        over.destination.run(
            "nft", "add table ip b; add chain ip b c { type filter hook prerouting priority raw; }"
        )
        over.destination.run("nft", "add rule ip b c udp dport 9 drop")
        stack.callback(
            stop, over.destination.start("iperf3", "-s", output=subprocess.DEVNULL, errors=subprocess.DEVNULL)
        )
        road = Road(over, pins)
        stack.callback(road.abandon)
        yield over, road


def _steer(over: Chain, mask: int) -> None:
    """Receive packet steering at the encapsulator; 0 switches it off. `ip netns exec` shows the namespace's own /sys."""
    name = over.encapsulator.name
    line = f"echo {mask:x} > /sys/class/net/back/queues/rx-0/rps_cpus"
    subprocess.run(("ip", "netns", "exec", name, "sh", "-c", line), check=True)


def _compare_tcp(over: Chain, road: Road, settings: Settings) -> list[Measurement]:
    def along(carrier: Carrier) -> Callable[[], float]:
        def sample() -> float:
            road.use(carrier)
            return tcp(over, settings.seconds)

        return sample

    plain, ours, vxlan = in_turns(
        settings.rounds, along(Carrier.PLAIN), along(Carrier.LOCUM), along(Carrier.VXLAN)
    )
    over.core_mtu(1500)
    narrow_plain, narrow = in_turns(max(1, settings.rounds // 2), along(Carrier.PLAIN), along(Carrier.LOCUM))
    over.core_mtu(COMPARISON_MTU)
    notes = (
        f"one TCP stream, core MTU {COMPARISON_MTU}, all other links 1500; IP-in-IP both ways (reverse tunnel)",
        f"core MTU 1500: {quantity(median(narrow))} Gbit/s, plain {quantity(median(narrow_plain))}, "
        f"ratio {quantity(median(narrow) / median(narrow_plain))} (median of {len(narrow)})",
    )
    return [
        Measurement("tunnel_tcp", "Gbit/s", ours, plain, notes),
        Measurement("tunnel_tcp_vxlan", "Gbit/s", ours, vxlan, notes[:1]),
    ]


def _compare_udp(over: Chain, road: Road, settings: Settings) -> Measurement:
    shares: dict[Carrier, list[float]] = {carrier: [] for carrier in Carrier}

    def along(carrier: Carrier) -> Callable[[], float]:
        def sample() -> float:
            road.use(carrier)
            rate, share = udp64(over, settings.seconds)
            shares[carrier].append(share)
            return rate

        return sample

    _steer(over, 1 << _LAST if _LAST else 0)
    plain, ours, vxlan = in_turns(
        settings.rounds, along(Carrier.PLAIN), along(Carrier.LOCUM), along(Carrier.VXLAN)
    )
    _steer(over, 0)
    notes = (
        f"64-byte Ethernet frames, core MTU {COMPARISON_MTU}; forwarding of all four hosts on processor {_LAST}, "
        f"sender on processor 0; its frames have the headroom of a network card's driver",
        f"forwarding processor in use: plain {median(shares[Carrier.PLAIN]):.0%}, "
        f"Locum {median(shares[Carrier.LOCUM]):.0%}",
        f"kernel VXLAN on the same chain: {quantity(median(vxlan))} kpps ±{spread(vxlan):.0%}",
    )
    return Measurement("tunnel_udp64", "kpps", ours, plain, notes)


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows among NAMES that are wanted."""
    rows: list[Measurement] = []
    with _prepared() as (over, road):
        if {"tunnel_tcp", "tunnel_tcp_vxlan"} & set(wanted):
            rows += _compare_tcp(over, road, settings)
        if "tunnel_udp64" in wanted:
            rows.append(_compare_udp(over, road, settings))
        road.clear()
    return [measured for measured in rows if measured.name in wanted]
