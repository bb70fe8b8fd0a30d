"""The descriptor store: stored descriptors outlive the process that stored them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.sessions.holder import FdStore

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    where = tmp_path / "holder"
    process = subprocess.Popen(
        [sys.executable, "-m", "locum.sessions.holder", str(where)],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    yield where
    process.terminate()
    assert process.wait(5) == 0


def test_store_take_and_remove(path: Path) -> None:
    store = FdStore.holder(path)
    ends = {f"{number:032x}-{number}": socket.socketpair() for number in range(450)}
    for name, (kept, _) in ends.items():
        store.store(name, kept.fileno())
        kept.close()
    store.close()
    later = FdStore.holder(path)
    taken = later.take()
    assert taken.keys() == ends.keys()
    for name, (_, other) in ends.items():
        other.send(b"x")
        assert os.read(taken[name], 1) == b"x"
        assert not os.get_inheritable(taken[name])
        os.close(taken[name])
    for name in list(ends)[1:]:
        later.remove(name)
    assert list(later.take()) == list(ends)[:1]
    last = list(ends.values())[-1][1]
    last.settimeout(20)
    assert last.recv(1) == b""  # no process holds its other end any more


def test_only_the_owner_can_talk_to_it(path: Path) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    assert Path(f"{path}.notify").stat().st_mode & 0o777 == 0o600


def test_a_name_that_the_store_cannot_keep(path: Path) -> None:
    for name in ("", "a:b", "a\nFDSTOREREMOVE=1", "x" * 256):
        with pytest.raises(ValueError, match="not a name"):
            FdStore.holder(path).store(name, 0)


def test_missing_holder_raises_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file|refused"):
        FdStore.holder(tmp_path / "nobody")


def test_the_service_managers_way(tmp_path: Path) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    store = FdStore.systemd({"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert store is not None
    kept, _ = socket.socketpair()
    store.store("abc-1", kept.fileno())
    text, fds, _, _ = socket.recv_fds(manager, 4096, 4)
    assert set(text.decode().split("\n")) == {"FDSTORE=1", "FDPOLL=0", "FDNAME=abc-1"}
    assert len(fds) == 1
    os.close(fds[0])
    store.remove("abc-1")
    assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=abc-1"
    assert FdStore.systemd({}) is None
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
    assert store.take(environment) == {}
    # In a child, where descriptors 3 and 4 can be the service manager's.
    script = (
        "import os; from locum.sessions.holder import FdStore\n"
        "os.dup2(1, 3); os.dup2(1, 4)\n"
        "e = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2', 'LISTEN_FDNAMES': 'abc-1:def-2',"
        f" 'NOTIFY_SOCKET': {str(tmp_path / 'notify')!r}}}\n"
        "store = FdStore.systemd(e); print(store.take(e), sorted(e), os.get_inheritable(4))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.stdout.strip() == "{'abc-1': 3, 'def-2': 4} ['NOTIFY_SOCKET'] False"
