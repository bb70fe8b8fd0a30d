"""A default care-of address that the device itself registers (R2, R3): the home agent's configuration has none."""

import sys
from pathlib import Path
from typing import Any

import pytest

from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab

LIFETIME, SHORT = 6, 2
DEFAULT = str(figure_5().address4("an3", "wire0"))
"""The stand-in's access node, which is bound in advance (R11)."""
STAND_IN = {
    "mnps": str(figure_5().address4("mnps")),
    "mnps_v6": str(figure_5().address6("mnps")),
}
PLAN = Plan(
    lifetime=LIFETIME,
    short_lifetime=SHORT,
    default_coa=False,
    tables={"mn": {"mobile_node": {"default_coa": DEFAULT}}, "ha": {"home_agent": {"mobile": STAND_IN}}},
)
AWAKE, VANISHED, GONE, RESTARTED, NOWHERE = range(7001, 7006)
LINE = f'default_coa = "{DEFAULT}"\n'


def binding(lab: Lab) -> dict[str, Any]:
    return next(row for row in lab.bindings() if row["home_address"] == str(HOME_ADDRESS4))


def ask(lab: Lab, port: int) -> None:
    """Datagrams of the correspondent to the home address."""
    command = [sys.executable, "-m", "locum.lab.programs.stream", str(HOME_ADDRESS4), str(port), "50", "1"]
    assert int(lab.processes.run("cn", command).stdout) == 50


def in_force(lab: Lab, *wanted: str) -> None:
    wait_until(f"the home agent to send to {wanted}", lambda: binding(lab)["in_force"] == list(wanted), 15)


def start(lab: Lab, *, default: bool) -> None:
    """The device's daemon, with that key in its configuration or without."""
    file = lab.configuration.file("mn")
    text = file.read_text().replace(LINE, "")
    file.write_text(text.replace("[mobile_node]\n", f"[mobile_node]\n{LINE}") if default else text)
    lab.daemons["mn"].wait(10)
    lab.launch("mn")
    lab.wait_ready("mn")
    lab.wait_registered()


def test_packets_go_to_the_default_that_the_device_registered(tmp_path: Path) -> None:
    """It vanishes, it deregisters, the home agent starts anew, and it takes it back."""
    with Lab("device-default", tmp_path, PLAN) as lab:
        assert LINE in lab.configuration.file("mn").read_text()
        assert DEFAULT not in lab.configuration.file("ha").read_text()
        lab.wait_registered()
        own = str(lab.configuration.care_of("an1"))
        assert (binding(lab)["default_coa"], binding(lab)["in_force"]) == (DEFAULT, [own])
        ask(lab, AWAKE)
        lab.cut()  # silently: its lifetime ends
        in_force(lab, DEFAULT)
        ask(lab, VANISHED)
        lab.restore()
        lab.wait_registered()
        lab.command("mn", "shutdown")  # it deregisters
        in_force(lab, DEFAULT)
        ask(lab, GONE)
        lab.crash("ha")
        lab.restart("ha")
        in_force(lab, DEFAULT)
        ask(lab, RESTARTED)
        start(lab, default=False)
        wait_until("the default to be taken back", lambda: binding(lab)["default_coa"] is None, 10)
        lab.command("mn", "shutdown")
        in_force(lab)
        ask(lab, NOWHERE)
        lab.finish()
        arrived = {
            node: [
                len(stream.numbers(lab.captures.files[node], port, outgoing=False))
                for port in range(7001, 7006)
            ]
            for node in ("mn", "mnps")
        }
    assert arrived == {"mn": [50, 0, 0, 0, 0], "mnps": [0, 50, 50, 50, 0]}


def test_sleep_by_a_default_and_refused_defaults(tmp_path: Path) -> None:
    """The stand-in has the packets by it while the device sleeps; a default that would go round is refused (129)."""
    with Lab("device-default-sleep", tmp_path, PLAN, captures=False) as lab:
        lab.wait_registered()
        server, films = live(lab)
        film = watch(lab, films)
        film.wait_for(2_000_000)
        lab.close_lid()
        in_force(lab, DEFAULT)
        wait_until(
            "the stand-in to receive",
            lambda: sum(row.get("total", 0) for row in lab.sessions()) > 4_000_000,
            20,
        )
        lab.open_lid()
        assert film.finish(60) == 0 and film.correct and server.connections("/live/film") == 1
        file = lab.configuration.file("mn")
        text = file.read_text()
        file.write_text(text.replace(LINE, f'default_coa = "{HOME_ADDRESS4}"\n'))
        with pytest.raises(LabError, match=r"\[mobile_node\] default_coa: is the home address itself"):
            lab.command("mn", "config", "check", str(file))
        other = str(lab.topology.address4("ha"))  # there is no stand-in for the device there: it would loop
        lab.crash("mn")
        file.write_text(text.replace(LINE, f'default_coa = "{other}"\n'))
        lab.launch("mn")
        lab.wait_ready("mn")
        wait_until("the refusal", lambda: lab.counters("mn")["refusals"].get("denied-129", 0) > 0, 15)
        assert binding(lab)["default_coa"] == DEFAULT
