"""Loss of a device: a crash of the access node meanwhile, a return elsewhere, an expiry (C8, C11)."""

from collections.abc import Iterator

import pytest

from locum.lab.configuration import Pair, Plan, Table, merged
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.scenarios.stand_ins.fig07 import stand_ins
from locum.lab.steps.contexts import ACCESS, REFUSED, context, policed, refuse
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.world import Lab

STAND_IN = Registering("mnps", bid=1)
LIFETIME = 8
PROBED: Table = {"probe_interval": 0.2, "probe_misses": 3, "mnps": [STAND_IN.address]}
TABLES = registering(STAND_IN)
PLAN = Plan(
    default_coa=False,
    lifetime=LIFETIME,
    short_lifetime=2,
    associations=(
        *(Pair(node, "mnps", at_far={"may_trigger": True}) for node in ("an1", "ha")),
        *(Pair(node, "an3", ACCESS, ACCESS) for node in ("an1", "an2")),
    ),
    tables={
        **TABLES,
        "an1": {"foreign_agent": PROBED},
        "an2": {"foreign_agent": {"profile": [policed()]}},
        "ha": merged(TABLES["ha"], {"home_agent": {"trigger_on_expiry": True}}),
    },
)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("lost-device", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        made.wait_registered()
        yield made


def taken(lab: Lab, wanted: bool, patience: float = 20.0) -> None:
    """Wait until the stand-in has a care-of address at the home agent, or none."""
    wait_until(
        f"the stand-in to {'take' if wanted else 'release'}", lambda: bool(stand_ins(lab)) is wanted, patience
    )


def kinds(lab: Lab, node: str, *wanted: str) -> list[str]:
    return [event.kind for event in lab.timeline.of(node) if event.kind in wanted]


def test_access_node_completes_a_takeover_after_a_crash(lab: Lab) -> None:
    lab.fade("an1")
    taken(lab, True)
    visitors = [binding for binding in lab.bindings("an1") if binding["kind"] == "visitor"]
    lost = [visitor["lost"] for visitor in visitors]
    assert lost in ([True], []), "it stays until its registration runs out, which may have been a while ago"
    (said,) = lab.ask("mnps", "status")["mnps"]["triggered"]
    assert said.endswith(f"by {lab.configuration.care_of('an1')}: lost")
    lab.crash("an1")
    lab.fade("an1", silent=False)
    lab.restart("an1")
    kept = [binding["lost"] for binding in lab.bindings("an1") if binding["kind"] == "visitor"]
    taken(lab, False)
    lab.wait_registered("an1")
    if kept == [True]:  # a slow start may take longer than the registration lasts
        wait_until("the access node to have heard it", lambda: bool(kinds(lab, "an1", "visitor-back")))


def test_device_returning_elsewhere_gets_its_packets(lab: Lab) -> None:
    """The old access node reports a loss that did not happen; the result is the same in either order.

    The device's last message on the old link may have to be repeated before it can send more (RFC 7252
    section 4.7), so the end may be some seconds away.
    """
    lab.restore("an2")
    lab.cut("an1")
    lab.wait_registered("an2")
    lab.pause(2.5)  # longer than the old access node needs to notice
    taken(lab, False)
    assert lab.registered_at(str(lab.configuration.care_of("an2")))


def test_a_home_agent_notices_when_the_registration_runs_out(lab: Lab) -> None:
    lab.fade("an2")
    taken(lab, True, LIFETIME + 15.0)
    reasons = [event.detail["reason"] for event in lab.timeline.of("mnps") if event.kind == "triggered"]
    assert reasons[-1] == "expired"
    wait_until("the context", lambda: "policy" in context(lab, "an3").get("blocks", {}), 10)
    assert refuse(lab, "an3") == REFUSED, "policed as it was where the device was last"
    lab.fade("an2", silent=False)
    taken(lab, False)
    lab.wait_registered("an2")


def asleep(lab: Lab) -> bool:
    """Fall asleep; False if the stand-in is not reached: what the device said while it was lost is repeated first."""
    try:
        lab.command("mn", "sleep")
    except LabError as problem:
        if "the stand-in did not answer" not in str(problem):
            raise
        return False
    return True


def test_a_device_that_sleeps_is_not_lost(lab: Lab) -> None:
    """Its registration runs out, its home agent asks; the stand-in has everything already, and gives it back as usual."""
    before, ended, answered = (
        len(kinds(lab, *of)) for of in (("mnps", "triggered"), ("ha", "expired"), ("ha", "trigger-done"))
    )
    wait_until("the device to sleep", lambda: asleep(lab), 30)
    lab.cut("an2")
    assert stand_ins(lab) == ["at-mnps"]
    wait_until("the registration to run out", lambda: len(kinds(lab, "ha", "expired")) > ended, 20)
    wait_until("the home agent to be answered", lambda: len(kinds(lab, "ha", "trigger-done")) > answered, 10)
    assert len(kinds(lab, "mnps", "triggered")) == before
    lab.restore("an2")
    lab.command("mn", "wake")
    assert stand_ins(lab) == []
    assert lab.registered_at(str(lab.configuration.care_of("an2")))
