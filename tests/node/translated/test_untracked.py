"""The table that keeps connection tracking away from the re-injection device: made, lost, made again, removed."""

import asyncio
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from locum.dataplane.kernel.host.lost import Key
from locum.node.translated.untracked import TableLosses, make, remove, table_key, table_losses
from tests.node.conftest import Namespace

DEVICE = "lc-server"


def tables(space: Namespace) -> str:
    return space.run("nft", "list", "ruleset").stdout


def test_table_is_made_once_and_removed(namespace: Callable[[str], Namespace]) -> None:
    space = namespace("nat")
    with space.entered():
        asyncio.run(make(DEVICE, anew=False))
        asyncio.run(make(DEVICE, anew=False))
        with pytest.raises(FileExistsError):
            asyncio.run(make(DEVICE, anew=True))
        found = tables(space)
        asyncio.run(remove(DEVICE))
        asyncio.run(remove(DEVICE))
    assert found.count(f'iifname "{DEVICE}" notrack') == 1
    assert "hook prerouting priority -450" in found
    assert tables(space) == ""


@pytest.mark.parametrize("loss", ["flush ruleset", f"flush chain inet {DEVICE} untracked"])
def test_kernel_tells_of_a_lost_table(namespace: Callable[[str], Namespace], loss: str) -> None:
    space = namespace("nat")
    with space.entered():
        asyncio.run(make(DEVICE, anew=False))
        losses = TableLosses()
        try:
            space.run("nft", *loss.split())
            end, keys = time.monotonic() + 5, set[Key]()
            while table_key(DEVICE) not in keys and time.monotonic() < end:
                keys |= losses.read()[0]
        finally:
            losses.close()
        asyncio.run(make(DEVICE, anew=True))
    assert table_key(DEVICE) in keys
    assert f'iifname "{DEVICE}" notrack' in tables(space)


def test_another_table_is_not_ours(namespace: Callable[[str], Namespace]) -> None:
    space = namespace("nat")
    with space.entered():
        losses = TableLosses()
        try:
            space.run("nft", "add table inet other; delete table inet other")
            end, keys = time.monotonic() + 5, set[Key]()
            while not keys and time.monotonic() < end:
                keys |= losses.read()[0]
        finally:
            losses.close()
    assert keys == {table_key("other")}


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_cut_messages_are_left_out(length: int) -> None:
    attribute = struct.pack("=HH", 4 + len(b"lc-server\0"), 1) + b"lc-server\0\0\0"
    body = b"\x01\0\0\0" + attribute
    message = struct.pack("=IHHII", 16 + len(body), 10 << 8 | 2, 0, 0, 0) + body
    assert table_losses(message) == {table_key(DEVICE)}
    assert table_losses(message[:length]) <= {table_key(DEVICE)}
    padded = table_losses(message[:length].ljust(len(message), b"\0"))
    assert all(DEVICE.startswith(str(name)) for _, name in padded)


def test_program_that_does_not_end_is_killed(
    namespace: Callable[[str], Namespace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = tmp_path / "nft"
    stuck.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 600\n")
    stuck.chmod(0o755)
    monkeypatch.setattr("locum.node.translated.untracked._PATH", str(tmp_path))
    monkeypatch.setattr("locum.node.translated.untracked._PATIENCE", 2.0)
    with namespace("nat").entered(), pytest.raises(OSError, match="nft did not end in 2 s"):
        asyncio.run(make(DEVICE, anew=True))
    pid = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{pid}").exists()
