"""The server's port under strangers: frames that are no messages, many connections, many guesses, restarts."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from locum.node.enrolment import serving as module
from locum.node.enrolment.frames import framed, read_frame
from locum.node.enrolment.guessing import PER_SOURCE
from locum.node.enrolment.invitations import MOST_WRONG
from locum.node.enrolment.joining import JoinError
from locum.node.enrolment.serving import MOST_OF_SOURCE, EnrolmentServer, ServingError
from locum.node.tables import HostTable, StoreError
from locum.security.enrolment import Exchange
from locum.wire.enrolment.messages import Answer, Denied, Hello, Refusal, Refused, Sealed, decode_message
from tests.node.enrolment.ends import SECOND, Owner, join, serving

MALFORMED = framed(Refusal(Refused.MALFORMED).encode())
HELLO = Hello(3, b"A" + bytes(32), "127.0.0.1")


@pytest.mark.parametrize(
    ("sent", "heard", "reason"),
    [
        (b"", b"", "closed"),
        (b"\x00", b"", "truncated"),
        (b"\x00\x05abc", b"", "truncated"),
        (b"\x00\x00", MALFORMED, "empty"),
        (b"\x10\x01", MALFORMED, "oversized"),
        (b"\xff\xff", MALFORMED, "oversized"),
        (framed(b"GET / HTTP/1.1"), MALFORMED, "malformed"),
        (framed(Answer(bytes(33)).encode()), MALFORMED, "malformed"),
        (framed(Sealed(bytes(28)).encode()), MALFORMED, "malformed"),
        (framed(HELLO.encode() + b"\x00"), MALFORMED, "malformed"),
        (framed(replace(HELLO, element=b"B" + bytes(32)).encode()), MALFORMED, "malformed"),
        (framed(replace(HELLO, element=b"A" + b"\xff" * 32).encode()), MALFORMED, "malformed"),
    ],
)
async def test_frames_that_are_no_hello(tmp_path: Path, sent: bytes, heard: bytes, reason: str) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code = owner.code()
        reader, writer = await asyncio.open_connection("127.0.0.1", owner.server.port)
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == heard
        writer.close()
        assert +owner.server.counters == {reason: 1}
        await join(code)


async def test_garbage_after_an_answer_costs_its_source(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code, last = owner.code(), b""
        for _ in range(int(PER_SOURCE) + 1):
            end = Exchange(b"12345", code.number, is_server=False, entropy=os.urandom)
            reader, writer = await asyncio.open_connection("127.0.0.1", owner.server.port)
            writer.write(framed(Hello(code.number, end.element, "x").encode()))
            last = await read_frame(reader)
            writer.write(framed(b"garbage"))
            await reader.read()
            writer.close()
        assert decode_message(last) == Refusal(Refused.TOO_MANY)
        assert +owner.server.counters == {"malformed": PER_SOURCE, "too-many": 1}
        with pytest.raises(JoinError) as caught:
            await join(code)
        assert caught.value.reason == "too_many"
        owner.steady += 31.0
        await join(code)


async def test_invitation_ends_after_wrong_codes(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code = owner.code()
        for _ in range(MOST_WRONG):
            with pytest.raises(JoinError, match="unknown, used or expired"):
                await join(replace(code, secret=b"wrong"))
        await owner.store.durable()
        assert not owner.store.rows(HostTable.INVITATION)
        with pytest.raises(JoinError, match="expired: ask for a new code"):
            await join(code)
        assert +owner.server.counters == {
            "wrong-code": MOST_WRONG,
            "invitation-ended": 1,
            "denied-expired": 1,
        }
        assert not owner.admitted


async def test_thousand_silent_connections(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code, silent = owner.code(), []
        for _ in range(1000):
            silent.append(await asyncio.open_connection("127.0.0.1", owner.server.port))
        enrolled = await join(code)
        assert enrolled.grant.name == "laptop"
        assert len(owner.server._open) <= MOST_OF_SOURCE
        assert owner.server.counters["evicted"] >= 1000 - MOST_OF_SOURCE
        for _reader, writer in silent:
            writer.transport.abort()


async def test_bound_of_all_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 4)
    async with serving(tmp_path / "node.db") as owner:
        silent = [await asyncio.open_connection("127.0.0.1", owner.server.port) for _ in range(6)]
        await join(owner.code())
        assert owner.server.counters["evicted"] == 3
        for _reader, writer in silent:
            writer.transport.abort()


async def test_silent_connection_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MESSAGE_SECONDS", 0.05)
    async with serving(tmp_path / "node.db") as owner:
        reader, writer = await asyncio.open_connection("127.0.0.1", owner.server.port)
        writer.write(b"\x00\x20part")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert +owner.server.counters == {"late": 1}


async def test_invitations_outlive_a_restart(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        used, kept = owner.code("phone"), owner.code("laptop")
        await join(used)
        await owner.store.durable()
    async with serving(tmp_path / "node.db") as owner:
        owner.store.put(HostTable.INVITATION, "x", {"name": 1})
        with pytest.raises(JoinError, match="unknown, used or expired"):
            await join(replace(used, port=owner.server.port), SECOND)
        assert (await join(replace(kept, port=owner.server.port))).grant.name == "laptop"
    async with serving(tmp_path / "node.db") as owner:
        assert +owner.server.counters == {"unreadable-invitation": 1}
        await owner.store.durable()
        assert not owner.store.rows(HostTable.INVITATION)


async def test_full_server_leaves_the_code_usable(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code, owner.refuses = owner.code(), Denied.FULL
        with pytest.raises(JoinError, match="no address left"):
            await join(code)
        owner.refuses, owner.problem = None, StoreError("disk full")
        with pytest.raises(JoinError, match=r"closed the connection|broke"):
            await join(code)
        owner.problem = None
        await join(code, SECOND)
        assert +owner.server.counters == {"denied-full": 1, "store": 1, "joined": 1}


async def test_port_in_use_is_one_line(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        port = owner.server.port
        second = EnrolmentServer(owner.store, owner.admit, lambda: 0.0, os.urandom, port)
        with pytest.raises(ServingError) as caught:
            await second.start(("127.0.0.1",))
        await second.close()
        assert str(caught.value).startswith(f"TCP port {port} of 127.0.0.1 cannot be opened: ")
        assert str(caught.value).endswith(": end its owner")
        assert "\n" not in str(caught.value)


async def test_closing_ends_connections(tmp_path: Path) -> None:
    owner = Owner(tmp_path / "node.db")
    await owner.server.start(("127.0.0.1",))
    reader, writer = await asyncio.open_connection("127.0.0.1", owner.server.port)
    while not owner.server._open:
        await asyncio.sleep(0.01)
    await owner.server.close()
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await owner.store.close()
