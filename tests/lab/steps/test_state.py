"""Fields that change by themselves are no change of state; a repeated acceptance is one, on real nodes."""

from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4, OTHER_ADDRESS4
from locum.lab.forging.attack import agrees
from locum.lab.forging.open_ports import open_ports
from locum.lab.processes import wait_until
from locum.lab.steps.state import differences, everything, snapshot
from locum.lab.timeline import Event
from locum.lab.world import Lab

NODES = ("ha", "an1", "mnps", "mn")


def test_a_registration_that_is_accepted_again_is_seen(tmp_path: Path) -> None:
    """It leaves care-of address and lifetime as they were, as an accepted replay would."""
    with Lab("test", tmp_path, captures=False) as lab:
        lab.wait_registered()
        before: dict[str, dict[str, list[str]]] = {}

        def nothing_changes() -> bool:
            before.update({node: everything(lab, node, OTHER_ADDRESS4) for node in NODES})
            lab.pause(1.2)
            return not any(differences(before[node], everything(lab, node, OTHER_ADDRESS4)) for node in NODES)

        wait_until("the nodes to have said everything about the registration", nothing_changes, 30.0)
        brief = snapshot(lab, "ha")
        assert {"binding list", "peer list", "status", "store"} <= before["ha"].keys()
        assert "context list" in before["an1"] and "context list" not in before["ha"]

        begin = lab.timeline.mark("again")
        lab.cut()
        lab.restore()
        lab.timeline.wait("ha", "sent", begin)
        wait_until("the home agent to have written it", lambda: _changes(lab, before) != [])
        changes = _changes(lab, before)
        assert changes and all(change.startswith("store: ") for change in changes)
        assert any("identification" in change for change in changes)
        assert differences(brief, snapshot(lab, "ha")) == []
        assert any(agrees(event) for event in lab.timeline.of("ha") if event.time > begin)

        four, six = lab.topology.address4("ha"), lab.topology.address6("ha")
        at_home = {port.label for port in open_ports(lab, "ha", four, six)}
        assert {"ha udp/434", "ha ip/1", "ha ip/4", "ha ip6/41", "ha ip6/47"} <= at_home
        care_of = lab.configuration.care_of("an1")
        at_agent = open_ports(lab, "an1", lab.topology.address4("an1"), lab.topology.address6("an1"))
        assert {"an1 udp/434", "an1 udp/5683", "an1 tcp/5683", "an1 ip/1"} <= {p.label for p in at_agent}
        assert {port.address for port in at_agent if port.number == 5683} == {str(care_of)}
        assert not any(port.version == 6 and port.via != "ip" for port in at_agent)


def _changes(lab: Lab, before: dict[str, dict[str, list[str]]]) -> list[str]:
    return differences(before["ha"], everything(lab, "ha", OTHER_ADDRESS4))


def test_relayed_denial_is_no_acceptance() -> None:
    def said(message: str, kind: str = "sent", **detail: object) -> bool:
        return agrees(Event(1.0, "an1", kind, message, str(HOME_ADDRESS4), None, detail))

    assert said("603", code=0) and said("604", code=1) and said("632", request="transfer")
    assert said("618", "notified", responsible=True)
    assert not said("604", code=131) and not said("602") and not said("618", responsible=True)
