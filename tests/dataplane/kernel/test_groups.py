"""Multicast groups (C4) in a real network: from the link where they come in to access links, daemon or no daemon."""

import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import ForwardGroup
from tests.dataplane.namespaces import Namespace, bpffs, join

GROUP4, GROUP6 = ip_address("239.1.2.3"), ip_address("ff15::1234")
PORT = 5004


@dataclass(slots=True)
class Tree:
    """A source, an access node, and two visitors that have nothing but a home address, on lo."""

    source: Namespace
    access: Namespace
    visitors: list[Namespace]
    root: Path

    def open(self) -> DataPlane:
        with self.access.inside():
            return DataPlane.open("groups", ["up0", "down0", "down1"], bpf_root=self.root)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(tmp_path_factory.mktemp("bpf")))
        spaces = [Namespace(label) for label in ("source", "access", "visitor0", "visitor1")]
        for space in spaces:
            stack.callback(space.remove)
        source, access, *visitors = spaces
        join(source, "src0", access, "up0")
        source.run("ip addr add 10.5.0.2/24 dev src0")
        source.run("ip addr add fd05::2/64 dev src0 nodad")
        access.run("ip addr add 10.5.0.1/24 dev up0")
        for number, visitor in enumerate(visitors):
            join(access, f"down{number}", visitor, "radio0")
            visitor.run(f"ip addr add 10.9.0.{number + 1}/32 dev lo")
            visitor.run(f"ip addr add fd09::{number + 1}/128 dev lo")
            visitor.run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.radio0.rp_filter=0")
        yield Tree(source, access, visitors, root)


def member(space: Namespace, group: Addr, *, link: str = "radio0") -> socket.socket:
    """A socket of that namespace that has joined the group on the link."""
    with space.inside():
        index = socket.if_nametoindex(link)
        if group.version == 4:
            made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            request = struct.pack("=4s4si", group.packed, bytes(4), index)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
        else:
            made = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            made.setsockopt(
                socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16si", group.packed, index)
            )
    made.settimeout(5)
    made.bind((str(group), PORT))
    return made


class Speaker:
    """Sends to a group from the source."""

    def __init__(self, tree: Tree, group: Addr, *, hops: int = 8) -> None:
        self.group = group
        with tree.source.inside():
            index = socket.if_nametoindex("src0")
            if group.version == 4:
                self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self.socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
                self.socket.setsockopt(
                    socket.IPPROTO_IP,
                    socket.IP_MULTICAST_IF,
                    struct.pack("=4s4si", bytes(4), bytes(4), index),
                )
            else:
                self.socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)

    def say(self, data: bytes) -> None:
        self.socket.sendto(data, (str(self.group), PORT))

    def close(self) -> None:
        self.socket.close()


@pytest.mark.parametrize("group", [GROUP4, GROUP6])
def test_several_links_restart_and_end(tree: Tree, group: Addr) -> None:
    plane = tree.open()
    try:
        with ExitStack() as stack:
            first, second = (stack.enter_context(member(visitor, group)) for visitor in tree.visitors)
            speaker = Speaker(tree, group)
            stack.callback(speaker.close)
            with tree.access.inside():
                plane.apply([ForwardGroup(group, "up0", ("down0",))])
            speaker.say(b"one")
            assert first.recv(100) == b"one"
            with tree.access.inside():
                plane.apply([ForwardGroup(group, "up0", ("down0", "down1"))])
                plane.close()
            speaker.say(b"no daemon")
            assert first.recv(100) == second.recv(100) == b"no daemon"
            plane = tree.open()
            assert plane.adopted
            assert plane.snapshot().groups == {group: ForwardGroup(group, "up0", ("down0", "down1"))}
            assert plane.group_counters(group).packets == 3
            with tree.access.inside():
                plane.reconcile([ForwardGroup(group, "up0", ["down1"])])
            speaker.say(b"only the second")
            assert second.recv(100) == b"only the second"
            with tree.access.inside():
                plane.apply([ForwardGroup(group, "up0", ())])
            assert plane.snapshot().groups == {}
            speaker.say(b"nobody")
            with tree.access.inside():
                plane.apply([ForwardGroup(group, "up0", ("down0", "down1"))])
            speaker.say(b"both")
            assert first.recv(100) == second.recv(100) == b"both"
            assert plane.counters()["group-not-forwarded"] == 0
    finally:
        with tree.access.inside():
            plane.remove()


def test_hops_and_other_links(tree: Tree) -> None:
    """A packet at its last hop ends here; packets from other links are not forwarded."""
    plane = tree.open()
    try:
        with ExitStack() as stack, tree.access.inside():
            plane.apply([ForwardGroup(GROUP4, "up0", ("down0",)), ForwardGroup(GROUP6, "down1", ("down0",))])
            ears = {group: stack.enter_context(member(tree.visitors[0], group)) for group in (GROUP4, GROUP6)}
            for group, hops in ((GROUP4, 1), (GROUP6, 8), (GROUP4, 2)):
                speaker = Speaker(tree, group, hops=hops)
                stack.callback(speaker.close)
                speaker.say(str(hops).encode())
            assert ears[GROUP4].recv(100) == b"2"
            assert plane.group_counters(GROUP4).packets == 1
            assert plane.group_counters(GROUP6).packets == 0
    finally:
        with tree.access.inside():
            plane.remove()
