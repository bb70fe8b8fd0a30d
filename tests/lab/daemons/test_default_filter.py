"""A default care-of address with a rule's packets only (R6), with real packets while the device is away."""

from pathlib import Path
from sys import executable

from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.world import Lab

LET_THROUGH, KEPT_OUT = 7001, 7002
PLAN = Plan(
    tables={
        "ha": {
            "home_agent": {
                "mobile": {
                    "default_coa_takes": "ruled",
                    "rule": [
                        {
                            "id": 1,
                            "priority": 10,
                            "to": ["mn", "default"],
                            "protocol": "udp",
                            "destination_port": LET_THROUGH,
                        }
                    ],
                }
            }
        }
    }
)


def ask(lab: Lab, port: int) -> int:
    """Datagrams of the correspondent to the home address; how many."""
    command = [executable, "-m", "locum.lab.programs.stream", str(HOME_ADDRESS4), str(port), "50", "1"]
    return int(lab.processes.run("cn", command).stdout)


def test_only_packets_of_a_rule_arrive_at_the_default(tmp_path: Path) -> None:
    with Lab("default-filter", tmp_path, PLAN) as lab:
        lab.wait_registered()
        awake = {port: ask(lab, port) for port in (LET_THROUGH, KEPT_OUT)}
        lab.command("mn", "shutdown")  # it deregisters: the default care-of address takes over
        care_of = str(lab.configuration.care_of("an1"))
        wait_until("the device to be gone", lambda: not lab.registered_at(care_of))
        sent = {port: ask(lab, port) for port in (LET_THROUGH, KEPT_OUT)}
        (rule,) = lab.flow_rules()
        lab.finish()
        arrived = {
            node: [len(stream.numbers(lab.captures.files[node], port, outgoing=False)) for port in sent]
            for node in ("mn", "mnps")
        }
    assert arrived == {"mn": list(awake.values()), "mnps": [sent[LET_THROUGH], 0]}
    assert rule["packets"] == awake[LET_THROUGH] + sent[LET_THROUGH]
