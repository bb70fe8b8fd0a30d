"""Every table has one place: of this host, or shared. A role finds its rows there."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from pathlib import Path

import pytest

from locum.node.config.settings import ROLES
from locum.node.store import Store
from locum.node.tables import HostTable, RoleTables, SharedTable, StoredRows, own_name
from locum.roles import actions as do
from tests.test_circles import imports, reachable

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"

# As the store was created before its tables were told apart.
EARLIER_SCHEMA = """
CREATE TABLE entry (
    collection TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (collection, key)
) WITHOUT ROWID
"""
EARLIER = {
    ("clock", "steady"): '{"boot":"b","origin":1.5,"seen":2.5,"ahead":0.0}',
    ("host", "address/10.36.0.4"): '{"do":"address","address":"10.36.0.4","prefixlen":32,"link":"lo"}',
    ("oscore", "01-02-10.2.0.2"): '{"reserved":1024,"index":3,"seen":"7"}',
    ("learnt-association", "10.36.0.4"): '{"sender_id":"01"}',
    ("parked", "tcp 10.36.0.4:1-10.1.0.2:2"): '{"boot":"b"}',
    ("session", "00-1"): '{"handover":"00","session":1}',
    ("home_agent.binding", "10.36.0.4"): '{"care_of":["größe"]}',
    ("home_agent.stand_in", "10.36.0.4 one"): '{"n":1}',
    ("home_agent.rule", "10.36.0.4 7"): '{"n":2}',
    ("home_agent.profile", "10.36.0.4"): '{"n":3}',
    ("home_agent.pool", "a@b"): '{"n":4}',
    ("foreign_agent.visitor", "10.36.0.4"): '{"n":5}',
    ("foreign_agent.context", "10.36.0.4"): '{"n":6}',
    ("foreign_agent.lost", "10.36.0.4"): '{"n":7}',
    ("mobile_node.registration", "10.36.0.4"): '{"n":8}',
    ("mobile_node.handover", "00ff"): '{"n":9}',
    ("mobile_node.rule", "9"): '{"n":10}',
    ("mnps.registration", "10.36.0.4"): '{"n":11}',
    ("mnps.handover", "00ff"): '{"n":12}',
    ("mnps.triggered", "10.36.0.4"): '{"n":13}',
}


def every_table() -> list[HostTable | SharedTable]:
    return [*HostTable, *SharedTable]


def test_no_table_has_two_places() -> None:
    assert len(set(map(str, every_table()))) == len(every_table())
    for table in every_table():
        owners = [role for role in ROLES if own_name(role, table) is not None]
        assert len(owners) == ("." in table), table


def test_tables_are_found_by_the_whole_name_of_the_role() -> None:
    assert own_name("mobile_node", "mobile_node.rule") == "rule"
    assert own_name("mobile", "mobile_node.rule") is None
    assert own_name("mobile_node", "mobile.rule") is None
    assert own_name("clock", "clock") is None


@pytest.mark.parametrize("role", ROLES)
def test_tables_that_a_role_names_are_its_own(role: str) -> None:
    """Constants named TABLE, of the role's modules and of those that they import."""
    start = f"locum.roles.{role}.role"
    modules = {
        name
        for name in {start} | reachable({key: set(value) for key, value in imports().items()}, start)
        if name.startswith("locum.roles.")
    }
    named = {
        value
        for module in modules
        for name, value in vars(import_module(module)).items()
        if name.endswith("TABLE") and value in do.TABLES
    }
    assert named == {name for table in every_table() if (name := own_name(role, table)) is not None}


def test_the_documentation_lists_every_table_once() -> None:
    section = DOCUMENT.read_text().partition("## The store\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w[\w ]*) \|", section, re.MULTILINE)
    assert sorted(rows) == sorted(
        [(str(table), "this host") for table in HostTable] + [(str(table), "shared") for table in SharedTable]
    )


async def test_state_of_the_earlier_version_opens_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(EARLIER_SCHEMA)
        database.executemany(
            "INSERT INTO entry VALUES (?, ?, ?, 4)", [(*at, value) for at, value in EARLIER.items()]
        )
        before = database.execute("SELECT * FROM entry").fetchall()
    assert {collection for collection, _key in EARLIER} <= set(map(str, every_table()))
    store = Store(path)
    for table in every_table():
        expected = [key for collection, key in EARLIER if collection == table]
        assert list(store.rows(table)) == expected
    found = [row for role in ROLES for row in RoleTables(role, store, store).rows()]
    assert len(found) == sum("." in collection for collection, _key in EARLIER)
    assert do.Persist("binding", "10.36.0.4", {"care_of": ["größe"]}) in found
    await store.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT * FROM entry").fetchall() == before
    store = Store(path)
    store.put(SharedTable.BINDING, "10.36.0.4", {"care_of": []})
    await store.close()
    with closing(sqlite3.connect(path)) as database:
        (row,) = database.execute("SELECT * FROM entry WHERE collection = 'home_agent.binding'").fetchall()
    assert row == ("home_agent.binding", "10.36.0.4", '{"care_of":[]}', 5)


async def test_a_role_waits_for_both_of_its_stores(tmp_path: Path) -> None:
    host, shared = Store(tmp_path / "host.db"), Store(tmp_path / "shared.db")
    tables = RoleTables("foreign_agent", host, shared)
    tables.put("visitor", "a", {"link": "radio0"})
    tables.put("context", "a", {"blocks": {}})
    commit = tables.committed()
    assert commit is not None
    await commit
    assert tables.committed() is None
    assert host.rows("foreign_agent.visitor") == {"a": {"link": "radio0"}}
    assert shared.rows("foreign_agent.context") == {"a": {"blocks": {}}}
    assert not host.rows("foreign_agent.context") and not shared.rows("foreign_agent.visitor")
    assert [*tables.rows()] == [
        do.Persist("visitor", "a", {"link": "radio0"}),
        do.Persist("context", "a", {"blocks": {}}),
    ]
    tables.forget("visitor", "a")
    tables.forget("context", "a")
    await tables.durable()
    assert not tables.rows()
    with pytest.raises(KeyError):
        tables.put("binding", "a", {})
    await host.close()
    await shared.close()


def test_rows_are_read_one_at_a_time_and_each_time() -> None:
    """All at once would take more memory than what is made of them."""
    read: list[int] = []

    def texts() -> Iterator[tuple[str, str]]:
        for number in range(3):
            read.append(number)
            yield str(number), f'{{"n":{number}}}'

    rows = StoredRows({"binding": texts})
    for number, row in enumerate(rows):
        assert row == do.Persist("binding", str(number), {"n": number})
        assert read == [*range(number + 1)]
    assert [row.key for row in rows] == ["0", "1", "2"] and len(rows) == 3
    assert rows[1].key == "1" and [row.key for row in rows[1:]] == ["1", "2"]
