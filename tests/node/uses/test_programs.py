"""`locum run` on a real co-located device: real programs get the home address or go around it, and leave no group."""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from locum.node.sessions.freezer_name import freezer_name
from locum.sessions.programs.freezer import Freezer, unified_root
from locum.sessions.programs.process import process
from tests.node.conftest import Namespace
from tests.node.uses.device import CORRESPONDENT, HOME, VISITED, Roaming

SERVER = f"""
import socket, socketserver, threading
class Tcp(socketserver.StreamRequestHandler):
    def handle(self):
        if self.rfile.readline().startswith(b"GET"):
            self.wfile.write(b"HTTP/1.0 200 OK\\r\\n\\r\\n")
        self.wfile.write(self.client_address[0].encode())
class Udp(socketserver.DatagramRequestHandler):
    def handle(self):
        self.wfile.write(self.client_address[0].encode())
socketserver.ThreadingTCPServer.allow_reuse_address = True
threading.Thread(target=socketserver.ThreadingUDPServer(("{CORRESPONDENT}", 7000), Udp).serve_forever).start()
server = socketserver.ThreadingTCPServer(("{CORRESPONDENT}", 7000), Tcp)
print("ready", flush=True)
server.serve_forever()
"""
URL = f"http://{CORRESPONDENT}:7000/"
UDP = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(5)
s.sendto(b"?", ("{CORRESPONDENT}", 7000))
print(s.recv(100).decode(), s.getsockname()[0])
"""
MAPPED = f"""
import socket
s = socket.create_connection(("::ffff:{CORRESPONDENT}", 7000), 5)
s.sendall(b"?\\n")
print(s.recv(100).decode())
"""


# The directories of a test are those of its user
_SEARCHES = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Roaming]:
    made = Roaming(tmp_path, namespace)
    made.visit()
    command = ["nsenter", f"--net={made.spaces['cn'].path}", sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        try:
            yield made
        finally:
            server.kill()
            made.close()
    assert not groups(made)


def groups(world: Roaming) -> list[Path]:
    """Control groups of commands of this device, not of one in another run of the tests."""
    root = unified_root()
    assert root is not None
    return [
        path
        for path in root.rglob(f"locum.run.{freezer_name('mn', world.folder / 'run')}.*")
        if path.is_dir()
    ]


def command(world: Roaming, *words: str, user: str | None = None) -> list[str]:
    """`locum run` in the device's namespace."""
    as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *_SEARCHES] if user else []
    locum = [sys.executable, "-m", "locum", "--socket", str(world.folder / "run/mn.sock"), "run"]
    return ["nsenter", f"--net={world.spaces['mn'].path}", *as_user, *locum, *words]


def output(world: Roaming, *words: str, user: str | None = None) -> str:
    """Standard output of a command that succeeds."""
    done = subprocess.run(
        command(world, *words, user=user), capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_programs_get_the_home_address(world: Roaming) -> None:
    world.configure('traffic = "run"\n')
    world.begin()
    device = world.spaces["mn"]
    outside = "10.2.0.2"  # of the masquerade
    assert device.run("curl", "-s", "-m5", URL).stdout == outside
    assert output(world, "--", "curl", "-s", "-m5", URL) == HOME
    assert output(world, "--", sys.executable, "-c", MAPPED) == HOME
    assert output(world, "--", sys.executable, "-c", UDP).split()[0] == HOME
    assert output(world, "--", "sh", "-c", f"curl -s -m5 {URL} & wait") == HOME
    assert "0% packet loss" in output(world, "--", "ping", "-c1", "-W2", CORRESPONDENT)
    assert output(world, "--", "curl", "-s", "-m5", "--interface", VISITED, URL) == outside
    assert output(world, "--around", "--", "curl", "-s", "-m5", URL) == outside
    assert output(world, "--", *command(world, "--around", "--", "curl", "-s", "-m5", URL)) == outside
    world.until(lambda: not groups(world), "the end of the groups")


def test_a_user_without_privilege_runs_programs(world: Roaming) -> None:
    world.configure('traffic = "all"\n')
    world.begin()
    assert output(world, "--", "curl", "-s", "-m5", URL, user="65534") == HOME
    assert output(world, "--around", "--", "curl", "-s", "-m5", URL, user="65534") == "10.2.0.2"
    assert output(world, "--", "id", "-u", user="65534") == "65534"
    assert subprocess.run(command(world, "--", "sh", "-c", "exit 7"), check=False).returncode == 7
    for words, code, said in (
        (["--", "/no/such"], 127, "No such file"),
        (["--", "/etc"], 126, "Permission denied"),
        (["--wrong"], 2, "no option"),
    ):
        done = subprocess.run(command(world, *words), capture_output=True, text=True, check=False)
        assert done.returncode == code and said in done.stderr, done
    elsewhere = command(world, "--", "true")[2:]
    done = subprocess.run(elsewhere, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "another network namespace" in done.stderr
    world.until(lambda: not groups(world), "the end of the groups")


def test_groups_outlive_the_daemon_and_freezing(world: Roaming) -> None:
    world.configure('traffic = "run"\n')
    world.begin()
    script = f"read x; curl -s -m5 {URL}; echo; read x; curl -s -m5 {URL}"
    with subprocess.Popen(
        command(world, "--", "sh", "-c", script),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        world.until(lambda: groups(world), "its group")
        (group,) = groups(world)
        world.until(lambda: "sh" in Path(f"/proc/{running.pid}/comm").read_text(), "the command")
        world.kill("mn")
        running.stdin.write("\n")
        assert running.stdout.readline().strip() == HOME
        world.start("mn")
        found = process(running.pid)
        assert found is not None
        freezer = Freezer("uses-test", world.folder, cgroups=True)
        try:
            assert not freezer.freeze([found])
            assert str(group.name) in Path(f"/proc/{running.pid}/cgroup").read_text()
        finally:
            freezer.thaw([found])
        assert Path(f"/proc/{running.pid}/cgroup").read_text().strip().endswith(group.name)
        running.stdin.write("\n")
        assert running.stdout.read().strip() == HOME
        assert running.wait() == 0
    world.until(lambda: not groups(world), "the end of the group")
    with subprocess.Popen(command(world, "--", "sleep", "60")) as killed:
        world.until(lambda: groups(world), "its group")
        killed.send_signal(signal.SIGKILL)
    world.until(lambda: not groups(world), "the end of the group of a killed command")
    assert world.terminate("mn") == 0
    assert not (world.bpf / "locum-uses").exists()


def test_bound_devices_and_wrong_requests_are_refused(world: Roaming) -> None:
    world.configure("")
    world.start("mn")
    done = subprocess.run(command(world, "--", "true"), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and 'traffic is "bound"' in done.stderr
    for line in (b"{}\n", b"x\n", b'{"around": 1}\n', b"[" * 900 + b"\n"):
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(str(world.folder / "run/mn.run"))
            asking.sendall(line)
            assert b'"ok": false' in asking.recv(1000)
    refusals = world.ask("mn", "counters")["refusals"]
    assert refusals["run-unreadable"] == 4 and refusals["run-refused"] == 1
