"""Pages: from the packet at the home agent to the call in the air, with cycle 0 and in slots, and pages a second.

The packet comes to the home agent's kernel, which holds it and tells the daemon; 1170 goes to the access node's daemon, which sends the
call. Beside each page a packet that both nodes only forward goes the same way in the same run.
"""

import time
from collections.abc import Collection
from statistics import median, quantiles

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed
from bench.paging_site import CYCLE, LENGTH, Site, site
from bench.report import quantity
from locum.roles.mobile_ipv4.page_calls import is_experimental

_PAGES, _SLOTTED, _AT_ONCE = 700, 300, 2_000
_WARM = 50  # pages before the first one that counts
_PATIENCE = 10.0  # seconds for one call
_TRIES, _AGAIN = 60, 1.0  # times and seconds after which packets are repeated
_BETWEEN = 0.01  # seconds between pages of devices in slots
_GUARD = 0.002  # seconds after the beginning of a slot at which a call is sent


def _latency(at: Site, number: int) -> float:
    """Milliseconds from the trigger to the call of one device."""
    sent = at.page(number)
    while (found := at.heard(_PATIENCE)) is not None:
        to, when, message = found
        if to == at.home(number) and is_experimental(message):
            at.answer(message)
            return 1e3 * (when - sent)
    raise CommandFailed(f"no call of {at.home(number)} in {_PATIENCE:.0f} s")


def _forwarded(at: Site) -> float:
    """Milliseconds of a packet on the same way that no daemon sees."""
    sent = at.control()
    while (found := at.heard(_PATIENCE)) is not None:
        if found[2] == b"control":
            return 1e3 * (found[1] - sent)
    raise CommandFailed("the packet beside the pages did not arrive")


def _in_turns(at: Site, pages: int) -> tuple[list[float], list[float]]:
    paged, forwarded = [], []
    for number in range(_WARM + pages):
        time.sleep(0.002)
        paged.append(_latency(at, number))
        forwarded.append(_forwarded(at))
    return paged[_WARM:], forwarded[_WARM:]


def _calls(at: Site, waiting: dict[object, float], patience: float) -> list[float]:
    """Seconds until the first call of each of these devices, by the time at which each was triggered."""
    taken = []
    while waiting and (found := at.heard(patience)) is not None:
        to, when, message = found
        sent = waiting.pop(to, None) if is_experimental(message) else None
        if sent is not None:
            at.answer(message)
            taken.append(when - sent)
    return taken


def _in_slots(at: Site) -> list[float]:
    """Milliseconds until the calls of all devices that listen in slots."""
    waiting: dict[object, float] = {}
    taken = []
    for number in range(at.first_slotted, at.devices):
        waiting[at.home(number)] = at.page(number)
        end = time.monotonic() + _BETWEEN
        while (left := end - time.monotonic()) > 0:
            taken += _calls(at, waiting, left)
            if not waiting:
                time.sleep(max(end - time.monotonic(), 0.0))
    taken += _calls(at, waiting, 2.0)
    if waiting:
        raise CommandFailed(f"{len(waiting)} devices were not called")
    return [1e3 * seconds for seconds in taken]


def _at_once(at: Site) -> tuple[float, int]:
    """Pages a second while all devices are triggered together, and packets that had to be repeated.

    The kernel drops packets for which its queue to the daemon has no room: as a TCP peer does, the sender repeats one after a second.
    """
    begun = time.time()
    waiting: dict[object, float] = dict.fromkeys(map(at.home, range(at.devices)), begun)
    taken: list[float] = []
    repeated = -at.devices
    for _ in range(_TRIES):
        for number in range(at.devices):
            if at.home(number) in waiting:
                at.page(number)
                repeated += 1
        taken += _calls(at, waiting, _AGAIN)
        if not waiting:
            return at.devices / max(taken), repeated
    raise CommandFailed(f"{len(waiting)} of {at.devices} devices were not called")


def _percentile(samples: list[float], share: int) -> float:
    return quantiles(samples, n=100)[share - 1]


def _rounds(samples: list[float], rounds: int, share: int) -> tuple[float, ...]:
    """The percentile of each of `rounds` parts, in the order of time."""
    size = len(samples) // rounds
    return tuple(_percentile(samples[size * part : size * (part + 1)], share) for part in range(rounds))


def _latencies(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    pages = max(int(_PAGES * settings.scale), 20 * settings.rounds)
    slotted = max(int(_SLOTTED * settings.scale), 40) if "page_slots" in wanted else 0
    with site(_WARM + pages, slotted=slotted) as at:
        paged, forwarded = _in_turns(at, pages)
        in_slots = _in_slots(at) if slotted else []
    note = (
        f"{pages:,} pages one after the other: p50 {quantity(_percentile(paged, 50))} ms, p99 "
        f"{quantity(_percentile(paged, 99))} ms, most {quantity(max(paged))} ms; a packet that is forwarded on the same way p50 "
        f"{quantity(_percentile(forwarded, 50))} ms, p99 {quantity(_percentile(forwarded, 99))} ms"
    )
    rows = [
        Measurement(
            name,
            "ms",
            _rounds(paged, settings.rounds, share),
            _rounds(forwarded, settings.rounds, share),
            (note,),
        )
        for name, share in (("page_p50", 50), ("page_p99", 99))
    ]
    if in_slots:
        shares = {share: quantity(_percentile(in_slots, share)) for share in (10, 50, 90, 99)}
        told = ", ".join(f"p{share} {figure} ms" for share, figure in shares.items())
        ideal = tuple([CYCLE / 2 + 1e3 * _GUARD])
        note = (
            f"{slotted} devices that listen for {LENGTH} ms in every {CYCLE} ms, at offsets that spread: {told}, most "
            f"{quantity(max(in_slots))} ms; the ideal is even between 0 and {CYCLE} ms"
        )
        rows.append(Measurement("page_slots", "ms", (median(in_slots),), ideal, (note,)))
    return [found for found in rows if found.name in wanted]


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows that are wanted. Raises CommandFailed."""
    rows = []
    if {"page_p50", "page_p99", "page_slots"} & set(wanted):
        rows += _latencies(settings, wanted)
    if "pages" in wanted:
        devices, rates, repeated = max(int(_AT_ONCE * settings.scale), 40), [], 0
        for _ in range(min(settings.long_rounds, 3)):
            with site(devices) as at:
                rate, again = _at_once(at)
                rates.append(rate)
                repeated += again
        note = f"{devices:,} sleeping devices of one access node, triggered together by a packet each; {repeated} packets were repeated"
        rows.append(Measurement("pages", "1/s", tuple(rates), None, (note,)))
    return rows
