"""Tunnels on links without link-layer headers: a stock WireGuard between home agent and foreign agent, MTU 1420."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane
from locum.roles.action_values.flows import Encapsulation, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, Verdict
from tests.dataplane.chain import (
    CN4,
    CN6,
    HOME4,
    HOME6,
    Chain,
    Planes,
    chain,
    foreign_actions,
    home_actions,
    install,
    tunnels,
)
from tests.dataplane.kernel.test_forwarding import bulk, grown, ping
from tests.dataplane.namespaces import Namespace

DEVICE = "wg0"
_pids: dict[str, int] = {}
"""Of wireguard-go in each namespace: its control socket is seen from there."""


@contextmanager
def wireguard(space: Namespace, folder: Path) -> Iterator[None]:
    """A stock wireguard-go on a namespace's device; its control socket is in a mount namespace of its own."""
    private = "mkdir -p /run/wireguard && mount -t tmpfs none /run/wireguard && exec wireguard-go -f wg0"
    command = ["nsenter", f"--net={space.path}", "unshare", "--mount", "sh", "-c", private]
    with (folder / f"{space.name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "LOG_LEVEL": "error"})
    try:
        deadline = time.monotonic() + 20
        while subprocess.run(
            ["nsenter", f"--net={space.path}", f"--mount=/proc/{process.pid}/ns/mnt", "wg", "show", DEVICE],
            capture_output=True,
            check=False,
        ).returncode:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        _pids[space.name] = process.pid
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def wg(space: Namespace, *words: str, stdin: str = "") -> str:
    command = ["nsenter", f"--net={space.path}", f"--mount=/proc/{_pids[space.name]}/ns/mnt", "wg", *words]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def connect(net: Chain) -> None:
    """The addresses of the link between the two are those of WireGuard now; the link has others."""
    pairs = ((net.ha, "ha1", 1), (net.fa, "fa0", 2))
    keys = {number: wg(space, "genkey") for space, _device, number in pairs}
    public = {number: wg(space, "pubkey", stdin=keys[number]) for space, _device, number in pairs}
    for space, device, number in pairs:
        other = 3 - number
        space.run(f"ip addr flush dev {device}")
        space.run(f"ip addr add 10.4.0.{number}/24 dev {device}")
        peer = ["peer", public[other], "endpoint", f"10.4.0.{other}:51820", "allowed-ips", "0.0.0.0/0,::/0"]
        own = ["set", DEVICE, "private-key", "/dev/stdin", "listen-port", "51820"]
        wg(space, *own, *peer, stdin=keys[number])
        space.run(f"ip addr add 10.2.0.{number}/24 dev {DEVICE}")
        space.run(f"ip addr add fd02::{number}/64 dev {DEVICE} nodad")
        space.run(f"ip link set {DEVICE} mtu 1420 up")
    net.fa.run(f"ip route replace default via 10.2.0.1 dev {DEVICE}")
    net.fa.run(f"ip -6 route replace default via fd02::1 dev {DEVICE}")
    net.ha.run("ping -c 1 -w 30 10.2.0.2")  # the first handshake, which is tried again after 5 seconds


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(True, id="tcx"),
        pytest.param(False, id="clsact", marks=pytest.mark.exhaustive),
    ],
)
def network(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Planes]:
    folder = tmp_path_factory.mktemp("bare")
    with ExitStack() as stack:
        net = stack.enter_context(chain(folder / "bpf"))
        for space in (net.ha, net.fa):
            stack.enter_context(wireguard(space, folder))
        connect(net)
        made = []
        for space, name, links in ((net.ha, "ha", ["ha0", DEVICE]), (net.fa, "fa", [DEVICE, "fa1"])):
            plane = net.open(space, name, links, tcx=request.param)
            stack.callback(_remove, space, plane)
            made.append(plane)
        yield net, made[0], made[1]


def _remove(space: Namespace, plane: DataPlane) -> None:
    with space.inside():
        plane.remove()


@pytest.mark.parametrize(
    ("encapsulation", "outer"),
    [
        (Encapsulation.IPIP, 4),
        (Encapsulation.IPIP, 6),
        (Encapsulation.GRE, 4),
        (Encapsulation.UDP, 4),
        (Encapsulation.MINIMAL, 4),
    ],
)
def test_tcp_through_wireguard(network: Planes, encapsulation: Encapsulation, outer: int) -> None:
    net, ha, fa = network
    to_foreign, to_home = tunnels(encapsulation, outer)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    before = ha.counters(), fa.counters()
    for home, correspondent in ((HOME4, CN4), (HOME6, CN6)):
        assert "2 received" in ping(net, home)
        bulk(net, home, correspondent, "8M", 20)
        assert ha.binding_counters(home).bytes > 7_000_000
    assert not grown(ha, before[0]) and not grown(fa, before[1])


def test_held_packets_go_into_wireguard(network: Planes) -> None:
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign, Verdict.HOLD), foreign_actions(to_home))
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind((str(HOME4), 7000))
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for number in range(20):
        mouth.sendto(bytes([number]) * (60 * number + 1), (str(HOME4), 7000))
    time.sleep(0.05)
    with net.ha.inside():
        ha.apply([InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (to_foreign,)))])
        assert ha.release(HOME4) == 20
    ear.settimeout(2)
    assert [ear.recv(4000)[:1] for _ in range(20)] == [bytes([number]) for number in range(20)]


def test_packets_too_big_for_wireguard_are_answered(network: Planes) -> None:
    net, _, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    net.cn.run("ip route flush cache")
    assert "mtu = 1400" in ping(net, HOME4, "-M", "do", "-s", "1472")
    assert "2 received" in ping(net, HOME4, "-M", "do", "-s", "1372")
    assert "2 received" in ping(net, HOME4, "-M", "dont", "-s", "4000")


def test_a_tunnel_leaves_by_its_own_host_too(network: Planes) -> None:
    """Packets of programs at the home agent are chosen for WireGuard by their route, and are judged as they leave."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    net.ha.run(f"ip route add 10.9.0.5 dev {DEVICE}")
    net.ha.run(f"ip -6 route add fd09::5 dev {DEVICE}")
    try:
        for home in (HOME4, HOME6):
            before = ha.binding_counters(home).packets
            assert "2 packets transmitted, 2 received" in net.ha.run(f"ping -c 2 -i 0.2 -W 2 {home}")
            assert ha.binding_counters(home).packets == before + 2
    finally:
        net.ha.run(f"ip route del 10.9.0.5 dev {DEVICE}")
        net.ha.run(f"ip -6 route del fd09::5 dev {DEVICE}")


def test_copies_for_two_tunnels_leave_wireguard(network: Planes) -> None:
    """A packet of this host with two tunnels, whose route leads to WireGuard, goes into both."""
    net, ha, _ = network
    to_foreign, to_home = tunnels(Encapsulation.IPIP, 4)
    again = Tunnel(ip_address("10.2.0.1"), ip_address("10.4.0.2"))
    install(network, home_actions(to_foreign), foreign_actions(to_home))
    with net.ha.inside():
        ha.apply([InstallBinding(BindingEntry(HOME4, Verdict.ENCAPSULATE, (to_foreign, again)))])
    net.ha.run(f"ip route add 10.9.0.5 dev {DEVICE}")
    try:
        before = ha.binding_counters(HOME4).packets
        assert "1 received" in net.ha.run(f"ping -c 1 -W 2 {HOME4}")
        assert ha.binding_counters(HOME4).packets == before + 2
    finally:
        net.ha.run(f"ip route del 10.9.0.5 dev {DEVICE}")
