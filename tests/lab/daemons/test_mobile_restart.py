"""The mobile node's daemon is killed at any moment of a wake: no byte comes twice, none is missing, nothing stays behind."""

import contextlib
import json
import os
import random
import subprocess
import threading
import zlib
from pathlib import Path

import pytest

from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.steps.story import live, watch
from locum.lab.world import Lab
from locum.node.control.client import NodeUnreachable

MEG = 1 << 20


def state(lab: Lab) -> str | None:
    with contextlib.suppress(LabError, NodeUnreachable):
        return str(lab.ask("mn", "status")["mobile_node"]["state"])
    return None


def wake(lab: Lab) -> None:
    with contextlib.suppress(LabError):
        lab.command("mn", "wake")


def awake(lab: Lab) -> bool:
    """True when it is; a wake that was given up, of the run that was killed or of a busy machine, is asked for again."""
    if state(lab) == "asleep":
        wake(lab)
    return state(lab) == "awake"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_killed_while_waking(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with Lab(f"restart{seed}", tmp_path, captures=False) as lab:
        lab.wait_registered()
        server, films = live(lab)
        loaded = watch(lab, films)
        for _ in range(3):
            loaded.wait_for(loaded.received + MEG)
            lab.close_lid()
            lab.pause(2.5)
            lab.restore()
            waking = threading.Thread(target=wake, args=(lab,))
            waking.start()
            lab.pause(chance.uniform(0.3, 2.2))  # the command itself takes a third of a second to start
            lab.crash("mn")
            lab.restart("mn")
            waking.join()
            wait_until("the mobile node to be awake", lambda: awake(lab), 30.0)
        assert loaded.finish(60) == 0
        assert loaded.correct
        assert server.connections("/live/film") == 1
        lost = [event for event in lab.timeline.events() if event.kind == "session-lost"]
        assert not lost
        nothing_is_left(lab)


def nothing_is_left(lab: Lab) -> None:
    """Of the sessions that were away: sockets, files, rows, flows, frozen programs."""
    wait_until("the stand-in to have dropped its sessions", lambda: not lab.sessions("mnps"), 10.0)
    assert not lab.sessions("mn")
    spool = lab.place.path / "state" / "mnps" / "spool"
    assert not list(spool.iterdir())
    assert not list(Path(f"/dev/shm/locum-mnps-{zlib.crc32(os.fsencode(spool)):08x}").iterdir())
    holder = next(program for program in lab.processes.programs if program.name == "holder-mnps")
    held = [os.readlink(path) for path in Path(f"/proc/{holder.pid}/fd").iterdir()]
    assert sum(link.startswith("socket:") for link in held) == 2  # those it listens on
    frozen = zlib.crc32(os.fsencode(lab.place.path / "run"))
    assert not list(Path("/sys/fs/cgroup").rglob(f"locum-mn-{frozen:08x}-*"))
    tables = list(lab.place.bpf_root.glob("locum/mn*/**/flows"))
    assert len(tables) == 2, "of the device and of the stand-in"
    for table in tables:  # the daemon deletes removed entries a second later
        wait_until(f"{table} to be empty", lambda table=table: not entries(table), 10.0)  # type: ignore[misc]


def entries(table: Path) -> object:
    """Return the entries of a pinned map."""
    dump = subprocess.run(
        ["bpftool", "-j", "map", "dump", "pinned", str(table)], capture_output=True, check=True
    )
    return json.loads(dump.stdout)
