"""Mobile IP inside WireGuard, with real daemons: a home agent at the server, a device behind NATs, a correspondent in the core."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.wireguard.walking import SERVER, Walk

HOME, CORRESPONDENT = "10.78.0.2", "198.51.100.1"
AT_SERVER = f"""
[home_agent]
address = "{SERVER}"
home_prefixes = ["10.78.0.0/24"]
[[home_agent.mobile]]
home_address = "{HOME}"
spi = 1000
key_file = "key"
"""
AT_DEVICE = f"""
[mobile_node]
home_address = "{HOME}"
home_agent = "{SERVER}"
mode = "colocated"
links = ["INTERFACE"]
lifetime = 60
spi = 1000
key_file = "key"
"""
ECHO = """
import socket
listener = socket.create_server(("198.51.100.1", 7777))
peer, _ = listener.accept()
while data := peer.recv(65536):
    peer.sendall(data)
"""
CLIENT = """
import socket, sys, time
for _ in range(100):
    try:
        peer = socket.create_connection(("198.51.100.1", 7777), source_address=("10.78.0.2", 0))
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
end = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end:
    text = b"%08d" % number
    peer.sendall(text)
    got = b""
    while len(got) < 8:
        got += peer.recv(8 - len(got))
    assert got == text
    number += 1
    time.sleep(0.01)
print(number)
"""


@pytest.fixture
def walk(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Walk]:
    made = Walk(tmp_path, namespace)
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("00112233445566778899aabbccddeeff")
    for name, more in (("sv", AT_SERVER), ("dv", AT_DEVICE)):
        path, own = tmp_path / f"{name}.toml", made.interfaces[name]
        text = path.read_text().replace('"]\nstate', f'", "{own}"]\nstate')
        path.write_text(text + more.replace("INTERFACE", own))
    made.spaces["core"].ip("route add 10.78.0.0/24 via 198.51.100.2")
    yield made
    made.close()


def test_connection_of_a_home_address_survives_a_walk(walk: Walk) -> None:
    """Registration and tunnel go inside WireGuard: the networks on the way see nothing else of the device."""
    watched = subprocess.Popen(
        ["nsenter", f"--net={walk.spaces['home'].path}", "tcpdump", "-nlU", "-i", "any", "ip"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        walk.start("sv", "dv")
        walk.until(lambda: walk.events("dv", "registered"), "the registration", 20)
        walk.until(lambda: walk.ping("core", HOME, 1), "an answer of the home address", 10)
        echo, client = (
            subprocess.Popen(
                ["nsenter", f"--net={walk.spaces[name].path}", sys.executable, "-c", text, "4"],
                stdout=subprocess.PIPE, text=True,
            )
            for name, text in (("core", ECHO), ("dv", CLIENT))
        )  # fmt: skip
        time.sleep(1.0)
        walk.enter("cafe")
        time.sleep(1.0)
        walk.leave("home")
        said = client.communicate(timeout=20)[0]
        assert client.returncode == 0 and int(said) > 100
        assert echo.wait(5) == 0
        assert "203.0.113.6:" in walk.wg("sv", "endpoints")
        assert len(walk.events("dv", "registered")) == 1, "the care-of address has not changed"
    finally:
        watched.terminate()
    packets = [line for line in watched.communicate(timeout=5)[0].splitlines() if line.strip()]
    assert len(packets) > 100
    # before the server has begun, its host says that nobody is at the port
    own = (".51820: UDP", ".51820 > ", "udp port 51820 unreachable")
    assert not [line for line in packets if not any(text in line for text in own)]
