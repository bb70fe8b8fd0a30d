"""The script of the user guide that keeps NetworkManager waiting, with the real busctl, on a real bus."""

import asyncio
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.node.moving.host import Host
from tests.node.moving.test_following import Followed, play

GUIDE = Path(__file__).parents[3] / "docs" / "user-guide.md"
HEAD = "    # /etc/NetworkManager/dispatcher.d/pre-down.d/locum"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """As it stands in the guide, without the line that names the file."""
    assert shutil.which("busctl"), "the script needs busctl"
    lines = GUIDE.read_text().split(HEAD)[1].splitlines()[1:]
    end = next(number for number, line in enumerate(lines) if not line.startswith("    "))
    path = tmp_path / "pre-down"
    path.write_text("".join(line.removeprefix("    ") + "\n" for line in lines[:end]))
    path.chmod(0o755)
    return path


def seconds(script: Path) -> float:
    """How long NetworkManager would wait for it."""
    began = time.monotonic()
    subprocess.run([script, "wlan0", "pre-down"], check=True, timeout=60)
    return time.monotonic() - began


def test_pre_down_waits_until_the_lock_is_back(host: Host, script: Path, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        it.device.slow = 1.5
        it.begin()
        await it.event("suspend-followed")
        await asyncio.to_thread(host.prepare, sleep=True)
        await it.event("suspend-begins")
        assert await asyncio.to_thread(host.locks)
        await asyncio.to_thread(seconds, script)
        assert it.events.counts["suspend-asleep"] == 1
        assert not await asyncio.to_thread(host.locks)

    play(tmp_path, story)


def test_pre_down_does_not_wait_without_a_suspend(host: Host, script: Path, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        it.begin()
        await it.event("suspend-followed")
        assert await asyncio.to_thread(host.locks)
        assert await asyncio.to_thread(seconds, script) < 3.0

    play(tmp_path, story)


def test_pre_down_gives_up_a_lock_that_stays(host: Host, script: Path, tmp_path: Path) -> None:
    async def story(it: Followed) -> None:
        await asyncio.to_thread(host.delay, 60.0)
        it.device.slow = 45.0
        it.begin()
        await it.event("suspend-followed")
        await asyncio.to_thread(host.prepare, sleep=True)
        await it.event("suspend-begins")
        assert 4.0 <= await asyncio.to_thread(seconds, script) < 40.0
        assert it.device.calls == ["sleep"] and it.events.counts["suspend-asleep"] == 0

    play(tmp_path, story)


@pytest.mark.parametrize("ended", ["logind", "bus"])
def test_pre_down_does_not_wait_for_what_is_gone(host: Host, script: Path, ended: str) -> None:
    host.stop("logind")
    if ended == "bus":
        host.stop("bus")
    assert seconds(script) < 3.0
