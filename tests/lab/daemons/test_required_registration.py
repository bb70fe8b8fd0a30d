"""Fig. 6 with a co-located care-of address and an access node that requires registration (R bit), played for real."""

import subprocess
from pathlib import Path
from typing import ClassVar

import pytest

from locum.lab.configuration import Plan
from locum.lab.report.checks import Checks
from locum.lab.scenario import perform
from locum.lab.scenarios.routing.colocated import Colocated
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.timeline import Event
from locum.lab.world import Lab
from tests.lab.judging import wrong


def sent(lab: Lab, node: str, message: str) -> list[Event]:
    return [event for event in lab.timeline.of(node) if (event.kind, event.message) == ("sent", message)]


class Required(Colocated):
    """As colocated; registrations go through the access node, packets by a tunnel that ends in the device."""

    name = "colocated-required"
    plan: ClassVar[Plan] = Plan(
        mode="colocated", tables={"an1": {"foreign_agent": {"registration_required": True}}}
    )

    def play(self, lab: Lab) -> None:
        super().play(lab)
        self.bound, self.visitors = lab.bindings(), lab.bindings("an1")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.holds("sha256_equal", self.download.correct)
        checks.equal("curl_exit", self.status, 0)
        checks.equal("server_connections", self.server.connections("/film"), 1, "connections")
        checks.equal("handovers", handovers(lab), 1)
        agent = str(lab.configuration.care_of("an1"))
        asked = [str(event.detail["to"]) for event in sent(lab, "mn", "601")]
        checks.equal("last_request_to", asked[-1], agent)
        # Without an advertisement, at the start and when the link is back, a device knows no agent.
        checks.at_most("requests_past_the_agent", len(asked) - asked.count(agent), 3, "requests")
        checks.more_than("relayed", len(sent(lab, "an1", "602")), 1, "requests")
        (row,) = [binding for binding in self.bound if binding["home_address"] == "10.10.100.4"]
        (care_of,) = row["care_of"]
        checks.equal("care_of", care_of["address"], "10.10.21.4")
        checks.equal("agent", care_of["agent"], agent)
        checks.equal("visitors_of_the_agent", len(self.visitors), 0)
        said = fields(lab.captures.files["mn"], "icmp.mip.flags", "icmp.mip.prefixlength")
        checks.equal("advertised_prefix_lengths", " ".join({field.split("\t")[1] for field in said}), "24")
        checks.holds("advertised_r_bit", all(int(field.split("\t")[0], 16) & 0x8000 for field in said))


def fields(file: Path, *names: str) -> list[str]:
    """Fields of agent advertisements, as tshark reads them."""
    command = ["tshark", "-r", str(file), "-Y", "icmp.mip.type == 16", "-T", "fields"]
    for name in names:
        command += ["-e", name]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines
    return lines


def test_asleep_with_registrations_through_the_access_node(
    tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    whole = pytestconfig.getoption("whole_captures")
    report = perform(Required(), tmp_path / "lab", whole_captures=whole)
    assert not report.failure, report.failure
    assert not wrong(report), wrong(report)
