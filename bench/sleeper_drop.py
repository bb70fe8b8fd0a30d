"""Cost of a packet to a sleeping device that none of its rules names: it is dropped. Beside it, a forwarded packet of an awake device.

By test runs in the kernel, as `bench.packet_cost`. The sleeper has eight rules that page, all of which are passed.
"""

from collections.abc import Collection
from functools import partial
from ipaddress import IPv4Address
from statistics import median

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed
from bench.report import quantity
from bench.rules import loaded_with
from locum.dataplane.kernel.libbpf import DataPlaneError, ProgramRun
from locum.dataplane.measure import (
    CARE_OF,
    FIRST_HOME,
    HOME_AGENT,
    TC_ACT_REDIRECT,
    private_network,
    udp_frame,
)
from locum.roles.action_values.flows import Rule, RuleVerdict, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, Verdict
from locum.wire.traffic_selector import Ipv4Selector

_HOME = IPv4Address(FIRST_HOME)
_RULES, _REPEAT, _RUNS, _ONCE = 8, 5_000, 20, 4_000
_TC_ACT_SHOT = 2
_PAYLOAD = 18


def _asleep() -> BindingEntry:
    rules = tuple(
        Rule(number, Ipv4Selector(protocol=(6, 6), destination_port=(22 + number,) * 2), RuleVerdict.PAGE)
        for number in range(1, _RULES + 1)
    )
    return BindingEntry(_HOME, Verdict.DROP, rules=rules)


def _awake() -> BindingEntry:
    return BindingEntry(_HOME, Verdict.ENCAPSULATE, (Tunnel(HOME_AGENT, CARE_OF),))


def _time(run: ProgramRun, wanted: int, repeat: int) -> float:
    verdict, _, _, nanoseconds = run.run(udp_frame(_HOME, _PAYLOAD), repeat=repeat)
    if verdict != wanted:
        raise CommandFailed(f"the program returned {verdict}, not {wanted}")
    return nanoseconds


def _repeated(run: ProgramRun, wanted: int) -> float:
    return sum(_time(run, wanted, _REPEAT) for _ in range(_RUNS)) / _RUNS


def _single(run: ProgramRun, wanted: int) -> float:
    return median(_time(run, wanted, 1) for _ in range(_ONCE))


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `sleeper_drop`. Raises CommandFailed."""
    figures = []
    try:
        for program, sample in (("locum_measure", _repeated), ("locum_ingress", _single)):
            with (
                private_network(),
                loaded_with(_asleep(), program) as asleep,
                loaded_with(_awake(), program) as awake,
            ):
                figures.append(
                    in_turns(
                        settings.short_rounds,
                        partial(sample, asleep, _TC_ACT_SHOT),
                        partial(sample, awake, TC_ACT_REDIRECT),
                    )
                )
    except DataPlaneError as error:
        raise CommandFailed(str(error)) from error
    (dropped, forwarded), (dropped_once, forwarded_once) = figures
    note = (
        f"{_RULES} rules that page, none of which takes the packet; in the real ingress program, one run at a time with the "
        f"kernel's timer, {quantity(median(dropped_once))} ns against {quantity(median(forwarded_once))}"
    )
    return [Measurement("sleeper_drop", "ns", dropped, forwarded, (note,))]
