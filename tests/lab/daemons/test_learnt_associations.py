"""A stand-in that knows no device (C9, C10): a 634 makes it fetch the association from a FreeRADIUS, and it stands in."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan, Table
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.programs.radius.freeradius import FreeRadius, client
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab
from locum.node.coap.learnt_associations import ASKED_AGAIN

RATE = "2m"
POLICY: Table = {
    "servers": [{"address": "10.10.5.2", "secret_file": "key:radius"}],
    "timeout": 0.5,
    "retries": 1,
}
PLAN = Plan(
    short_lifetime=3,
    extras=("aaa",),
    tables={"mnps": {"control": {"association": None}, "policy": POLICY}},
)
"""The stand-in has no association at all; the device has its end of the one that the policy server has."""


@contextmanager
def policed(tmp_path: Path) -> Iterator[tuple[Lab, FreeRadius]]:
    with Lab("learnt", tmp_path, PLAN) as lab:
        secret = lab.configuration.key("radius").read_text().strip()
        agents = client("standin", lab.topology.address4("mnps"), secret)
        server = FreeRadius(lab.processes, "aaa", lab.place.path / "aaa", agents)
        lab.wait_registered("an1")
        yield lab, server


def key(lab: Lab) -> str:
    return lab.configuration.key("mn-mnps").read_text().strip()


def users(lab: Lab) -> str:
    own = lab.topology.address4("mnps")
    return (
        f"{HOME_ADDRESS4}\tAuth-Type := Accept\n\tSession-Timeout := 600,\n"
        f"\tLocum-Home-Address := {HOME_ADDRESS4},\n\tLocum-Home-Address-V6 := {HOME_ADDRESS6},\n"
        f'\tLocum-Control := \'address = "{own}", mnps_id = "0102", mn_id = "0101"\',\n'
        f'\tLocum-Control-Key := "{own} {key(lab)}"\n'
    )


def learnt(lab: Lab) -> list[str]:
    """Peers that the stand-in has learnt, as `locum peer list` shows them."""
    return [row["address"] for row in lab.ask("mnps", "peer list") if row["kind"] == "control"]


def test_device_sleeps_with_a_learnt_association(tmp_path: Path) -> None:
    """Refused while no server runs, taken when one does; then the stand-in is killed while the server is away."""
    with policed(tmp_path) as (lab, server):
        assert learnt(lab) == []
        with pytest.raises(LabError, match="refused our association"):
            lab.command("mn", "sleep")
        assert lab.counters("mnps")["refusals"]["association-unavailable"] == 1
        server.start(users(lab))
        lab.pause(ASKED_AGAIN)  # without another query

        _, films = live(lab, RATE)
        film = watch(lab, films)
        film.wait_for(4_000_000)
        lab.close_lid("an1")
        assert learnt(lab) == [str(HOME_ADDRESS4)] and len(lab.sessions()) == 1
        (row,) = lab.ask("mnps", "profile list")
        assert (row["at"], row["control"]) == ("stand-in", "mnps_id 0102, mn_id 0101")
        server.stop()
        lab.crash("mnps")
        lab.restart("mnps")
        assert learnt(lab) == [str(HOME_ADDRESS4)]
        lab.pause(2.0)
        lab.open_lid("an1")
        assert film.finish(60) == 0 and film.correct

        server.start("")
        lab.command("mnps", "profile", "refresh", str(HOME_ADDRESS4))
        wait_until("the withdrawal", lambda: learnt(lab) == [], 10.0)
        with pytest.raises(LabError, match="refused our association"):
            lab.command("mn", "sleep")
        assert lab.timeline.count("mnps", "association-learnt") == 1
        assert lab.timeline.count("mnps", "association-withdrawn") == 1
        lab.finish()
        text, raw = key(lab).encode(), bytes.fromhex(key(lab))
        for node, file in lab.captures.files.items():
            seen = file.read_bytes()
            assert text not in seen and raw not in seen, f"the key in clear at {node}"
