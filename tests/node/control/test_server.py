"""The control socket answers, refuses with a reason, streams events, and survives its clients."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable
from locum.node.control.server import ControlSocket, RequestFailed, SocketBusy
from locum.node.events import EventStream, flow_text, prometheus_text
from locum.wire.control import Flow


async def handler(request: str, arguments: Mapping[str, Any]) -> Any:
    if request == "slow":
        await asyncio.sleep(0.2)
    if request == "break":
        raise OSError("no such device")
    if request == "fail":
        raise RequestFailed("it cannot be done")
    return {"request": request, "given": arguments.get("given")}


class Served:
    def __init__(self, path: Path) -> None:
        self.path = path / "run" / "n.sock"
        self.events = EventStream("n")
        self.socket = ControlSocket(self.path, handler, self.subscribe)

    def subscribe(self, tell: Callable[[str], None]) -> Callable[[], None]:
        return self.events.subscribe(tell)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    made = Served(tmp_path)
    await made.socket.open()
    yield made
    await made.socket.close()


async def test_answers_and_refusals(served: Served) -> None:
    def talk() -> None:
        with NodeClient(served.path) as client:
            assert client.request("status", given=3) == {"request": "status", "given": 3}
            with pytest.raises(NodeRefused, match="cannot be done"):
                client.request("fail")
            with pytest.raises(NodeRefused, match="no such device"):  # else the client would wait for ever
                client.request("break")
            assert client.request("status")["given"] is None

    await asyncio.to_thread(talk)
    assert served.path.stat().st_mode & 0o777 == 0o600


async def test_garbage_is_refused_and_does_not_end_the_node(served: Served) -> None:
    def talk(data: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(20)
            raw.connect(str(served.path))
            raw.sendall(data)
            return raw.recv(4096)

    for data in (
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"request": 3}\n',
        b"\xff\n",
        b"{" * 70_000 + b"\n",
        b"null\n",
    ):
        answer = json.loads(await asyncio.to_thread(talk, data))
        assert answer["ok"] is False
    await test_answers_and_refusals(served)


async def test_slow_requests_do_not_hold_up_others(served: Served) -> None:
    reader, writer = await asyncio.open_unix_connection(served.path)
    writer.write(b'{"id": 1, "request": "slow"}\n{"id": 2, "request": "status"}\n')
    first, second = json.loads(await reader.readline()), json.loads(await reader.readline())
    assert (first["id"], second["id"]) == (2, 1)
    writer.close()


async def test_events_are_streamed_until_the_client_goes(served: Served) -> None:
    def watch() -> list[dict[str, Any]]:
        with NodeClient(served.path) as client:
            events = client.events()
            return [next(events), next(events)]

    watching = asyncio.create_task(asyncio.to_thread(watch))
    async with asyncio.timeout(30):
        while not served.events._subscribers:
            await asyncio.sleep(0.01)
    flow = Flow(6, *_end("10.0.0.1", 5), *_end("10.0.0.2", 80))
    served.events.emit("sent", "634", flow.local, flow, {"to": "x"})
    served.events.emit("asleep")
    first, second = await watching
    assert (first["kind"], first["message"], first["node"]) == ("sent", "634", "n")
    assert (first["flow"], first["home_address"]) == ("tcp 10.0.0.1:5 > 10.0.0.2:80", "10.0.0.1")
    assert second["detail"] == {}
    async with asyncio.timeout(30):
        while served.events._subscribers:
            await asyncio.sleep(0.05)
            served.events.emit("later")


def _end(address: str, port: int) -> tuple[Any, int]:
    from ipaddress import ip_address

    return ip_address(address), port


async def test_a_second_node_is_refused_and_a_dead_socket_replaced(served: Served, tmp_path: Path) -> None:
    with pytest.raises(SocketBusy, match="another node"):
        await Served(tmp_path).socket.open()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "stale.sock"))
    replaced = ControlSocket(tmp_path / "stale.sock", handler, served.subscribe)
    await replaced.open()
    await replaced.close()


def test_missing_node_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(NodeUnreachable, match="no node answers"):
        NodeClient(tmp_path / "none.sock")


def test_events_in_a_file_and_counters_as_prometheus(tmp_path: Path) -> None:
    events = EventStream("n", tmp_path / "log" / "e.jsonl", limit=2000)
    for number in range(30):
        events.emit("tick", detail={"number": number})
    events.count("refused-131", 2)
    events.close()
    lines = (tmp_path / "log" / "e.jsonl").read_text() + (tmp_path / "log" / "e.jsonl.1").read_text()
    assert all(json.loads(line)["kind"] == "tick" for line in lines.splitlines())
    text = prometheus_text("n", {"events": events.counts, "refusals": events.reasons})
    assert 'locum_events_total{name="tick",node="n"} 30.0' in text
    assert 'locum_refusals_total{name="refused-131",node="n"} 2.0' in text


def test_a_flow_of_ipv6_is_written_with_brackets() -> None:
    assert flow_text(Flow(17, *_end("fd00::1", 5), *_end("fd00::2", 53))) == "udp [fd00::1]:5 > [fd00::2]:53"
