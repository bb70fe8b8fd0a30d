"""Proxies and configurations of the guide as a reader copies them: they run, and the stand-in accepts them (A1)."""

import asyncio
import re
import socket
import struct
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from locum.node.apps.catalogue import Catalogue
from locum.node.config.apps import PASSWORD_FILE
from locum.roles.action_values.apps import AppOrder, AppsPaused, Consume, PauseApps, StartApps
from locum.roles.action_values.emission import permits
from locum.roles.app_contract import Keep
from locum.roles.app_network import Data, Failed, Synced
from locum.roles.app_results import outcome
from locum.wire.control import Answer632, Status, decode_632, encode_632
from locum.wire.control.order import OrderAnswer, decode_order_answer, encode_order_answer
from tests.node.apps.driven import Driven
from tests.node.apps.world import HANDOVER, HOME, ROOT, Connection, Standing

PAGE = (ROOT / "docs" / "applications.md").read_text()
FILES = dict(re.findall(r"```\w+\n# ([\w.]+)\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package of the page, and the second proxy beside it."""
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    points = {**project["entry-points"]["locum.apps"], "saver": "saver:Saver"}
    information = tmp_path / f"{project['name']}-{project['version']}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{kind} = {place}" for kind, place in points.items()]
    (information / "entry_points.txt").write_text("\n".join(["[locum.apps]", *lines, ""]))
    for name in ("greeter.py", "saver.py"):
        (tmp_path / name).write_text(FILES[name])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


async def test_greeter_answers_lines(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    connection.held.flow = replace(connection.held.flow, peer_port=7007)
    standing = Standing(connection.held)
    await standing.perform(StartApps(HANDOVER, HOME, (AppOrder("one", "greeter", {"word": "soon"}),)))
    await connection.says(standing, b"hello\nthere\n")
    assert await connection.hears(12) == b"soon\r\nsoon\r\n"
    await standing.perform(PauseApps(HANDOVER))
    assert isinstance(standing.events[-1], AppsPaused)
    connection.close()


async def serve_twice(begun: list[int], reader: Any, writer: asyncio.StreamWriter) -> None:
    """The first connection breaks in the middle, the second one ends as it should."""
    begun.append(1)
    writer.write(b"half")
    await writer.drain()
    if len(begun) == 1:
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()
        return
    writer.write(b" and whole")
    writer.close()


async def test_saver_keeps_the_whole_in_a_file(tmp_path: Path) -> None:
    begun: list[int] = []
    server = await asyncio.start_server(lambda *ends: serve_twice(begun, *ends), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    data = tmp_path / "data"
    driven = Driven(data, kind="saver", host="127.0.0.1", port=port)
    await driven.process_ready()
    assert await driven.wait("saved") == {"bytes": 14}
    assert (await driven.end())["result"] == {"done": True, "files": [["said", 14, ""]]}
    assert (data / "said").read_bytes() == b"half and whole" and len(begun) == 2
    server.close()


def test_saver_keeps_its_result_before_it_ends() -> None:
    """An order with `--when always` is never ended by a wake: its result is in the kept state."""
    names: dict[str, Any] = {}
    exec(FILES["saver.py"], names)
    for last in (Synced("said", 2), Failed("said", 28)):
        saver = names["Saver"](("192.0.2.7", 7008), lambda count: bytes(count))
        saver.begin([], {}, now=0.0)
        saver.happened(Data(1, b"ab"), now=1.0)
        kept = [effect for effect in saver.happened(last, now=2.0) if isinstance(effect, Keep)]
        assert [outcome(keep.state) for keep in kept] == [outcome(saver.end(now=3.0))]
        assert outcome(kept[0].state).done or outcome(kept[0].state).failed


@pytest.mark.parametrize("table, key", [({"port": 1}, "host"), ({"host": "h", "port": "1"}, "port")])
def test_saver_names_a_wrong_setting(table: dict[str, Any], key: str) -> None:
    assert f"one: settings.{key}: " in str(Catalogue().check(AppOrder("one", "saver", table)))


PAGES = [ROOT / "docs" / "applications.md", *sorted((ROOT / "docs" / "apps").glob("*.md"))]


def printed(page: Path) -> list[dict[str, Any]]:
    """The tables [[mobile_node.app]] of a page."""
    blocks = re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
    found = (tomllib.loads(block).get("mobile_node", {}) for block in blocks)
    return [table for node in found for table in node.get("app", [])]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_printed_configurations_are_accepted(page: Path) -> None:
    tables = printed(page)
    assert tables
    for table in tables:
        permits(table.get("emission", []))
        Consume(table.get("consume", "replay"))
        settings = dict(table.get("settings", {}))
        if settings.pop(PASSWORD_FILE, None):
            settings["password"] = "word"
        assert set(table) <= {"kind", "name", "settings", "emission", "consume"}
        assert Catalogue().check(AppOrder(table.get("name", "it"), table["kind"], settings)) is None


@pytest.mark.parametrize("kind", ["download", "keepalive", "log", "publish"])
def test_refusal_of_an_unknown_setting_arrives_whole(kind: str) -> None:
    reason = Catalogue().check(AppOrder("it", kind, {"portt": 8}))
    answer = OrderAnswer(Status.REFUSED, reason=str(reason))
    assert "settings.portt: is not known; there are" in answer.reason
    assert decode_order_answer(encode_order_answer(answer)) == answer


def test_a_text_that_is_too_long_shows_it() -> None:
    answer = Answer632(Status.REFUSED, reason="x" * 201)
    assert decode_632(encode_632(answer)).reason == "x" * 197 + "..."
