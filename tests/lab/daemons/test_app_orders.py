"""A device orders a proxy that its stand-in cannot run: the sleep does not happen, and the reason names table and key (A1)."""

from pathlib import Path

import pytest

from locum.lab.configuration import Plan, Table
from locum.lab.errors import LabError
from locum.lab.world import Lab


def test_wrong_order_stops_the_sleep(tmp_path: Path) -> None:
    app: Table = {"kind": "keepalive", "name": "mqtt", "settings": {"interval": 0.1}}
    plan = Plan(tables={"mn": {"mobile_node": {"app": [app]}}})
    with Lab("app-order", tmp_path, plan, captures=False) as lab:
        lab.wait_registered()
        with pytest.raises(LabError) as caught:
            lab.command("mn", "sleep")
        assert (
            "the stand-in refused: [[mobile_node.app]] mqtt: settings.interval: "
            "a number of seconds from 1 to 86400 is expected" in str(caught.value)
        )
        assert lab.ask("mn", "status")["mobile_node"]["state"] == "awake"
        assert lab.ask("mnps", "app list") == []
        kinds = {kind["kind"] for kind in lab.ask("mnps", "app kinds")}
        assert "keepalive" in kinds
        with pytest.raises(LabError, match="no proxy mqtt runs here"):
            lab.command("mnps", "app", "show", "mqtt")
