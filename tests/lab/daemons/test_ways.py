"""Ways beside the call on the access link, on real nodes: magic packets in the air, and a command that is run (P11, P13)."""

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from locum.lab.captures.pcap import UDP, datagrams, frames
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table
from locum.lab.processes import wait_until
from locum.lab.world import Lab
from locum.wire.wake_on_lan import ETHERTYPE, PORT, magic_packet

HOME = str(HOME_ADDRESS4)
CARD = "02:00:00:00:00:04"
RULE: Table = {"id": 7, "priority": 7, "action": "page", "protocol": "tcp", "destination_port": 80}


def plan(way: str, ways: list[Table]) -> Plan:
    sleeper: Table = {"home_address": HOME, "way": way, "link_address": CARD}
    return Plan(
        short_lifetime=3,
        associations=(Pair("ha", "an1"), Pair("ha", "an2")),
        tables={
            "ha": {"home_agent": {"page_seconds": 60.0, "mobile": {"rule": [RULE]}}},
            "an1": {"foreign_agent": {"sleeper": [sleeper], "way": ways}},
        },
    )


@pytest.fixture
def command(tmp_path: Path) -> Path:
    program = tmp_path / "push"
    program.write_text(f'#!/bin/sh\ncat >{tmp_path}/told\necho "$LOCUM_HOME_ADDRESS" >{tmp_path}/ran\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest, command: Path) -> Iterator[Lab]:
    way: str = request.param
    ways: list[Table] = [{"name": "push", "kind": "command", "command": [str(command)]}]
    with Lab("ways", tmp_path / "lab", plan(way, ways)) as made:
        made.wait_registered()
        made.command("mn", "sleep")
        wait_until("the rule to be in force", lambda: made.flow_rules()[0]["live"] == [4, 6], 20.0)
        yield made


@pytest.mark.parametrize("lab", ["wake-on-lan"], indirect=True)
def test_magic_packets_are_in_the_air_and_the_call_wakes(lab: Lab) -> None:
    assert "reached after" in lab.command("ha", "page", HOME, patience=120.0)
    lab.finish()
    magic = magic_packet(bytes.fromhex(CARD.replace(":", "")))
    arrived = lab.captures.files["mn"]
    assert any(one.packet[: len(magic)] == magic for one in frames(arrived) if one.ether_type == ETHERTYPE)
    assert any(
        one.transport[8:] == magic
        for one in datagrams(arrived)
        if one.protocol == UDP and one.ports[1] == PORT
    )


@pytest.mark.parametrize("lab", ["push"], indirect=True)
def test_command_is_run_and_answers_for_the_device(lab: Lab, tmp_path: Path) -> None:
    said: list[str] = []
    paging = Thread(target=lambda: said.append(lab.command("ha", "page", HOME, patience=120.0)))
    paging.start()
    wait_until("the command", (tmp_path / "ran").exists, 30.0)
    wait_until("its end", lambda: bool((tmp_path / "ran").read_text()), 30.0)
    assert (tmp_path / "ran").read_text().strip() == HOME
    told = json.loads((tmp_path / "told").read_text())
    assert (told["home_address"], told["cause"], told["link_address"]) == (HOME, "command", CARD)
    lab.command("mn", "wake")  # as the push service makes it do
    paging.join(60.0)
    assert said and "reached after" in said[0]
    answered = [event for event in lab.timeline.of("ha") if event.kind == "page-answered"]
    assert [event.detail["by"] for event in answered] == ["an"]
