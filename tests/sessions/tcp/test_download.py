"""A stock curl downloads from a stock nginx while its device sleeps and wakes."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sessions.sleepworld import PEER4, PEER6, World

SIZE = 104 << 20


@pytest.fixture
def nginx(world: World, tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "www").mkdir()
    os.chmod(tmp_path, 0o755)
    block = os.urandom(1 << 20)
    with open(tmp_path / "www" / "big", "wb") as big:
        for number in range(SIZE >> 20):
            big.write(number.to_bytes(4, "big") + block[4:])
    log = tmp_path / "access.log"
    (tmp_path / "nginx.conf").write_text(
        f"""daemon off; pid {tmp_path}/pid; error_log {tmp_path}/error.log; user root; worker_processes 1;
        events {{ }}
        http {{ access_log off; log_format l "$connection $status $body_bytes_sent"; sendfile off;
        client_body_temp_path {tmp_path}/body; proxy_temp_path {tmp_path}/t1; fastcgi_temp_path {tmp_path}/t2;
        uwsgi_temp_path {tmp_path}/t3; scgi_temp_path {tmp_path}/t4; client_max_body_size 1g;
        server {{ listen 80; listen [::]:80; root {tmp_path}/www; access_log {log} l; limit_rate 30m;
        dav_methods PUT; }} }}"""
    )
    server = world.network.start("peer", "nginx", "-c", str(tmp_path / "nginx.conf"))
    time.sleep(0.3)
    yield tmp_path
    server.terminate()
    server.wait()


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("peer", [PEER4, f"[{PEER6}]"])
def test_a_download_moves_twice_and_back(world: World, nginx: Path, peer: str) -> None:
    got = nginx / "got"
    curl = world.network.start(
        "device", "curl", "-sS", "-o", str(got), f"http://{peer}/big", stderr=subprocess.PIPE
    )
    for after in (4 << 20, 60 << 20):
        world.until(lambda after=after: got.exists() and got.stat().st_size > after)  # type: ignore[misc]
        world.sleep()
        frozen_at = got.stat().st_size
        world.until(lambda: sum(session.spool.total for session in world.away) > 2 << 20)
        assert got.stat().st_size == frozen_at
        finals = world.wake()
        assert finals[0].received > 1 << 20
    assert curl.wait(20) == 0, curl.stderr.read() if curl.stderr else ""
    assert sha(got) == sha(nginx / "www" / "big")
    lines = (nginx / "access.log").read_text().splitlines()
    assert len(lines) == 1
    assert lines[0].split()[1:] == ["200", str(SIZE)]


def test_an_upload_moves_there_and_back(world: World, nginx: Path) -> None:
    source = nginx / "www" / "big"
    curl = world.network.start("device", "curl", "-sS", "--limit-rate", "30M", "-T", str(source), f"http://{PEER4}/up", stderr=subprocess.PIPE)  # fmt: skip
    for _ in range(2):
        time.sleep(0.7)
        assert world.candidates()
        world.sleep()
        world.stay(0.3)
        world.wake()
    assert curl.wait(30) == 0, curl.stderr.read() if curl.stderr else ""
    assert sha(nginx / "www" / "up") == sha(source)
    assert [line.split()[1] for line in (nginx / "access.log").read_text().splitlines()] == ["201"]
