"""Requests, results and restarts in any order: the stand-in answers, and stays within its state table."""

from hypothesis import given, settings
from hypothesis import strategies as st

from locum.roles import actions as a
from locum.roles.action_values.sessions import (
    NotPerformed,
    Restored,
    RestoreSessions,
    SessionFinal,
    Stopped,
    StopSessions,
)
from locum.wire.control import (
    Abandon,
    Cancel,
    Done,
    Fetch,
    Finish,
    Reclaim,
    Request634,
    TakeoverPrepare,
    TakeoverTransfer,
)
from locum.wire.takes import Takes
from tests.roles.mnps.test_giving_up import FIRST, SECOND, Device
from tests.roles.world import HOA, flow

FLOWS = {FIRST: flow(0), SECOND: flow(1)}
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "prepare", "prepare more", "transfer", "restored", "not restored", "reclaim", "fetch", "finish", "stopped",
                "not stopped", "cancel", "done", "done with it", "abandon", "abandon it", "restart",
                "hand over", "hand over", "hand over", "hand over", "finish", "finish", "stopped", "stopped",
            ]
        ),
        st.sampled_from([FIRST, FIRST, FIRST, FIRST, SECOND]),
        st.sampled_from([0.0, 0.0, 0.0, 0.0, 1.0, 25.0, 4000.0]),
    ),
    min_size=10,
    max_size=40,
)  # fmt: skip


def request(what: str, name: bytes, switch: Takes | None) -> Request634 | None:
    flows = (FLOWS[name],)
    match what:
        case "prepare":
            return TakeoverPrepare(name, (HOA,), flows, switch=switch)
        case "prepare more":
            return TakeoverPrepare(name, (HOA,), (*flows, flow(2)), switch=switch)
        case "transfer":
            others = tuple(handover for handover in FLOWS if handover != name)
            return TakeoverTransfer(name, tuple({0: moved.to_cbor()} for moved in flows), others=others)
        case "reclaim":
            return Reclaim(name, (HOA,))
        case "fetch":
            return Fetch(name, 0, 0, 10)
        case "finish":
            return Finish(name)
        case "cancel":
            return Cancel(name)
        case "done":
            return Done(name)
        case "done with it":
            return Done(name, (0,))
        case "abandon":
            return Abandon(name)
        case "abandon it":
            return Abandon(name, (0,))
    return None


def result(what: str, name: bytes) -> a.Event | None:
    match what:
        case "restored":
            return Restored(name, (0,))
        case "not restored":
            return NotPerformed(RestoreSessions(name, (), HOA), "no space left on device")
        case "stopped":
            return Stopped(name, (SessionFinal(0, FLOWS[name], 10),))
        case "not stopped":
            return NotPerformed(StopSessions(name, (), 0), "no space left on device")
    return None


def step(device: Device, what: str, name: bytes, registers: bool, now: float) -> None:
    if (asked := request(what, name, Takes.RULED if registers else None)) is not None:
        device.ask(asked, now)
    elif (event := result(what, name)) is not None:
        device.tell(event, now)
    else:
        device.restart()


@given(STEPS, st.booleans())
@settings(max_examples=400)
def test_any_order_of_requests_and_results(steps: list[tuple[str, bytes, float]], registers: bool) -> None:
    device = Device(registers=registers)
    now = 0.0
    for what, name, pause in steps:
        if what == "hand over":
            for part in ("prepare", "transfer", "restored"):
                step(device, part, name, registers, now)
        else:
            step(device, what, name, registers, now)
        now += pause
        device.at(now)
