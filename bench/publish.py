"""Requests for a small file that the `publish` proxy serves in a second of its processor time, beside nginx.

Both servers are one process with one worker, on the loopback, with the same file, its validators, and an access log. Clients
keep their connections: each round, all of them ask, and then all read. Processor time is that of the server alone, user and
system, so that the clients' own share and other programs do not count.
"""

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from bench.measurement import Measurement, Settings, in_turns
from bench.namespaces import CommandFailed
from locum.apps.publish.intake import UPLOADED
from locum.node.apps.outlet import Outlet
from locum.node.apps.process import AppProcess
from locum.node.config.settings import AppLimits

HERE = IPv4Address("127.0.0.1")
SIZE = 1000
"""Bytes of the file."""
CLIENTS = 32
ROUNDS = 1500
"""Requests of each client in one sample."""
_REQUEST = (
    b"GET /page.html HTTP/1.1\r\nHost: device.example\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n"
)
_TICK = os.sysconf("SC_CLK_TCK")


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _read(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data or len(data) - data.index(b"\r\n\r\n") - 4 < SIZE:
        piece = client.recv(65536)
        if not piece:
            raise CommandFailed("the server has closed a connection")
        data += piece
    if not data.startswith(b"HTTP/1.1 200 "):
        raise CommandFailed(f"the server answers {data[:40]!r}")
    return data


def _rate(port: int, pid: int, rounds: int) -> float:
    """Requests in a second of the server's processor time."""
    clients = [socket.create_connection((str(HERE), port)) for _ in range(CLIENTS)]
    try:
        before = _processor_seconds(pid)
        for _ in range(rounds):
            for client in clients:
                client.sendall(_REQUEST)
            for client in clients:
                _read(client)
        return CLIENTS * rounds / (_processor_seconds(pid) - before)
    finally:
        for client in clients:
            client.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((str(HERE), 0))
        return int(probe.getsockname()[1])


@contextmanager
def _nginx(folder: Path, port: int) -> Iterator[int]:
    """The process number of nginx's worker."""
    (folder / "page.html").write_bytes(b"x" * SIZE)
    folder.chmod(0o755)
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"user root; worker_processes 1; daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{ worker_connections 256; }} http {{ {places} access_log {folder}/access.log; sendfile on; tcp_nodelay on;"
        f"keepalive_requests 1000000; server {{ listen {HERE}:{port}; root {folder}; types {{ text/html html; }} }} }}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
    server = subprocess.Popen(command)
    try:
        _wait_for(port)
        yield server.pid
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((str(HERE), port)).close()
            return
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


async def _measured(
    folder: Path, settings: Settings, baseline: int, other: int
) -> tuple[tuple[float, ...], ...]:
    """Samples of the proxy, and of nginx with this port and process number."""
    limits = AppLimits(processor=100_000)
    directory = folder / "proxy"
    directory.mkdir()
    _write_archive(directory / UPLOADED)
    ready = asyncio.Event()
    problem: list[str] = []
    outlet = Outlet((HERE,), 1, directory, limits)

    def ended(reason: str) -> None:
        problem.append(f"{reason} {[*process.said]}")
        print(problem)

    process = AppProcess("publish", limits, lambda _effects: None, ready.set, ended, outlet)
    try:
        port = _free_port()
        await asyncio.wait_for(ready.wait(), 60)
        process.send("begin", {"port": port, "connections_per_peer": 200}, {})
        loop = asyncio.get_running_loop()
        rounds = max(int(ROUNDS * min(10 * settings.scale, 1.0)), 10)
        await loop.run_in_executor(None, _wait_for, port)
        ways = (lambda: _rate(port, process.pid, rounds), lambda: _rate(baseline, other, rounds))
        samples = await loop.run_in_executor(None, lambda: in_turns(settings.rounds, *ways))
        if problem:
            raise CommandFailed(f"the proxy has ended: {problem[0]}")
        return samples
    finally:
        process.kill()
        outlet.close()


def _write_archive(file: Path) -> None:
    import io
    import tarfile

    with tarfile.open(file, "w") as tar:
        header = tarfile.TarInfo("page.html")
        header.size = SIZE
        tar.addfile(header, io.BytesIO(b"x" * SIZE))


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `publish_small_file`."""
    with tempfile.TemporaryDirectory(prefix="lb-publish-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        root = folder / "nginx"
        root.mkdir()
        port = _free_port()
        with _nginx(root, port) as pid:
            ours, theirs = asyncio.run(_measured(folder, settings, port, pid))
    note = f"{SIZE} bytes, {CLIENTS} connections that persist; per second of the server's processor time"
    return [Measurement("publish_small_file", "requests/s", ours, theirs, (note,))]
