"""Packets of the comparison, given again to mutants: what the model said of each is known, so no model runs.

First a world is compared as in `test_comparison`. From then on a program agrees with the model if it does to the world's
packets the same as the program that agreed.
"""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from locum.dataplane import DataPlane, Limits
from locum.dataplane import plane as plane_module
from locum.dataplane.kernel.libbpf import ProgramRun, RingBuffer, pinned, update_link
from locum.dataplane.layout.maps import HELD, Outcome
from tests.dataplane.model.grammar import Grammar
from tests.dataplane.model.test_comparison import Comparison, compared_links
from tests.dataplane.mutants.programs import HOOKS, Programs

REMEMBERED = ("first_fragments", "translated", "translated_fragments", "told_paths", "held_shares")
"""Tables that programs write: empty before each replay."""
COUNTED = ("bindings", "acceptances", "outbound", "rule_count", "translations")
_WORD = 8  # bytes of an entry before its counters


@dataclass(frozen=True, slots=True)
class Given:
    """One packet, and where it is given to the programs."""

    hook: str
    frame: bytes
    ifindex: int
    entered: int
    mark: int


Seen: TypeAlias = tuple[object, ...]
"""All that the comparison compares of one packet."""
Counted: TypeAlias = dict[str, dict[bytes, tuple[int, ...]]]
"""Counters by table and key."""


@dataclass(slots=True)
class World:
    """A state, its packets, and what became of them."""

    number: int
    given: list[Given] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    mtus: bytes = b""
    """MTUs of the routes that answer for packets which are too big: the daemon makes more in each comparison."""
    counters: Counted = field(default_factory=dict)


class _Noting:
    """A program of which each run is noted."""

    def __init__(self, hook: str, run: ProgramRun, noted: list[tuple[Given, tuple[int, bytes]]]) -> None:
        self._hook, self._run, self._noted = hook, run, noted

    def run(
        self, frame: bytes, *, ifindex: int, ingress_ifindex: int, mark: int
    ) -> tuple[int, bytes, bytes, int]:
        result = self._run.run(frame, ifindex=ifindex, ingress_ifindex=ingress_ifindex, mark=mark)
        given = Given(self._hook, frame, ifindex, ingress_ifindex, mark)
        self._noted.append((given, (result[0], result[2][48:56])))
        return result


class Replay:
    """Worlds of a comparison on an open data plane. Made by `opened`."""

    def __init__(self, plane: DataPlane) -> None:
        self.plane = plane
        self._comparison = Comparison(plane, compared_links(plane))
        self.maps = plane._object.maps
        self.pins = plane._directory / "maps"
        self._tap = self._comparison.links["tap"]
        self._device_link = pinned(plane._directory / "links" / f"{plane.device}-egress")
        self._records: list[bytes] = []
        self._ring = RingBuffer(self.maps["held"].fd, self._take)
        self.own = {hook: plane._object.program(f"locum_{hook}") for hook in HOOKS}
        self._worlds: dict[int, World] = {}
        self._prepared: int | None = None
        self._sources: list[tuple[bytes, bytes]] = []

    def _take(self, record: bytes) -> bool:
        self._records.append(record)
        return True

    def prepare(self, number: int) -> World:
        """Bring the data plane into this world; the first time the comparison with the model is made."""
        if number not in self._worlds:
            self._worlds[number] = self._compared(number)
        elif self._prepared != number:
            self._comparison.prepare(Grammar(number))
        self._prepared = number
        self._sources = self.maps["tunnel_sources"].items()
        world = self._worlds[number]
        if world.seen:
            self.maps["inner_mtus"].put(bytes(4), world.mtus)
        else:
            world.mtus = self.maps["inner_mtus"].get(bytes(4)) or b""
            self._note(world)
        return world

    def _compared(self, number: int) -> World:
        noted: list[tuple[Given, tuple[int, bytes]]] = []
        runs = self._comparison.runs
        self._comparison.runs = {hook: _Noting(hook, run, noted) for hook, run in runs.items()}  # type: ignore[misc]
        try:
            self._comparison.world(Grammar(number))
        finally:
            self._comparison.runs = runs
        self._ring.consume()
        return World(number, [given for given, _ in noted])

    def differs(self, programs: dict[str, int], world: World) -> bool:
        """True if these programs do something else to a packet of the world that was prepared last, or count another.

        They have to do so twice, at the same place: a machine under load must not kill a mutant.
        """
        place = self._difference(programs, world)
        return place is not None and self._difference(programs, world) == place

    def _note(self, world: World) -> None:
        """Give all packets to the programs that agreed with the model, and note the results."""
        with self._running(self.own) as runs:
            before = self._counted()
            world.seen = [self._seen(runs, given) for given in world.given]
            world.counters = _grown(before, self._counted())

    def _difference(self, programs: dict[str, int], world: World) -> int | None:
        """Place of the first packet that becomes something else; -1: only counters differ; None: nothing does."""
        with self._running(programs) as runs:
            before = self._counted()
            for place, (given, wanted) in enumerate(zip(world.given, world.seen, strict=True)):
                if self._seen(runs, given) != wanted:
                    return place
            return None if _grown(before, self._counted()) == world.counters else -1

    @contextmanager
    def _running(self, programs: dict[str, int]) -> Iterator[dict[str, ProgramRun]]:
        """Test runs of these programs, which copies of packets meet as well."""
        self._forget()
        update_link(self._device_link, programs["egress"])
        try:
            yield {hook: ProgramRun(programs[hook]) for hook in HOOKS}
        finally:
            update_link(self._device_link, self.own["egress"])

    def _seen(self, runs: dict[str, ProgramRun], given: Given) -> Seen:
        retval, out, context, _ = runs[given.hook].run(
            given.frame, ifindex=given.ifindex, ingress_ifindex=given.entered, mark=given.mark
        )
        copies = self._comparison.left()
        if given.ifindex == self._tap and given.frame[0] & 1:
            copies = []  # as in the comparison
        self._records.clear()
        self._ring.consume()
        outcome = context[48:52]
        held: tuple[bytes, ...] = ()
        if outcome[0] == Outcome.HELD:
            held = tuple(_of_record(record) for record in self._records)
            return retval, outcome, context[52:56], copies, held
        if outcome[0] == Outcome.DROPPED:
            return retval, outcome, context[52:56], copies
        return retval, outcome, context[52:56], copies, out, context[8:12]

    def _forget(self) -> None:
        for name in REMEMBERED:
            table = self.maps[name]
            table.delete_many([key for key, _ in table.items()])
        self.maps["tunnel_sources"].put_many(self._sources)
        self._comparison.left()
        self._ring.consume()

    def _counted(self) -> Counted:
        found = {
            name: {key: _numbers(value[_WORD:]) for key, value in self.maps[name].items()} for name in COUNTED
        }
        reasons = self.maps["reasons"]
        numbers = (struct.pack("I", number) for number in range(reasons.max_entries))
        found["reasons"] = {key: (reasons.sum_per_cpu(key),) for key in numbers}
        return found

    def close(self) -> None:
        self._ring.close()


def _numbers(value: bytes) -> tuple[int, ...]:
    return struct.unpack(f"{len(value) // 8}Q", value)


def _grown(before: Counted, after: Counted) -> Counted:
    """The counters that grew, and by how much. Entries without a word may be deleted meanwhile."""
    found: Counted = {}
    for table, entries in after.items():
        for key, values in entries.items():
            earlier = before[table].get(key, (0,) * len(values))
            if values != earlier:
                found.setdefault(table, {})[key] = tuple(b - a for a, b in zip(earlier, values, strict=True))
    return found


def _of_record(record: bytes) -> bytes:
    """The compared parts of a held packet: its flow, its bytes, the reason, and the rule."""
    key, _time, length, _gso_size, _ifindex, reason, rule = HELD.unpack_from(record)
    return bytes(key) + bytes((reason,)) + int(rule).to_bytes(2) + record[HELD.size : HELD.size + length]


@contextmanager
def opened(root: Path, built_object: Path) -> Iterator[Replay]:
    """A replay with the programs of this object, which are no mutants, in the namespace of the caller."""
    installed, plane_module.OBJECT = plane_module.OBJECT, built_object
    try:
        plane = DataPlane.open("cmp", [], bpf_root=root, limits=Limits(bindings=4096, flows=4096))
    finally:
        plane_module.OBJECT = installed
    try:
        replay = Replay(plane)
        try:
            yield replay
        finally:
            replay.close()
    finally:
        plane.remove()


def survivors(
    replay: Replay, batches: Sequence[tuple[Programs, Sequence[int]]], worlds: int
) -> Iterator[tuple[Programs, int]]:
    """Those numbers of each batch that differ in none of the worlds. Raises RuntimeError if the programs without a mutant do."""
    left = [(programs, number) for programs, numbers in batches for number in numbers]
    for place in range(worlds):
        if not left:
            return
        world = replay.prepare(place)
        if replay.differs(replay.own, world):
            raise RuntimeError(f"world {place} is not the same as before")
        for programs, numbers in batches if not place else ():
            if len(numbers) == 1:
                continue  # it may be this mutant whatever is chosen
            programs.choose(0)
            if replay.differs(programs.fds, world):
                raise RuntimeError("a program differs although it has no mutant")
        still = []
        for programs, number in left:
            programs.choose(number)
            if not replay.differs(programs.fds, world):
                still.append((programs, number))
        left = still
    yield from left
