"""Fig. 12 on real nodes: rules, table, locations and registrations over a radio that loses messages, with one final state (P12)."""

import contextlib
import json
from typing import Any, ClassVar

from locum.lab.configuration import Plan, Table
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.paging.fig11 import AGENTS, STAND_IN, messages
from locum.lab.steps.paging import HOME, PATIENCE, judge_outcomes, state
from locum.lab.world import Lab

_NODES = figure_5()
SERVER = str(_NODES.address4("ha"))
CELLS = [str(_NODES.address4(node, "radio0")) for node in ("an1", "an2")]
LOSSES = (0, 10, 25)
"""Of 100 frames on the radio, in each direction, in each round."""
LEFT: Table = {
    "location_server": SERVER,
    "page_rule": [{"id": 1, "priority": 10, "action": "page", "protocol": "tcp", "destination_port": 22}],
    "event": [{"app": "film", "kind": "delivered", "actions": ["page"]}],
    "agent_rule": [{"id": 1, "priority": 300, "protocol": "tcp", "source_port": 993}],
}
"""Rules and tables of the device: a page rule (1204), an entry of its event table, a rule for the stand-in's packets (1206, 1208)."""


class Fig12(Scenario):
    """The device sleeps, is paged by command, and wakes, in each round; asleep and awake every node knows the same."""

    name = "fig12"
    title = "rules, tables, locations and registrations over a lossy radio: one final state"
    exhaustive = True
    plan: ClassVar[Plan] = Plan(
        associations=AGENTS,
        tables={
            "ha": {"location": {"access_nodes": CELLS}},
            "an1": {"foreign_agent": {"location_server": SERVER}},
            "an2": {"foreign_agent": {"location_server": SERVER}},
            "mnps": STAND_IN,
            "mn": {"mobile_node": LEFT},
        },
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.states: dict[str, list[str]] = {"asleep": [], "awake": []}
        for percent in LOSSES:
            lab.lose(percent)
            self._reach(lab, "asleep", "sleep")
            self._reach(lab, "awake", "wake")
            lab.lose(0)

    def _reach(self, lab: Lab, wanted: str, command: str) -> None:
        """Have the device there, by a page on its way up, and note the state of all nodes once it is that of the first round."""
        lab.timeline.mark(f"goes-{wanted}")
        if command == "sleep":
            self._until(lab, wanted, lambda: lab.command("mn", "sleep"))
        else:
            self._until(lab, wanted, lambda: lab.command("ha", "page", HOME, patience=PATIENCE))
        known = self.states[wanted]
        if known:
            with contextlib.suppress(LabError):
                wait_until("the state of the first round", lambda: snapshot(lab) == known[0], PATIENCE)
        else:
            lab.pause(8.0)  # every message has an answer by then
        known.append(snapshot(lab))

    @staticmethod
    def _until(lab: Lab, wanted: str, act: Any) -> None:
        """Try until the device is in this state: a command may fail on such a radio."""
        for _ in range(6):
            with contextlib.suppress(LabError):
                act()
            with contextlib.suppress(LabError):
                wait_until(f"the device to be {wanted}", lambda: state(lab) == wanted, 10.0)
                return
        raise LabError(f"the device is not {wanted} after six commands")

    def judge(self, lab: Lab, checks: Checks) -> None:
        for name, states in self.states.items():
            checks.equal(f"rounds_{name}", len(states), len(LOSSES), "rounds")
            checks.equal(f"states_{name}", len(set(states)), 1, "states")
            checks.holds(f"location_{name}", f'"{name}"' in states[0])
        checks.holds("rules_of_the_device", '"device"' in self.states["asleep"][0])
        seen = messages(lab)
        checks.fact("messages", " ".join(sorted(seen)))
        checks.holds("messages_of_the_figure", {"601", "1204", "1206", "1208", "1212"} <= seen)
        judge_outcomes(lab, checks)


def snapshot(lab: Lab) -> str:
    """Home agent, stand-in and location server as JSON, without counters and times."""
    rules = [
        {key: rule[key] for key in ("action", "owner", "priority", "text", "live")}
        for rule in lab.flow_rules()
    ]
    tables = json.loads(lab.command("mnps", "-j", "event", "tables"))
    places = json.loads(lab.command("ha", "-j", "location", "list"))
    located = [{key: place.get(key) for key in ("home_address", "access_node", "state")} for place in places]
    bound = [{key: row[key] for key in ("home_address", "in_force")} for row in lab.bindings()]
    entries = [{key: row.get(key) for key in ("home_address", "entry", "actions")} for row in tables]
    return json.dumps([rules, entries, located, bound], sort_keys=True)
