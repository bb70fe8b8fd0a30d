"""Two orders of a device with one port: the later one is refused when it is ordered, with its name and key."""

from pathlib import Path
from typing import Any

import pytest

from locum.node.apps.catalogue import Catalogue
from locum.roles.action_values.apps import AppOrder, When
from tests.node.apps.world import install

SITE = AppOrder("site", "publish")
ROWS: dict[str, Any] = {
    "format": "csv",
    "columns": ["a"],
    "values": ["a"],
    "listen": {"port": 80, "protocol": "tcp"},
}
CALL = {
    "contact": "sip:me@example.org",
    "registrar": "192.0.2.1",
    "user": "me",
    "password": "x",
    "callers": ["*"],
}


@pytest.mark.parametrize(
    ("order", "key"),
    [
        (AppOrder("two", "publish", {"port": 80}), "port"),
        (AppOrder("two", "compute", ROWS), "listen.port"),
    ],
)
def test_taken_port_is_named_with_its_owner(order: AppOrder, key: str) -> None:
    catalogue = Catalogue()
    assert catalogue.check(order) is None
    said = catalogue.check(order, [SITE])
    place = f"[[mobile_node.app]] two: settings.{key}"
    assert said == f"{place}: TCP port 80 is the port of site (publish) already; choose another"


def test_ports_differ_by_number_and_protocol() -> None:
    catalogue = Catalogue()
    rows = AppOrder("rows", "compute", {**ROWS, "listen": {"port": 5060}})
    call = AppOrder("call", "call", CALL)
    assert catalogue.check(call) is None
    assert catalogue.check(AppOrder("two", "publish", {"port": 5060}), [SITE, rows, call]) is None
    said = catalogue.check(call, [SITE, rows])
    assert said is not None and "call: settings.port: UDP port 5060 is the port of rows (compute)" in said


def test_kind_without_connections_runs_only_asleep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    order = AppOrder("a", "wayward", {"way": "well"}, when=When.ALWAYS)
    said = Catalogue().check(order)
    assert (
        said
        == "[[mobile_node.app]] a: when: proxies of kind wayward only attend sessions of a sleeping device"
    )
    assert Catalogue().check(AppOrder("a", "publish", when=When.ALWAYS)) is None
    assert Catalogue().takes_uploads("publish") and not Catalogue().takes_uploads("download")


@pytest.mark.parametrize(
    ("kind", "settings", "other"),
    [
        ("download", {"ports": [80]}, {"url": "http://192.0.2.1/x"}),
        ("mail", {"attended": True}, {"host": "192.0.2.1", "user": "ann", "password": "x"}),
        ("compute", {**ROWS, "ports": [7000]}, ROWS),
        ("keepalive", {"on_end": "reconnect", "protocol": "mqtt", "ports": [1883], "client_id": "a"}, None),
        ("log", {}, None),
        ("call", CALL, None),
    ],
)
def test_settings_without_work_while_awake_are_refused(
    kind: str, settings: dict[str, Any], other: dict[str, Any] | None
) -> None:
    catalogue = Catalogue()
    said = catalogue.check(AppOrder("a", kind, settings, when=When.ALWAYS))
    assert said is not None and said.startswith("[[mobile_node.app]] a: when: ") and 'choose "asleep"' in said
    assert catalogue.check(AppOrder("a", kind, settings)) is None
    assert other is None or catalogue.check(AppOrder("a", kind, other, when=When.ALWAYS)) is None


def test_missing_package_is_named_with_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    information = tmp_path / "sheets-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: sheets\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[locum.apps]\nsheets = sheets:Sheets\n")
    (tmp_path / "sheets.py").write_text("import package_of_nobody\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    said = Catalogue().check(AppOrder("a", "sheets"))
    assert said is not None and "no Python module package_of_nobody: install its package there" in said


def test_unknown_kind_and_unquoted_text_say_the_way_out() -> None:
    said = Catalogue().check(AppOrder("a", "greter"))
    assert said is not None and "'greter' is not known" in said and "installed before it started" in said
    for number in (1, 1.5, True):
        said = Catalogue().check(AppOrder("a", "mail", {"host": "h", "user": number, "password": "x"}))
        assert said is not None and "settings.user: a text is expected: write the value in quotes" in said


def test_kind_that_cannot_tell_its_ports_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)
    catalogue = Catalogue()
    assert catalogue.ports(AppOrder("a", "wayward", {"way": "well"})) == {}
    assert catalogue.ports(AppOrder("a", "publish", {"port": 0})) == {}
    assert catalogue.ports(AppOrder("a", "unknown")) == {}
