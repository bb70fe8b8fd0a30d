"""Flow rules: cost per packet, time to change them, and accuracy of sharing by weight.

The cost is measured as in `bench.packet_cost`, by test runs repeated in the kernel, with one binding whose rules are passed until the first
or the last one takes the packet; the baseline is one rule. Rules that do not match differ from those that do in the source address only,
which is compared late. Changes go through `DataPlane.apply`, one rule of eight at a time; the baseline is the bare write of the same bytes.
Flows of the weight split go through the real ingress program, each once; the value is how far off the worst share is.
"""

import contextlib
import struct
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address
from itertools import cycle
from pathlib import Path

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed, bpf_filesystem
from locum.dataplane.kernel.entries import open_entries
from locum.dataplane.kernel.libbpf import DataPlaneError, ProgramRun
from locum.dataplane.kernel.loading import Object
from locum.dataplane.kernel.tables import Tables
from locum.dataplane.layout import maps
from locum.dataplane.layout import rules as rule_layout
from locum.dataplane.layout.entries import PROGRAM as CHANGES
from locum.dataplane.limits import Limits
from locum.dataplane.measure import (
    CARE_OF,
    FIRST_HOME,
    HOME_AGENT,
    TC_ACT_REDIRECT,
    private_network,
    udp_frame,
)
from locum.dataplane.plane import OBJECT, DataPlane
from locum.roles.action_values.flows import Candidate, Rule, RuleVerdict, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, Verdict
from locum.wire.traffic_selector import Ipv4Selector, Range

_COSTS = {
    "packet_cost_rules_1": (1, "first"),
    "packet_cost_rules_8_first": (8, "first"),
    "packet_cost_rules_8_last": (8, "last"),
    "packet_cost_rules_64_first": (64, "first"),
    "packet_cost_rules_64_last": (64, "last"),
}
_CHANGES, _SPLIT = "rule_changes", "weight_split"
_HOME = IPv4Address(FIRST_HOME)
_UDP, _PORT = 17, 5000  # of `udp_frame`, both of its ports
_REPEAT, _RUNS = 5_000, 20
_PAYLOAD = 18
_CHANGED, _HOMES, _RULES = 4_000, 500, 8
_FLOWS = 10_000
_OUTCOME = 48  # offset of cb in struct __sk_buff
_ADDRESSES = 14  # offset of the IPv4 header
_ASKED = (1, 2, 3, 4)  # weights of four care-of addresses


def _rule(
    identifier: int, source: str, candidates: tuple[Candidate, ...], port: Range = (_PORT, _PORT)
) -> Rule:
    address = IPv4Address(source)
    selector = Ipv4Selector(
        source=(address, IPv4Address(int(address) | 0xFF)), protocol=(_UDP, _UDP), destination_port=port
    )
    return Rule(identifier, selector, RuleVerdict.FORWARD, candidates)


def _ruled(number: int, place: str) -> BindingEntry:
    """A binding with this many rules, of which the first or the last one takes the packet."""
    ways = (Candidate(Tunnel(HOME_AGENT, CARE_OF)),)
    rules = [_rule(index, f"10.50.{index}.0", ways) for index in range(2, number + 1)]
    matching = _rule(1, "10.1.0.0", ways)
    rules = [matching, *rules] if place == "first" else [*rules, matching]
    return BindingEntry(_HOME, Verdict.DROP, rules=tuple(rules))


@contextlib.contextmanager
def loaded_with(entry: BindingEntry, program: str) -> Iterator[ProgramRun]:
    loaded = Object(OBJECT, Limits(bindings=1024).sizes(), None, programs=(program, CHANGES))
    try:
        tables = Tables(open_entries(loaded), loaded.maps, lambda link: None, lambda place, used: None)
        tables.install_bindings([entry])
        yield ProgramRun(loaded.program(program))
    finally:
        loaded.close()


def _check(verdict: int, context: bytes) -> None:
    if verdict != TC_ACT_REDIRECT:
        outcome, reason = struct.unpack_from("II", context, _OUTCOME)
        told = f"{maps.Outcome(outcome).name}, {maps.Reason(reason).name}"
        raise CommandFailed(f"the program did not encapsulate the packet but returned {verdict}: {told}")


def _cost(run: ProgramRun) -> float:
    """Nanoseconds of one packet."""
    packet, total = udp_frame(_HOME, _PAYLOAD), 0
    for _ in range(_RUNS):
        verdict, _, context, nanoseconds = run.run(packet, repeat=_REPEAT)
        _check(verdict, context)
        total += nanoseconds
    return total / _RUNS


def _costs(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    chosen = [name for name in _COSTS if name in wanted]
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(loaded_with(_ruled(*shape), "locum_measure"))
            for shape in ((1, "first"), *(_COSTS[name] for name in chosen))
        ]
        one, *others = in_turns(settings.rounds, *(lambda run=run: _cost(run) for run in runs))
    note = "one binding, 64-byte frames, against one rule that takes the packet"
    return [
        Measurement(name, "ns", values, one, (note,)) for name, values in zip(chosen, others, strict=True)
    ]


def _changing(number: int) -> list[InstallBinding]:
    """Changes of one rule of a binding each: the last rule of eight has another port than before."""
    ways = (Candidate(Tunnel(HOME_AGENT, CARE_OF)),)
    stay = [_rule(index, f"10.50.{index}.0", ways) for index in range(1, _RULES)]
    changes = []
    for index, home in zip(range(number), cycle(range(_HOMES)), strict=False):
        changed = _rule(_RULES, "10.1.0.0", ways, (index % 60_000, 0xFFFF))
        entry = BindingEntry(
            IPv4Address(FIRST_HOME + home), Verdict.ENCAPSULATE, (ways[0].tunnel,), rules=(*stay, changed)
        )
        changes.append(InstallBinding(entry))
    return changes


def _rate(number: int, seconds: float) -> float:
    return number / seconds if seconds else 0.0


def _applied(plane: DataPlane, changes: list[InstallBinding]) -> float:
    start = time.perf_counter()
    for change in changes:
        plane.apply((change,))
    return _rate(len(changes), time.perf_counter() - start)


def _written(plane: DataPlane, changes: list[InstallBinding]) -> float:
    """The same values, packed before, written to the same table."""
    table = plane._entries["rules"]
    values = [
        (maps.address(change.entry.home_address), rule_layout.rules(change.entry.rules)[0])
        for change in changes
    ]
    start = time.perf_counter()
    for key, value in values:
        table.put(key, value)
    return _rate(len(changes), time.perf_counter() - start)


def _rates(settings: Settings) -> Measurement:
    changes = _changing(max(int(_CHANGED * settings.scale), 100))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pins = stack.enter_context(bpf_filesystem(folder / "bpf"))
        plane = DataPlane.open("bench-rules", [], bpf_root=pins, limits=Limits(bindings=8192))
        stack.callback(plane.remove)
        applied, written = in_turns(
            settings.rounds, lambda: _applied(plane, changes), lambda: _written(plane, changes)
        )
    note = f"one rule of {_RULES} at a time, each as an action of its own, over {_HOMES} home addresses"
    return Measurement(_CHANGES, "1/s", applied, written, (note,))


def _split_entry() -> BindingEntry:
    first = int(CARE_OF)
    ways = tuple(
        Candidate(Tunnel(HOME_AGENT, IPv4Address(first + place)), weight)
        for place, weight in enumerate(_ASKED)
    )
    return BindingEntry(_HOME, Verdict.DROP, rules=(_rule(1, "10.1.0.0", ways, (0, 0xFFFF)),))


def _deviation(run: ProgramRun, first_port: int) -> float:
    """Percent of all flows by which the share of a care-of address is off, at most."""
    found: Counter[int] = Counter()
    frame = bytearray(udp_frame(_HOME, _PAYLOAD))
    for flow in range(_FLOWS):
        frame[_ADDRESSES + 20 : _ADDRESSES + 22] = (first_port + flow & 0xFFFF).to_bytes(2, "big")
        verdict, sent, context, _ = run.run(bytes(frame))
        _check(verdict, context)
        found[int.from_bytes(sent[_ADDRESSES + 16 : _ADDRESSES + 20], "big") - int(CARE_OF)] += 1
    shares = (found[place] / _FLOWS - weight / sum(_ASKED) for place, weight in enumerate(_ASKED))
    return 100 * max(abs(share) for share in shares)


def _split(settings: Settings) -> Measurement:
    ports = iter(range(1024, 1 << 30, 4999))  # other flows each time
    with loaded_with(_split_entry(), "locum_ingress") as run:
        (values,) = in_turns(settings.rounds, lambda: _deviation(run, next(ports)))
    asked = ":".join(str(weight) for weight in _ASKED)
    note = f"asked {asked}; {_FLOWS:,} flows that differ in one port; percent of all flows, the worst share"
    return Measurement(_SPLIT, "%", values, None, (note,))


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of _COSTS, rule_changes and weight_split that are wanted. Raises CommandFailed."""
    rows: list[Measurement] = []
    try:
        if any(name in wanted for name in _COSTS):
            with private_network():
                rows += _costs(settings, wanted)
        if _CHANGES in wanted:
            with private_network():  # of its own: the data plane takes back what it sets there
                rows.append(_rates(settings))
        if _SPLIT in wanted:
            with private_network():
                rows.append(_split(settings))
    except DataPlaneError as error:
        raise CommandFailed(str(error)) from error
    return rows
