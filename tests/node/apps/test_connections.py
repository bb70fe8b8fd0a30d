"""Connections of proxies, by a real process over loopback: open, send, receive, end (A1, A11)."""

import asyncio
import errno
import os
import socket
import struct
import subprocess
import time
from hashlib import sha256
from pathlib import Path

import pytest

from locum.node.apps.outlet import Outlet
from locum.node.apps.silence import silence
from locum.node.config.settings import AppLimits
from locum.roles.app_network import MAX_CONNECTIONS
from tests.node.apps.driven import HERE, Driven
from tests.node.apps.peers import Server, connected, dialled, free_port
from tests.node.apps.world import install


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_connection_carries_bytes_both_ways_and_ends(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    peer = await connected(driven, server)
    driven.do(["Send", 1, "hello"])
    assert await peer.hears(5) == b"hello"
    await driven.wait("Drained", connection=1)
    await peer.says(b"answer")
    assert (await driven.wait("Data", connection=1))["data"] == "answer"
    driven.do(["Send", 1, "bye"], ["Finish", 1])
    assert await peer.hears(99) == b"bye", "and FIN behind it"
    assert (await driven.wait("Ended", connection=1))["reason"] == ""
    driven.do(["Connect", 1, "127.0.0.1", server.port])  # the number is free again
    await driven.wait("Opened", connection=1)
    await driven.end()


async def test_end_of_the_peer_is_told(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    peer = await connected(driven, server)
    await peer.says(b"last")
    peer.socket.shutdown(socket.SHUT_WR)
    await driven.wait("Data", data="last")
    await driven.wait("Data", data="")
    driven.do(["Send", 1, "still"], ["Finish", 1])
    assert await peer.hears(99) == b"still"
    await driven.wait("Ended", connection=1, reason="")
    await driven.end()


async def test_refused_connection_ends_with_a_reason(data: Path) -> None:
    driven = await Driven(data).begin()
    driven.do(["Connect", 1, "127.0.0.1", free_port()])
    assert (await driven.wait("Ended", connection=1))["reason"] == "Connection refused"
    await driven.end()


async def test_listener_accepts_and_answers(data: Path) -> None:
    port = free_port()
    driven = await Driven(data, echo=True).begin()
    driven.do(["Listen", 7, port])
    await driven.wait("Opened", connection=7)
    peers = [await dialled(port) for _ in range(20)]
    for number, peer in enumerate(peers):
        await peer.says(b"%d" % number)
    for number, peer in enumerate(peers):
        assert await peer.hears(1) == b"%d" % number or number > 9
        peer.socket.close()
    accepted = [detail for kind, detail in driven.happened if kind == "Accepted"]
    assert len({detail["connection"] for detail in accepted}) == 20
    assert all(detail["connection"] < 0 and detail["listener"] == 7 for detail in accepted)
    driven.do(["Finish", 7])
    await driven.wait("Ended", connection=7)
    with pytest.raises(ConnectionRefusedError):
        await dialled(port)
    await driven.end()


async def test_taken_port_ends_with_a_reason(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    driven.do(["Listen", 1, server.port])
    assert (await driven.wait("Ended", connection=1))["reason"] == "Address already in use"
    await driven.end()


async def test_download_of_many_bytes_is_saved_whole(data: Path) -> None:
    server, driven = Server(), await Driven(data, save=True).begin()
    peer = await connected(driven, server)
    content = os.urandom(20 << 20)
    await peer.says(content)
    peer.socket.shutdown(socket.SHUT_WR)
    await driven.wait("Data", length=0)
    digest = sha256(content).hexdigest()
    assert (await driven.end())["result"] == {"heard": len(content), "digest": digest}
    assert (data / "saved").read_bytes() == content


async def test_file_is_served_behind_its_head(data: Path) -> None:
    port, content = free_port(), os.urandom(3 << 20)
    data.mkdir()
    (data / "page").write_bytes(content)
    driven = Driven(data, serve="page", length=len(content))
    await driven.process_ready()
    assert (await driven.wait("Files"))["files"] == [["page", len(content)]]
    driven.do(["Listen", 1, port])
    await driven.wait("Opened", connection=1)
    peer = await dialled(port)
    assert await peer.hears(1 << 30) == b"head" + content
    await driven.end()


async def test_reader_that_pauses_fills_the_window(data: Path) -> None:
    server, driven = Server(), await Driven(data, forget=True).begin()
    peer = await connected(driven, server)
    driven.do(["Pause", 1])
    await driven.until(lambda: not driven.process.unanswered)
    content = os.urandom(64 << 20)
    sending = asyncio.create_task(peer.says(content))
    await asyncio.sleep(0.5)
    assert not sending.done()
    driven.do(["Resume", 1])
    await sending
    peer.socket.shutdown(socket.SHUT_WR)
    await driven.wait("Data", length=0)
    assert (await driven.end())["result"]["digest"] == sha256(content).hexdigest()


async def test_unsent_bytes_are_bounded_and_drained_is_told(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer = await connected(driven, server)
    driven.do(["Truncate", "zeros", 8 << 20], ["SendFile", 1, "zeros", 0, 8 << 20], ["Send", 1, "end"])
    assert await peer.hears((8 << 20) + 3) == bytes(8 << 20) + b"end"
    await driven.wait("Drained", connection=1)
    driven.do(["SendFile", 1, "zeros", 0, 8 << 20], ["Send", 1, "x" * 60_000])
    for _ in range(20):
        await driven.until(lambda: not driven.process.unanswered)
        driven.do(["Send", 1, "x" * 60_000])
    assert (await driven.wait("Ended", connection=1))["reason"] == os.strerror(errno.ENOBUFS)
    await driven.end()


async def test_aborted_connection_is_reset(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    peer = await connected(driven, server)
    driven.do(["Abort", 1])
    await driven.wait("Ended", connection=1, reason="")
    with pytest.raises(ConnectionResetError):
        await peer.hears(1)
    await driven.end()


async def test_reset_by_the_peer_has_a_reason(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    peer = await connected(driven, server)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.socket.close()
    assert (await driven.wait("Ended", connection=1))["reason"] == os.strerror(errno.ECONNRESET)
    await driven.end()


async def test_connection_without_an_answer_ends_in_time(data: Path) -> None:
    """A listener whose queue is full does not answer."""
    driven = await Driven(data).begin()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        port = silent.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        driven.do(["Connect", 1, "127.0.0.1", port, False, 0.5])
        assert (await driven.wait("Ended", connection=1))["reason"] == os.strerror(errno.ETIMEDOUT)
        for filler in fillers:
            filler.close()
    await driven.end()


async def test_datagrams_go_both_ways(data: Path) -> None:
    port, driven = free_port(), await Driven(data).begin()
    driven.do(["Listen", 3, port, 17])
    await driven.wait("Opened", connection=3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        peer.sendto(b"question", ("127.0.0.1", port))
        came = await driven.wait("Datagram", listener=3)
        assert came["data"] == "question" and came["port"] == peer.getsockname()[1]
        driven.do(["SendTo", 3, "127.0.0.1", 99999, "lost"])
        driven.do(["SendTo", 3, "127.0.0.1", came["port"], "answer"])
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 99), 30) == b"answer"
    driven.do(["Finish", 3])
    await driven.wait("Ended", connection=3)
    await driven.end()


async def test_datagrams_go_to_names_and_not_to_the_stand_in(data: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.setblocking(False)
        there, port = peer.getsockname()[1], free_port()
        driven = await Driven(data).begin()
        driven.do(["Listen", 3, port, 17])
        await driven.wait("Opened", connection=3)
        driven.do(*(["SendTo", 3, "peer.test", there, f"word {number}"] for number in range(3)))
        heard = [await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 99), 30) for _ in range(3)]
        assert heard == [b"word 0", b"word 1", b"word 2"]
        await driven.end()
        strict = Outlet((HERE,), 1, data, AppLimits())
        driven = await Driven(data, outlet=strict).begin()
        driven.do(["Listen", 3, port, 17])
        await driven.wait("Opened", connection=3)
        driven.do(["SendTo", 3, "127.0.0.1", there, "loop"], ["Connect", 4, "127.0.0.1", there])
        await driven.wait("Ended", connection=4)  # both questions are answered
        with pytest.raises(BlockingIOError):
            peer.recv(99)
        await driven.end()


async def test_more_connections_than_there_may_be(data: Path) -> None:
    port, driven = free_port(), await Driven(data).begin()
    driven.do(["Listen", 1, port])
    await driven.wait("Opened", connection=1)
    peers = [await dialled(port) for _ in range(300)]
    await driven.until(lambda: len(driven.happened) >= MAX_CONNECTIONS - 1)
    driven.do(["Listen", 2, free_port()], ["Connect", 3, "127.0.0.1", port])
    assert "at most 256" in (await driven.wait("Ended", connection=2))["reason"]
    assert "at most 256" in (await driven.wait("Ended", connection=3))["reason"]
    for peer in peers:
        peer.socket.close()
    await driven.until(lambda: sum(kind == "Data" for kind, _ in driven.happened) == MAX_CONNECTIONS - 1)
    driven.do(*(["Finish", -number] for number in range(1, 100)))
    await driven.wait("Accepted", connection=-300)
    await driven.end()


@pytest.mark.parametrize("question", ["asks", "asks_oddly"])
async def test_process_that_asks_too_much_is_ended(data: Path, question: str) -> None:
    driven = Driven(data, wayward=question)
    await driven.process_ready()
    reason = await asyncio.wait_for(asyncio.shield(driven.reason), 60)
    assert "something wrong" in reason, reason


async def test_number_in_use_ends_the_process(data: Path) -> None:
    driven = await Driven(data).begin()
    driven.do(["Listen", 1, free_port()], ["Listen", 1, free_port()])
    assert "1 is not free" in await asyncio.wait_for(asyncio.shield(driven.reason), 60)


async def test_end_sends_what_waits_and_leaves_nothing(data: Path) -> None:
    """Everything that was accepted goes out in order, then FIN; a peer that does not read is reset in time."""
    server, driven = Server(), await Driven(data).begin()
    peer, deaf = await connected(driven, server, 1), await connected(driven, server, 2)
    driven.do(["Truncate", "zeros", 64 << 20], ["SendFile", 1, "zeros", 0, 6 << 20], ["Send", 1, "last"])
    driven.do(["SendFile", 2, "zeros", 0, 64 << 20])
    heard = asyncio.create_task(peer.hears(1 << 30))
    begun = time.monotonic()
    await driven.end()
    assert time.monotonic() - begun < 10
    assert await heard == bytes(6 << 20) + b"last"
    with pytest.raises(ConnectionResetError):
        await deaf.hears(1 << 30)
    listed = subprocess.run(
        ["ss", "-tan", f"dport = :{server.port}"], capture_output=True, text=True, check=True
    )
    assert "FIN-WAIT-1" not in listed.stdout and "ESTAB" not in listed.stdout, listed.stdout


async def test_handed_connection_goes_on_with_its_unread_bytes(data: Path) -> None:
    given: list[tuple[socket.socket, str, bytes]] = []
    server, driven = Server(), await Driven(data).begin()
    driven.outlet.handed = lambda *connection: given.append(connection)
    peer = await connected(driven, server)
    await peer.says(b"seen")
    await driven.wait("Data", data="seen")
    driven.do(["Send", 1, "before"], ["HandOver", 1, "shell", "unread "])
    assert await peer.hears(6) == b"before"
    await driven.wait("Ended", connection=1, reason="")
    await driven.until(lambda: bool(given))
    ((sock, label, unread),) = given
    assert (label, unread) == ("shell", b"unread ")
    await peer.says(b"more")
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 99), 30) == b"more"
    sock.close()
    await driven.end()


async def test_connection_is_handed_over_at_the_end(data: Path) -> None:
    """Its last words go out before, and nothing of the proxy's end reaches the connection."""
    given: list[tuple[socket.socket, str, bytes]] = []
    script = [["Send", 1, "last"], ["HandOver", 1, "shell", "unread"]]
    server, driven = Server(), await Driven(data, ending=script).begin()
    driven.outlet.handed = lambda *connection: given.append(connection)
    peer = await connected(driven, server)
    await driven.end()
    silence([driven.outlet.number])
    assert await peer.hears(4) == b"last"
    ((sock, label, unread),) = given
    assert (label, unread) == ("shell", b"unread")
    await peer.says(b"more")
    assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 99), 30) == b"more"
    sock.close()


@pytest.mark.parametrize(
    "way, word", [("hands_a_file", "no socket"), ("hands_a_stranger", "no connection of its own")]
)
async def test_handed_things_that_are_no_connection(data: Path, way: str, word: str) -> None:
    driven = Driven(data, wayward=way)
    before = len(os.listdir("/proc/self/fd"))
    await driven.process_ready()
    assert word in await asyncio.wait_for(asyncio.shield(driven.reason), 60)
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_connection_that_nobody_takes_is_reset(data: Path) -> None:
    server, driven = Server(), await Driven(data).begin()
    peer = await connected(driven, server)
    driven.do(["HandOver", 1, "shell", ""])
    with pytest.raises(ConnectionResetError):
        await peer.hears(1)
    await driven.end()


@pytest.mark.parametrize(
    "host, word",
    [
        ("no-such-host.invalid", "no-such-host.invalid: "),
        ("a" * 300, "1 to 253 characters"),
        ("", "1 to 253 characters"),
        ("x" * 70 + ".example", "name"),
        ("127.0.0.1", "cannot be reached"),
        ("::1", "cannot be reached"),
        ("224.0.0.1", "cannot be reached"),
        ("169.254.1.1", "cannot be reached"),
        ("2001:db8::1", "cannot be reached"),
    ],
)
async def test_hosts_that_no_proxy_reaches(data: Path, host: str, word: str) -> None:
    data.mkdir()
    driven = await Driven(data, outlet=Outlet((HERE,), 1, data, AppLimits())).begin()
    driven.do(["Connect", 1, host, 80])
    assert word in (await driven.wait("Ended", connection=1))["reason"]
    await driven.end()
