"""Packets to one home address while the tables change: how many met another home address's entry, or none.

Only benchmarks and tests use it. The packets run in the kernel, many for one call, on a thread of their own; entries of other
home addresses lead to where no route is, so that the drops of that reason are the wrong deliveries.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from locum.dataplane.kernel.entries import Entries, open_entries
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.kernel.loading import Object
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.layout import entries, maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.maps import Reason
from locum.dataplane.limits import Limits
from locum.dataplane.measure import CARE_OF, FIRST_HOME, HOME_AGENT, private_network, udp_frame
from locum.dataplane.plane import OBJECT
from locum.roles.action_values.flows import Candidate, Rule, RuleVerdict, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, Verdict
from locum.wire.traffic_selector import Ipv4Selector

OTHERS = 100
CHANGES = 2000
"""At once; fewer of large values."""
NOWHERE = IPv4Address("10.99.0.1")
AT_ONCE = 20_000
"""Packets of one call."""
PORT = 5000
"""Of the packets of `udp_frame`."""


@dataclass(frozen=True, slots=True)
class Stress:
    """Numbers of packets, and of changes of entries meanwhile. `wrong` went by another home address's entry, `missed` by none."""

    packets: int
    wrong: int
    missed: int
    changes: int
    seconds: float


class Changing:
    """A thread that changes entries of one table until it is told to stop: that of the packets' home address each second time.

    It writes packed values, many at once, and removes others' entries: so elements that are given up are wanted at once.
    """

    def __init__(
        self, table: Entries, home: IPv4Address, right: Sequence[bytes], wrong: Sequence[bytes]
    ) -> None:
        self._table = table
        self._others = [maps.address(home + 1 + place) for place in range(OTHERS)]
        self._entries: list[tuple[bytes, bytes]] = []
        for place in range(0, CHANGES // (1 + len(right[0]) // 256), 2):
            self._entries.append((maps.address(home), right[place // 2 % len(right)]))
            self._entries.append((self._others[place // 2 % OTHERS], wrong[place // 2 % len(wrong)]))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.changes = 0
        self.failure: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                self._table.put_many(self._entries)
                self._table.delete_many(self._others)
                self.changes += len(self._entries) + OTHERS
        except Exception as error:  # raised again where it is looked for
            self.failure = error


def _entry(home: IPv4Address, tunnel: Tunnel, rules: int) -> BindingEntry:
    ways = (Candidate(tunnel),)
    ports = (*range(1, rules), PORT) if rules else ()
    return BindingEntry(
        home,
        Verdict.ENCAPSULATE,
        (tunnel,),
        rules=tuple(
            Rule(place + 1, Ipv4Selector(destination_port=(port, port)), RuleVerdict.FORWARD, ways)
            for place, port in enumerate(ports)
        ),
    )


def _packed(entry: BindingEntry) -> bytes:
    """The value that decides where the packets go: the rules, or the binding."""
    return rule_layout.rules(entry.rules)[0] if entry.rules else maps.binding(entry)


def stress(packets: int, *, rules: int = 0) -> Stress:
    """Send so many packets to one home address while it and others change. Raises DataPlaneError."""
    loaded = Object(OBJECT, Limits(bindings=1024).sizes(), None, programs=("locum_measure", entries.PROGRAM))
    try:
        with private_network():
            found = open_entries(loaded)
            tables = Tables(found, loaded.maps, lambda link: None, lambda place, used: None)
            home = IPv4Address(FIRST_HOME)
            right = [_entry(home, Tunnel(HOME_AGENT + way, CARE_OF), rules) for way in range(50)]
            wrong = [_entry(home, Tunnel(HOME_AGENT, NOWHERE + way), rules) for way in range(50)]
            tables.install_bindings(right[:1])
            run = ProgramRun(loaded.program("locum_measure"))
            frame = udp_frame(home)
            table = found["rules" if rules else "bindings"]
            sent = 0
            start = time.monotonic()
            with Changing(table, home, [*map(_packed, right)], [*map(_packed, wrong)]) as changing:
                while sent < packets:
                    run.run(frame, repeat=AT_ONCE)
                    sent += AT_ONCE
            if changing.failure is not None:
                raise changing.failure
            wrong_ones = tables.reason_counts()[Reason.NO_ROUTE.label]
            went = tables.binding_counter(home).packets
            seconds = time.monotonic() - start
            return Stress(sent, wrong_ones, sent - wrong_ones - went, changing.changes, seconds)
    finally:
        loaded.close()
