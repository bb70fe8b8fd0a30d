"""A visitor joins a multicast group on its radio link, and real nodes bring it there: IPv4 and IPv6, restarts, the end."""

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from locum.roles.action_values.addresses import Addr
from tests.dataplane.kernel.test_groups import GROUP4, GROUP6, PORT
from tests.node.conftest import Namespace
from tests.node.test_real_nodes import World


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[World]:
    made = World(tmp_path, namespace)
    file = tmp_path / "an.toml"
    file.write_text(file.read_text() + 'multicast_link = "eth0"\n')
    yield made
    made.close()


def joined(space: Namespace, group: Addr, link: str) -> socket.socket:
    """A socket that is a member on the link; its time-out is short, for data that may not arrive yet."""
    with space.entered():
        index = socket.if_nametoindex(link)
        family = socket.AF_INET if group.version == 4 else socket.AF_INET6
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.settimeout(0.3)
        made.bind((str(group), PORT))
        number = index.to_bytes(4, "little")
        if group.version == 4:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group.packed + bytes(4) + number)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group.packed + number)
    return made


class Source:
    """Speaks to a group from the home agent's host, on the link that it shares with the access node."""

    def __init__(self, world: World, group: Addr) -> None:
        self.group, self.said = group, 0
        with world.spaces["ha"].entered():
            number = socket.if_nametoindex("eth1").to_bytes(4, "little")
            if group.version == 4:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + number)
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
            else:
                self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)

    def heard_by(self, ear: socket.socket) -> bool:
        """True if data sent now arrives."""
        self.said += 1
        data = f"{self.said}".encode()
        self.socket.sendto(data, (str(self.group), PORT))
        try:
            while ear.recv(100) != data:
                continue
        except TimeoutError:
            return False
        return True


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_a_visitor_in_a_group(world: World, group: Addr) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration")
    access = world.spaces["an"]

    def is_member() -> bool:
        return str(group) in access.ip("maddr show dev eth0")

    def forwarded() -> list[str]:
        return [row["group"] for row in world.ask("an", "group list")]

    source, ear = Source(world, group), joined(world.spaces["mn"], group, "radio0")
    with source.socket:
        world.until(lambda: source.heard_by(ear), "the group on the radio link", 20)
        world.until(lambda: is_member() and str(group) in forwarded(), "the node to be a member", 20)
        world.kill("an")
        world.until(lambda: source.heard_by(ear), "the kernel to go on by itself")
        assert is_member()
        world.start("an")
        world.until(lambda: source.heard_by(ear), "the group after a restart", 20)
        ear.close()
        world.until(lambda: str(group) not in forwarded() and not is_member(), "the end of the group", 20)
        with joined(world.spaces["mn"], group, "radio0") as ear:
            world.until(lambda: source.heard_by(ear), "the group again", 20)
            assert world.terminate("an") == 0
            assert not is_member() and not source.heard_by(ear)
    assert "Traceback" not in world.complaints(), world.complaints()
