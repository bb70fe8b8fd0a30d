"""Broadcasts of the home network reach real devices that have asked for them, and no others (RFC 5944 section 4.3)."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.test_real_nodes import HA, MN, World

PORT = 9999
HOME = HA.replace("[home_agent]\n", '[home_agent]\nbroadcast_links = ["eth0"]\n')
WANTED = 'lifetime = 60\nbroadcasts = true\nhome_network = "10.36.0.0/24"\n'
VISITING = MN.replace("lifetime = 60\n", WANTED)
# Destinations of broadcasts, and the address from which the host of the home network sends each
EVERYBODY, NETWORK = ("255.255.255.255", "10.1.0.2"), ("10.36.0.255", "10.36.0.7")
COLOCATED = VISITING + 'mode = "colocated"\nnat_traversal = "off"\n'


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[World]:
    made = World(tmp_path, namespace)
    (tmp_path / "ha.toml").write_text(HOME.format(common=made.common("ha")))
    yield made
    made.close()


def heard(world: World, listener: socket.socket, kind: tuple[str, str]) -> bool:
    """True if the device gets a broadcast that a host of the home network sends until it is there, or for a second."""
    (to, own), text = kind, b"for all of " + kind[0].encode()
    with world.spaces["cn"].entered():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    end = time.monotonic() + 1
    with sender:
        while time.monotonic() < end:
            sender.sendto(text, (to, PORT))
            try:
                while True:
                    data, (source, _) = listener.recvfrom(100)
                    if data == text:
                        assert source == own
                        return True
            except TimeoutError:
                continue
    return False


@pytest.mark.parametrize(
    ("device", "care_of", "wanted"),
    [(MN, "10.2.0.2", False), (VISITING, "10.2.0.2", True), (COLOCATED, "10.3.0.77", True)],
)
def test_broadcasts_reach_devices_that_ask(world: World, device: str, care_of: str, wanted: bool) -> None:
    (world.folder / "mn.toml").write_text(device.format(common=world.common("mn")))
    mn = world.spaces["mn"]
    if care_of == "10.3.0.77":
        mn.ip("addr add 10.3.0.77/24 dev radio0")
        mn.ip("route add default via 10.3.0.1")
        world.spaces["ha"].ip("route add 10.3.0.0/24 via 10.2.0.2")
        world.spaces["an"].run("sysctl", "-q", "net.ipv4.ip_forward=1")
    else:
        world.start("an")
    world.start("ha")
    world.start("mn")
    world.until(lambda: care_of in world.care_of(), "the registration", 40.0)
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer through the tunnels", 40.0)
    # The host knows the network's broadcast address, and has no route to its other addresses
    world.spaces["cn"].ip("addr add 10.36.0.7/32 brd 10.36.0.255 dev eth0")
    with mn.entered():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listener:
        listener.bind(("0.0.0.0", PORT))
        listener.settimeout(0.1)
        if wanted:
            world.until(lambda: heard(world, listener, EVERYBODY), "a broadcast", 40.0)
            world.until(lambda: heard(world, listener, NETWORK), "one of the network", 40.0)
        else:
            assert not heard(world, listener, EVERYBODY) and not heard(world, listener, NETWORK)
