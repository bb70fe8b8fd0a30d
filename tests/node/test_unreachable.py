"""A device learns at once why its access node cannot register it, and registers when the cause has gone."""

import json
import time
from pathlib import Path
from typing import Any

from tests.node.test_real_nodes import World, world

__all__ = ["world"]


def denials(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "mn.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "registration-denied"]


def test_reply_codes_of_icmp_errors(world: World) -> None:
    ha, an = world.spaces["ha"], world.spaces["an"]
    began = time.time()
    for name in ("an", "mn"):
        world.start(name)

    def denied(code: int, since: float) -> bool:
        return any(
            denial["detail"]["code"] == code and denial["time"] > since for denial in denials(world.folder)
        )

    world.until(lambda: denied(82, began), "port unreachable: no daemon at the home agent's host")
    began = time.time()
    ha.ip("addr del 10.2.0.1/24 dev eth1")
    an.ip("neigh flush dev eth0")
    world.until(lambda: denied(81, began), "host unreachable: nobody answers to its address", 40)
    began = time.time()
    an.ip("route add unreachable 10.2.0.1")
    world.until(lambda: denied(80, began), "network unreachable: there is no route", 70)
    assert not [denial for denial in denials(world.folder) if denial["detail"]["code"] == 78]
    an.ip("route del unreachable 10.2.0.1")
    ha.ip("addr add 10.2.0.1/24 dev eth1")
    world.start("ha")
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration", 70)
    counters = world.ask("an", "counters")
    assert "internal-error" not in json.dumps(counters)
