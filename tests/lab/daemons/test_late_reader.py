"""A program that has stopped reading keeps neither the wake nor the next sleep waiting, and gets every byte in the end."""

import os
import signal
from pathlib import Path

import pytest

from locum.lab.processes import wait_until
from locum.lab.steps.story import download, web
from locum.lab.world import Lab

MEG = 1 << 20


def kinds(lab: Lab) -> list[str]:
    return [str(session["kind"]) for session in lab.sessions("mn")]


def mobile(lab: Lab) -> str:
    return str(lab.ask("mn", "status")["mobile_node"]["state"])


@pytest.mark.exhaustive
def test_a_program_that_does_not_read(tmp_path: Path) -> None:
    with Lab("late-reader", tmp_path, captures=False) as lab:
        lab.wait_registered()
        server, digests = web(lab, [("film", 30 * MEG), ("series", 80 * MEG)], "2m")
        paused = download(lab, "film", digests["film"])
        paused.wait_for(MEG)
        os.kill(paused.program.pid, signal.SIGSTOP)
        other = download(lab, "series", digests["series"])
        other.wait_for(MEG)
        lab.pause(5)
        for _ in range(2):
            lab.close_lid()
            lab.pause(2)
            lab.restore()
            lab.command("mn", "wake")
            assert mobile(lab) == "awake"
            other.wait_for(other.received + MEG // 2)
        assert not kinds(lab), "what came for it does not wait until it reads"
        os.kill(paused.program.pid, signal.SIGCONT)
        other.program.kill()
        assert paused.finish(120) == 0 and paused.correct
        assert (server.connections("/film"), server.connections("/series")) == (1, 1)
        wait_until("the stand-in to have dropped its sessions", lambda: not lab.sessions("mnps"), 10.0)
