"""Contexts that go from one access node to another (C4, C7), as a lab's access nodes and captures tell of them."""

import json
import sys
from contextlib import suppress
from typing import Any

from locum.lab.configuration import HOME_ADDRESS4, Table
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.world import Lab

FORBIDDEN_PORT = 7_009
REFUSED = 25
"""Datagrams of a stream that policing refuses."""
ACCESS: Table = {"access_node": True}


def policed(port: int = FORBIDDEN_PORT) -> Table:
    """A profile of the mobile node that lets nothing to one of its UDP ports pass."""
    rule: Table = {"id": 1, "action": "drop", "protocol": "udp", "destination_port": port}
    return {"home_address": str(HOME_ADDRESS4), "to_visitor": [rule]}


def context(lab: Lab, node: str) -> dict[str, Any]:
    """The mobile node's context at an access node; empty without one."""
    rows: list[dict[str, Any]] = lab.ask(node, "context list")
    return next((row for row in rows if row["home_address"] == str(HOME_ADDRESS4)), {})


def dropped(lab: Lab, node: str) -> int:
    """Packets to the mobile node that rules of its filter at an access node have dropped."""
    rows: list[dict[str, Any]] = json.loads(lab.command(node, "--json", "filter", "list"))
    return sum(
        row["packets"]
        for row in rows
        if row["home_address"] == str(HOME_ADDRESS4) and row["action"] == "drop"
    )


def refuse(lab: Lab, node: str, port: int = FORBIDDEN_PORT) -> int:
    """Send packets that the mobile node's policing refuses; return the number dropped at this access node."""
    before = dropped(lab, node)
    command = [
        sys.executable,
        "-m",
        "locum.lab.programs.stream",
        str(HOME_ADDRESS4),
        str(port),
        "100",
        "0.25",
    ]
    lab.processes.start("cn", f"refused-{node}-{port}", command).wait(10.0)
    with suppress(LabError):  # fewer, or none
        wait_until("the packets to be there", lambda: dropped(lab, node) >= before + REFUSED, 0.5)
    return dropped(lab, node) - before


def wait_quiet(lab: Lab, *nodes: str) -> None:
    """Until no tunnel 620 is left at any of these access nodes."""
    wait_until(
        "the tunnels 620 to end", lambda: not any(_tunnels(context(lab, node)) for node in nodes), 20.0
    )


def _tunnels(row: dict[str, Any]) -> bool:
    return bool(row.get("forwarded_to") or row.get("forwarded_from"))
