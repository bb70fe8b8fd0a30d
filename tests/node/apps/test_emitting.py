"""Emission filters of real processes: the rules of the order and of the stand-in, in the kernel (R20)."""

import asyncio
import errno
import select
import socket
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.node.apps import emitting as module
from locum.node.apps.attending import Apps
from locum.node.apps.emitting import Emitting, Policy, Rules
from locum.node.config.settings import AppLimits
from locum.node.control.answering.apps import app_show
from locum.node.control.view import NodeView
from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.apps import AppOrder, StartApps
from locum.roles.action_values.emission import permits
from tests.dataplane.namespaces import Namespace, join
from tests.node.apps.driven import HERE, Driven, LoopbackOutlet
from tests.node.apps.peers import Server
from tests.node.apps.world import ECHO, HANDOVER, HOME, Connection, Standing, install

LIMITS = AppLimits()


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


def rules(*texts: str) -> Rules:
    return permits(list(texts))


def outlet(directory: Path, policy: Policy) -> LoopbackOutlet:
    return LoopbackOutlet((HERE,), 1, directory, LIMITS, policy=policy)


async def driven(directory: Path, policy: Policy) -> Driven:
    return await Driven(directory, outlet=outlet(directory, policy)).begin()


async def test_a_connection_that_no_rule_permits(tmp_path: Path) -> None:
    """The proxy is told the reason; one that is permitted opens."""
    server, emitting = Server(), Emitting(local=True)
    policy = emitting.policy(rules(f"tcp 127.0.0.0/8 {server.port}", "udp"))
    proxy = await driven(tmp_path / "data", policy)
    other = server.port ^ 1
    proxy.do(["Connect", 1, "127.0.0.1", other])
    ended = await proxy.wait("Ended", connection=1)
    assert ended["reason"] == f"the emission filter does not permit tcp 127.0.0.1 {other}"
    proxy.do(["Connect", 2, "127.0.0.1", server.port])
    await server.accept()
    await proxy.wait("Opened", connection=2)
    await proxy.end()
    emitting.close()


async def test_a_datagram_that_no_rule_permits(tmp_path: Path) -> None:
    """The kernel refuses and counts it; the proxy goes on."""
    emitting = Emitting(local=True)
    with socket.socket(type=socket.SOCK_DGRAM) as good, socket.socket(type=socket.SOCK_DGRAM) as bad:
        for receiver in (good, bad):
            receiver.bind(("127.0.0.1", 0))
            receiver.settimeout(30)
        good_port, bad_port = good.getsockname()[1], bad.getsockname()[1]
        policy = emitting.policy(rules(f"udp {good_port}"))
        proxy = await driven(tmp_path / "data", policy)
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        proxy.do(["Listen", 1, port, 17])
        await proxy.wait("Opened", connection=1)
        proxy.do(["SendTo", 1, "127.0.0.1", bad_port, "out"], ["SendTo", 1, "127.0.0.1", good_port, "in"])
        assert await asyncio.to_thread(good.recv, 100) == b"in"
        bad.setblocking(False)
        with pytest.raises(BlockingIOError):
            bad.recv(100)
        assert policy.counts() == (1, 1)
        await proxy.end()
    emitting.close()


def test_both_the_order_and_the_stand_in_have_to_permit(tmp_path: Path) -> None:
    emitting = Emitting(rules("udp 7001-7003"), local=True)
    policy = emitting.policy(rules("udp 7000-7002"))
    made = outlet(tmp_path, policy).made(IPv4Address("127.0.0.1"), socket.SOCK_DGRAM)
    with made:
        sent = []
        for port in range(7000, 7005):
            try:
                made.sendto(b"x", ("127.0.0.2", port))
            except PermissionError:
                continue
            except ConnectionRefusedError:
                pass
            sent.append(port)
    assert sent == [7001, 7002] and policy.counts()[1] == 3
    assert [emitting.may(rules("udp 7000-7002"), 17, HERE, port) for port in (7000, 7001)] == [False, True]
    with pytest.raises(OSError, match=r"does not permit udp 127\.0\.0\.1 7000"):
        policy.check(17, HERE, 7000)
    emitting.close()


def test_a_handed_over_connection_has_no_filter(tmp_path: Path) -> None:
    emitting, taken, server = Emitting(local=True), list[socket.socket](), Server()
    given = outlet(tmp_path, emitting.policy(rules()))
    given.handed = lambda sock, _label, _unread: taken.append(sock)
    made, kept = (given.made(HERE, socket.SOCK_STREAM) for _ in range(2))
    given.hand(made.detach(), "shell", b"")
    for sock in (kept, *taken):
        assert sock.connect_ex(("127.0.0.1", server.port)) == errno.EINPROGRESS
    assert select.select([], [kept, *taken], [], 10)[1] == taken
    assert taken[0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    for sock in (kept, *taken):
        sock.close()
    server.socket.close()
    emitting.close()


def test_no_socket_where_the_kernel_cannot_filter(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise DataPlaneError("there is no control group file system")

    monkeypatch.setattr(module, "EmissionFilter", refuse)
    assert Emitting().policy(None).number is None, "without rules it is only said"
    assert "nothing keeps proxies from services of this host" in caplog.text
    for emitting, asked in ((Emitting(), rules("tcp")), (Emitting(rules()), None)):
        with pytest.raises(OSError, match="emission filter: there is no control group file system"):
            emitting.policy(asked)


async def test_a_session_to_a_forbidden_peer_is_only_held(tmp_path: Path) -> None:
    connection = Connection(tmp_path)
    standing = Standing(connection.held)
    orders = (replace(ECHO, emission=rules("udp")), replace(ECHO, name="two", emission=rules("tcp 7")))
    await standing.perform(StartApps(HANDOVER, HOME, orders))
    shown = {app.order.name: list(app.sessions) for app in standing.apps.all()}
    assert shown == {"one": [], "two": [0]}
    standing.apps.close()
    connection.close()


@pytest.fixture
def site() -> Iterator[None]:
    """A host with a network in which the home address and a peer could be."""
    here, there = Namespace("emitting"), Namespace("emitting-peer")
    try:
        join(here, "wire", there, "wire")
        here.run("ip addr add 10.99.0.1/24 dev wire")
        with here.inside():
            yield
    finally:
        here.remove()
        there.remove()


@pytest.mark.usefixtures("site")
async def test_refused_packets_are_told() -> None:
    """In `locum app show` while the proxy runs, and as an event when its process ends."""
    standing = Standing()
    begin: list[JSON] = [["Listen", 1, 7007, 17], ["SendTo", 1, "10.99.0.9", 9, "x"]]
    wanted = AppOrder("one", "puppet", {"begin": begin}, emission=rules("tcp"))
    await standing.perform(StartApps(HANDOVER, HOME, (wanted,), home_addresses=(HOME,)))
    view = cast(NodeView, View(standing.apps))
    await standing.until(lambda: app_show(view, {"app": "one"})["emission"]["refused"] == 1)
    shown = app_show(view, {"app": "one"})["emission"]
    assert shown == {"rules": ["tcp"], "sent": 0, "refused": 1}
    standing.apps.close()
    told = [emit.detail for emit in standing.told if emit.kind == "emission-refused"]
    assert [detail["packets"] for detail in told] == [1]


class View:
    """A node, as far as answers about proxies read it."""

    def __init__(self, apps: Apps) -> None:
        self.stand_in = self
        self.apps = apps
