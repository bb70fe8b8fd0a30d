"""Kernels that let a connection be put into an accept queue: `impossible` agrees with the kernel."""

import os
import time

import pytest

from locum.sessions.listening import replay
from locum.sessions.tcp.errors import SessionError
from tests.sessions.listening.test_accepting import Asleep
from tests.sessions.sleepworld import Network


@pytest.mark.parametrize(
    ("release", "can"),
    [("6.1.0-56-amd64", False), ("6.9.12", False), ("6.10", True), ("6.12.9+bpo-amd64", True), ("7.0", True)],
)
def test_releases(release: str, can: bool) -> None:
    assert (replay.impossible(release) is None) is can


def test_replay_support_matches_this_kernel(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    said = replay.impossible(os.uname().release)
    asleep = Asleep(network)
    try:
        asleep.program("0.0.0.0")
        listener = asleep.listen(4)
        asleep.connect(4).sendall(b"request")
        time.sleep(0.05)
        sock, record = asleep.accept(listener)
        if said is not None:
            with pytest.raises(SessionError, match="Linux"):
                asleep.give_back(sock, record)
        monkeypatch.setattr(replay, "impossible", lambda _: None)
        works = True
        try:
            asleep.give_back(sock, record)
        except SessionError:
            works = False
        assert works is (said is None)
    finally:
        asleep.close()
