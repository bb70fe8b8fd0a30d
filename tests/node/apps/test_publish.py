"""The `publish` proxy in its confined process, with a stock curl and raw peers over loopback (A5)."""

import asyncio
import os
import socket
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from locum.apps.publish.intake import UPLOADED
from tests.apps.publish.world import archive
from tests.node.apps.driven import Driven

BIG = os.urandom(3_000_000)
FILES = {"index.html": b"hello", "big": BIG}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Site(Driven):
    """The proxy, serving `FILES`."""

    port: int

    @classmethod
    async def serving(cls, directory: Path) -> "Site":
        directory.mkdir()
        (directory / UPLOADED).write_bytes(archive(FILES))
        site = cls(directory, kind="publish", port=(port := free_port()), head_seconds=1, idle_seconds=5)
        site.port = port
        await site.process_ready()
        await site.wait("published")
        return site

    async def curl(self, path: str, *options: str) -> bytes:
        """Its output."""
        command = ["curl", "-s", "-m", "60", *options, f"http://127.0.0.1:{self.port}{path}"]
        return (await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)).stdout


async def test_curl_gets_files_and_ranges(tmp_path: Path) -> None:
    site = await Site.serving(tmp_path / "data")
    assert await site.curl("/") == b"hello"
    assert sha256(await site.curl("/big")).digest() == sha256(BIG).digest()
    assert await site.curl("/big", "-r", "1000-200000") == BIG[1000:200001]
    (tmp_path / "part").write_bytes(BIG[:1_234_567])
    await site.curl("/big", "-C", "-", "-o", str(tmp_path / "part"))
    assert (tmp_path / "part").read_bytes() == BIG
    etag = tmp_path / "etag"
    await site.curl("/big", "--etag-save", str(etag), "-o", "/dev/null")
    seen = await site.curl("/big", "--etag-compare", str(etag), "-w", "%{http_code} %{size_download}")
    assert seen == b"304 0"
    assert [path.name for path in (tmp_path / "data").iterdir()] != [UPLOADED]
    state = await site.end()
    assert state["result"]["paths"] == {"big": 5, "index.html": 1}


async def test_answers_survive_every_count_and_note(tmp_path: Path) -> None:
    """The process has no files of Python's library any more: nothing may be imported late."""
    site = await Site.serving(tmp_path / "data")
    for path in ("/nowhere", "/%ff", "/?a=b", "//x", "/index.html/"):
        await site.curl(
            path, "-H", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", "-H", "Range: bytes=0-1,3-"
        )
    for method in ("POST", "BREW", "OPTIONS"):
        await site.curl("/", "-X", method)
    await site.curl("/", "-H", "X: " + "y" * 20_000)
    await site.until(lambda: any(effect[0] == "keep" for effect in site.others))
    assert not site.reason.done()
    await site.end()


async def test_upload_of_another_user_takes_over_while_it_runs(tmp_path: Path) -> None:
    """The device is awake: the stand-in writes the file, and tells the process."""
    site = await Site.serving(tmp_path / "data")
    upload = tmp_path / "data" / UPLOADED
    upload.write_bytes(archive({"index.html": b"news"}))
    upload.chmod(0o644)
    assert site.process.send("files")
    await site.wait("published")
    assert await site.curl("/") == b"news"
    assert UPLOADED not in [path.name for path in (tmp_path / "data").iterdir()]
    await site.end()


async def test_slow_peer_is_answered_and_let_go(tmp_path: Path) -> None:
    site = await Site.serving(tmp_path / "data")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(b"GET / HTTP/1.1\r\nHost")
    async with asyncio.timeout(60):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await site.end()


@pytest.mark.parametrize("pieces", [1, 7])
async def test_pipelined_requests_share_a_connection(pieces: int, tmp_path: Path) -> None:
    site = await Site.serving(tmp_path / "data")
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    asked = (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200
        + b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    for start in range(0, len(asked), len(asked) // pieces + 1):
        writer.write(asked[start : start + len(asked) // pieces + 1])
        await writer.drain()
        await asyncio.sleep(0.01)
    async with asyncio.timeout(60):
        data = await reader.read()
    assert data.count(b"200 OK") >= 201 and data.count(b"hello") == 200
    assert data.endswith(BIG)
    writer.close()
    await site.end()
