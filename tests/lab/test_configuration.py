"""The configuration that the lab writes is one that nodes accept, and its secrets are secret."""

from pathlib import Path

import pytest

from locum.lab.configuration import DAEMONS, Configuration, Plan, to_toml
from locum.lab.place import LabPlace
from locum.lab.topology import figure_5
from locum.node.config import load


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
