"""The configuration that the lab writes is one that nodes accept, and its secrets are secret."""

from pathlib import Path

import pytest

from locum.lab.configuration import DAEMONS, Configuration, Pair, Plan, Table, merged, to_toml
from locum.lab.network.namespaces import Network, inside, run
from locum.lab.network.place import LabPlace
from locum.lab.network.topology import EXTRAS, figure_5
from locum.node.config.load import load


def test_toml_of_nested_tables_and_lists() -> None:
    text = to_toml({"a": {"x": 1, "s": 'q"\\', "b": [{"y": True}, {"y": False}], "l": ["u"]}})
    assert text == '\n[a]\nx = 1\ns = "q\\"\\\\"\nl = ["u"]\n\n[[a.b]]\ny = true\n\n[[a.b]]\ny = false\n'


@pytest.mark.parametrize("mode", ["fa", "colocated"])
def test_every_daemon_accepts_its_configuration(tmp_path: Path, mode: str) -> None:
    place = LabPlace.claim("test")
    try:
        configuration = Configuration(place, figure_5(), Plan(mode=mode), tmp_path)
        configuration.write()
        roles = {node: load(configuration.file(node)).roles for node in DAEMONS}
        keys = list((configuration.folder / "keys").iterdir())
        assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
        assert len({key.read_text() for key in keys}) == len(keys)
        ours, theirs = (load(configuration.file(node)).control for node in ("mn", "mnps"))
    finally:
        place.remove()
    assert roles["ha"] == ("home_agent",) and roles["mn"] == ("mobile_node",) and roles["mnps"] == ("mnps",)
    assert {roles[name] for name in ("an1", "an2", "an3")} == {("foreign_agent",)}
    assert ours is not None and theirs is not None
    near = next(one for one in ours.associations if one.peer == theirs.address)
    far = next(one for one in theirs.associations if one.peer == ours.address)
    assert (near.sender_id, near.recipient_id, near.secret) == (far.recipient_id, far.sender_id, far.secret)


def test_a_scenario_adds_to_tables_and_lists_of_tables() -> None:
    made: Table = {"a": {"x": 1, "many": [{"y": 1}, {"y": 2}]}, "b": 3}
    added = merged(made, {"a": {"z": 2, "many": [{"y": 3}]}, "b": 4, "c": {"d": 5}})
    assert added == {"a": {"x": 1, "z": 2, "many": [{"y": 1}, {"y": 2}, {"y": 3}]}, "b": 4, "c": {"d": 5}}
    assert merged(made, {"a": {"many": {"w": 9}}})["a"] == {"x": 1, "many": [{"y": 1, "w": 9}, {"y": 2}]}


def test_additions_of_a_scenario_are_in_the_files(tmp_path: Path) -> None:
    place = LabPlace.claim("test")
    plan = Plan(
        extras=("mnps2",),
        tables={
            "ha": {
                "home_agent": {"mobile": [{"home_address": "10.10.100.9", "spi": 999, "key_file": "key:x"}]}
            }
        },
        associations=(Pair("mn", "mnps2", at_far={"home_addresses": ["10.10.100.4"]}),),
    )
    try:
        configuration = Configuration(place, figure_5(plan.extras), plan, tmp_path)
        configuration.write()
        settings = {node: load(configuration.file(node)) for node in plan.daemons}
        home_agent, control = settings["ha"].home_agent, settings["mnps2"].control
    finally:
        place.remove()
    assert home_agent is not None and control is not None
    assert [str(mobile.home_address) for mobile in home_agent.mobiles][-1] == "10.10.100.9"
    assert [str(home_address) for home_address in control.associations[0].home_addresses] == ["10.10.100.4"]


def test_hosts_beside_the_figure_are_reachable() -> None:
    place = LabPlace.claim("test")
    try:
        Network(place, figure_5(EXTRAS)).build()
        for node, address in (
            ("ha", "10.10.5.2"),
            ("an3", "10.10.6.2"),
            ("cn", "10.10.24.2"),
            ("cn", "10.10.31.2"),
        ):
            run([*inside(place, node), "ping", "-q", "-c", "1", "-w", "5", address])
    finally:
        place.remove()
