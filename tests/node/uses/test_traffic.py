"""Programs of a real co-located device behind a masquerade use its home address, and nothing leaks while it has no agent."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace, join
from tests.node.host.test_network import picture
from tests.node.test_real_nodes import settled
from tests.node.uses.device import CORRESPONDENT, DEVICE, HOME, HOME6, VISITED, Roaming

ECHO = """
import socket
with socket.create_server(("0.0.0.0", 7000)) as server:
    print("ready", flush=True)
    connection, _ = server.accept()
    connection.sendall(connection.recv(100))
"""


def sent_to_router(world: Roaming, act: Callable[[], object]) -> str:
    """IP packets, as tcpdump sees them, from the device to the visited network's router meanwhile."""
    command = [
        "nsenter",
        f"--net={world.spaces['an'].path}",
        "tcpdump",
        "-nlqi",
        "radio0",
        "-Qin",
        "ip",
        "or",
        "ip6",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as dump:
        assert dump.stderr is not None
        while "listening on" not in dump.stderr.readline():
            pass
        act()
        time.sleep(0.3)
        dump.terminate()
        return dump.communicate()[0]


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Roaming]:
    made = Roaming(tmp_path, namespace)
    made.visit()
    yield made
    made.close()


def test_every_program_uses_the_home_address(world: Roaming) -> None:
    device = world.spaces["mn"]
    world.until(lambda: settled(device), "link-local addresses")
    before = picture(device)
    world.configure('traffic = "all"\n')
    world.begin()
    assert f"src {HOME}" in world.source(CORRESPONDENT)
    assert f"src {HOME6}" in world.source("2001:db8::1")
    assert world.ping("mn", CORRESPONDENT)
    # Local networks, addresses that a program chooses, marked packets and groups: as without it
    assert f"src {VISITED}" in world.source("10.3.0.1")
    assert "via 10.3.0.1" in world.source(CORRESPONDENT, "from", VISITED)
    assert "via 10.3.0.1" in world.source(CORRESPONDENT, "mark", "0x4c57")
    assert "dev radio0" in world.source("239.1.2.3")
    assert "via 10.3.0.1" in world.source(CORRESPONDENT, "oif", "radio0")
    # A session keeps its address also where the visited network has the prefix of its peer
    assert "dev lc-mn" in world.source("10.3.0.9", "from", HOME)
    # Another program takes everything away
    device.run(
        "sh",
        "-c",
        "ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default; ip route flush table 436",
    )
    world.until(lambda: f"src {HOME}" in world.source(CORRESPONDENT), "the rules again")
    world.until(lambda: "via 10.3.0.1" in world.source(CORRESPONDENT, "mark", "0x4c57"), "the mark again")
    world.kill("mn")
    assert f"src {HOME}" in world.source(CORRESPONDENT)
    assert world.ping("mn", CORRESPONDENT)
    world.start("mn")
    assert world.ping("mn", CORRESPONDENT)
    assert world.terminate("mn") == 0
    assert picture(device) == before


def test_nothing_leaves_by_another_way_without_an_agent(world: Roaming) -> None:
    world.configure('traffic = "all"\n')
    guest = world.make("guest")
    join(guest, "eth0", world.spaces["mn"], "guest0")
    guest.ip("addr add 172.18.0.2/24 dev eth0")
    guest.ip("route add default via 172.18.0.1")
    device = world.spaces["mn"]
    device.ip("addr add 172.18.0.1/24 dev guest0")
    device.run("sysctl", "-q", "net.ipv4.ip_forward=1")
    world.start("mn")  # no home agent answers
    seen = sent_to_router(
        world,
        lambda: (
            device.run("ping", "-c2", "-i0.05", "-W1", CORRESPONDENT, check=False),
            guest.run("ping", "-c2", "-i0.05", "-W1", CORRESPONDENT, check=False),
        ),
    )
    assert CORRESPONDENT not in seen, seen
    around = sent_to_router(
        world, lambda: device.run("ping", "-c1", "-W1", "-m", "19543", CORRESPONDENT, check=False)
    )
    assert f"{VISITED} > {CORRESPONDENT}" in around
    world.start("ha")
    world.until(world.registered, "the registration")
    assert world.ping("mn", CORRESPONDENT)


def test_session_lives_on_while_there_is_no_agent(world: Roaming) -> None:
    world.configure('traffic = "all"\n')
    world.begin()
    command = ["nsenter", f"--net={world.spaces['cn'].path}", sys.executable, "-c", ECHO]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None and server.stdout.readline() == "ready\n"
    with world.spaces["mn"].entered():
        connection = socket.create_connection((CORRESPONDENT, 7000), timeout=20)
    with connection:
        assert connection.getsockname()[0] == HOME
        world.spaces["mn"].ip(f"addr del {VISITED}/24 dev radio0")
        connection.sendall(b"while nowhere")
        world.visit()
        assert connection.recv(100) == b"while nowhere"
    assert server.wait(10) == 0


def test_ipv6_does_not_go_around_a_home_without_it(world: Roaming) -> None:
    text = DEVICE.replace(f'home_address_v6 = "{HOME6}"\n', "")
    device = world.spaces["mn"]
    device.ip("-6 addr add 2001:db8:3::4/64 dev radio0 nodad")
    device.ip("-6 route add default via 2001:db8:3::1 dev radio0")
    world.configure('traffic = "all"\n', text)
    world.start("mn")
    assert "No route to host" in world.source("2001:db8::1")
    assert "dev radio0" in world.source("2001:db8:3::1")
    assert "dev radio0" in world.source("2001:db8::1", "from", "2001:db8:3::4")
    assert world.terminate("mn") == 0
    assert "dev radio0" in world.source("2001:db8::1")
    world.configure('traffic = "all"\nipv6_around = true\n', text)
    world.start("mn")
    assert "dev radio0" in world.source("2001:db8::1")


def test_only_marked_programs_use_it_with_run(world: Roaming) -> None:
    world.configure('traffic = "run"\n')
    world.begin()
    assert f"src {VISITED}" in world.source(CORRESPONDENT)
    for target, home in ((CORRESPONDENT, HOME), ("2001:db8::1", HOME6)):
        assert f"src {home}" in world.source(target, "mark", "0x4c48")
    assert "dev lc-mn" in world.source(CORRESPONDENT, "from", HOME)
    assert world.ping("mn", CORRESPONDENT, 3, "-m", str(0x4C48))
