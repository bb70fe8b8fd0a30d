"""A device joins over TCP: both ends have one set of keys, one device uses a code, each failure is one clear line."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.node.enrolment import joining as module
from locum.node.enrolment.frames import framed, read_frame
from locum.node.enrolment.joining import JoinError
from locum.wire.enrolment.code import Code
from locum.wire.enrolment.messages import Denied, Hello, Sealed
from tests.node.conftest import Namespace
from tests.node.conftest import join as cable
from tests.node.enrolment.ends import FIRST, NETWORKS, SECOND, join, serving


@asynccontextmanager
async def another(answer: bytes, *, closes: bool = True) -> AsyncIterator[Code]:
    """The code of a server that is another program."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(answer)
        if closes:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Code("127.0.0.1", 1, b"12345", server.sockets[0].getsockname()[1])
    finally:
        server.close()


async def problem(code: Code, key: bytes = FIRST) -> JoinError:
    with pytest.raises(JoinError) as caught:
        await join(code, key)
    assert "\n" not in str(caught.value)
    return caught.value


async def test_both_ends_have_the_same_keys(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        enrolled = await join(owner.code("phone"))
        (candidate,) = owner.admitted
        assert candidate.keys == enrolled.keys
        assert (candidate.name, candidate.proof.public_key, candidate.proof.networks) == (
            "phone",
            FIRST,
            NETWORKS,
        )
        assert enrolled.grant.name == "phone"
        assert enrolled.clock_warning is None
        assert enrolled.keys.preshared.hex() not in repr(enrolled)
        assert +owner.server.counters == {"joined": 1}


async def test_one_of_two_devices_wins(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code = owner.code()
        results = await asyncio.gather(join(code, FIRST), join(code, SECOND), return_exceptions=True)
        (lost,) = (result for result in results if isinstance(result, BaseException))
        assert isinstance(lost, JoinError)
        assert (lost.reason, str(lost)) == (
            "used",
            "another device has used the code: ask for a new code at the server",
        )
        assert len(owner.admitted) == 1


async def test_device_that_lost_the_grant_comes_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code = owner.code()
        first, second = await join(code), await join(code)
        assert [candidate.keys for candidate in owner.admitted] == [first.keys, second.keys]
        assert first.keys != second.keys
        assert (await problem(code, SECOND)).reason == "used"


async def test_server_says_why_to_the_owner_of_a_code(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        code = owner.code()
        owner.refuses = Denied.COLLIDES
        assert "home prefix is in use" in str(await problem(code))
        owner.steady += 901.0
        assert str(await problem(code)) == "the code has expired: ask for a new code at the server"
        unknown = replace(code, number=code.number ^ 1)
        assert (
            (await problem(unknown)).reason
            == (await problem(replace(code, secret=b"wrong"))).reason
            == "code"
        )


async def test_clocks_that_differ_are_a_warning(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        owner.wall -= 3600
        ahead = await join(owner.code("a"))
        owner.wall += 7200
        behind = await join(owner.code("b"))
    assert ahead.clock_warning == "this device's clock is 3600 s ahead of the server's: let NTP set both"
    assert behind.clock_warning == "this device's clock is 3600 s behind the server's: let NTP set both"


async def test_grant_that_cannot_be_used(tmp_path: Path) -> None:
    async with serving(tmp_path / "node.db") as owner:
        owner.transport = IPv4Address("10.20.1.1")  # the server's own
        assert (await problem(owner.code())).reason == "addresses"


async def test_nothing_listens() -> None:
    server = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    found = await problem(Code("127.0.0.1", 1, b"12345", port))
    assert str(found).startswith(f"nothing listens at 127.0.0.1 TCP port {port}: ")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "closed"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not-a-server"),
        (framed(b"SSH-2.0"), "not-a-server"),
        (framed(Sealed(bytes(40)).encode()), "not-a-server"),
        (framed(Hello(1, bytes(33), "x").encode()), "not-a-server"),
    ],
)
async def test_another_program_answers(answer: bytes, reason: str) -> None:
    async with another(answer) as code:
        assert (await problem(code)).reason == reason


async def test_no_answer_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_PATIENCE", 0.05)
    async with another(b"", closes=False) as code:
        found = await problem(code)
    assert found.reason == "no-answer"
    assert re.search(r"takes connections but does not answer: try again$", str(found))


def test_device_joins_from_another_namespace(namespace: Callable[[str], Namespace], tmp_path: Path) -> None:
    server, device = namespace("server"), namespace("device")
    cable(server, "s0", device, "d0")
    server.ip("address add 192.0.2.1/24 dev s0")
    device.ip("address add 192.0.2.2/24 dev d0")

    async def run() -> None:
        with server.entered():
            context = serving(tmp_path / "node.db", ("192.0.2.1",))
            owner = await context.__aenter__()
        try:
            with device.entered():
                assert (await join(owner.code(host="192.0.2.1"))).grant.name == "laptop"
            device.ip("address del 192.0.2.2/24 dev d0")
            with device.entered():
                found = await problem(owner.code("phone", host="192.0.2.1"))
            assert found.reason == "no-way"
        finally:
            await context.__aexit__(None, None, None)

    asyncio.run(run())
