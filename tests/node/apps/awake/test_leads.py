"""Packets of proxies whose device may be awake: asked for before a connection opens, given back after it has ended."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from locum.node.apps import silence
from locum.node.apps.awake import leads as module
from locum.node.apps.awake.leads import PORTS, Leads, bind, port_part
from locum.node.config.settings import AppLimits
from locum.roles.action_values.apps import PacketsLed, PacketsWanted, Part
from locum.roles.actions import Event
from locum.roles.app_network import TCP, UDP
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector, Ipv6Selector
from tests.node.apps.driven import HERE, Driven, LoopbackOutlet
from tests.node.apps.peers import Server, free_port
from tests.node.apps.world import install

HANDOVER = bytes(range(16))
HOME = IPv4Address("10.99.0.5")
PORT = port_part(HOME, TCP, 80)


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch)


class Agent:
    """A role that answers each question with `reason`; None: not at all."""

    def __init__(self) -> None:
        self.asked: list[tuple[Part, ...]] = []
        self.reason: str | None = ""
        self.leads = Leads(self._feed)

    def _feed(self, event: Event) -> None:
        assert isinstance(event, PacketsWanted) and event.handover == HANDOVER
        self.asked.append(event.parts)
        if self.reason is not None:
            (answer,) = self.leads.handlers().values()
            answer(PacketsLed(event.handover, event.parts, self.reason))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not done():
                await asyncio.sleep(0.01)


def test_parts_name_protocol_and_port() -> None:
    assert Ipv4Selector(destination=(HOME, HOME), destination_port=(80, 80), protocol=(6, 6)) == PORT
    home = ip_address("2001:db8::5")
    expected = Ipv6Selector(destination=(home, home), destination_port=(53, 53), next_header=(17, 17))  # type: ignore[arg-type]
    assert port_part(home, UDP, 53) == expected


async def test_second_wish_for_the_same_packets_is_granted_at_once() -> None:
    agent = Agent()
    await agent.leads.lead(HANDOVER, 1, PORT)
    await agent.leads.lead(HANDOVER, 2, PORT)
    assert agent.asked == [(PORT,)]
    agent.leads.drop(HANDOVER, PORT)
    agent.leads.drop(HANDOVER, PORT)
    assert agent.asked == [(PORT,), ()]
    agent.leads.close()


async def test_refused_packets_are_wanted_no_more() -> None:
    agent = Agent()
    agent.reason = "refused with 153"
    with pytest.raises(OSError, match="refused with 153"):
        await agent.leads.lead(HANDOVER, 1, PORT)
    assert agent.asked == [(PORT,), ()]


async def test_silent_role_and_a_takeover_end_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    agent = Agent()
    agent.reason = None
    with pytest.raises(OSError, match="not registered for it in time"):
        await agent.leads.lead(HANDOVER, 1, PORT)
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    waiting = asyncio.ensure_future(agent.leads.lead(HANDOVER, 1, PORT))
    await agent.until(lambda: len(agent.asked) == 3)
    agent.leads.forget(HANDOVER)
    with pytest.raises(OSError, match="the device has taken over"):
        await waiting


async def test_connection_waits_for_its_packets_and_returns_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", 0.05)
    monkeypatch.setattr(module, "LINGER", 0.1)
    agent, server = Agent(), Server()
    agent.reason = None
    outlet = LoopbackOutlet((HERE,), 7101, tmp_path / "data", AppLimits())
    outlet.leads, outlet.handover = agent.leads, HANDOVER
    puppet = await Driven(tmp_path / "data", outlet=outlet).begin()
    puppet.do(["Connect", 1, "127.0.0.1", server.port])
    await agent.until(lambda: bool(agent.asked))
    ((flow,),) = agent.asked
    assert isinstance(flow, Flow) and flow.local_port in PORTS
    assert (flow.local, flow.peer, flow.peer_port) == (HERE, HERE, server.port)
    assert silence.flows(7101) == frozenset(), "no packet before the rule"
    (answer,) = agent.leads.handlers().values()
    agent.reason = ""
    answer(PacketsLed(HANDOVER, (flow,)))
    await puppet.wait("Opened")
    await server.accept()
    assert silence.flows(7101) == {flow}
    await asyncio.sleep(0.5)
    assert len(agent.asked) == 1, "an open connection keeps its packets"
    puppet.do(["Abort", 1])
    await agent.until(lambda: agent.asked[-1] == ())
    await puppet.end()
    agent.leads.close()


async def test_process_that_dies_while_it_waits_leaves_no_rule(tmp_path: Path) -> None:
    agent, server = Agent(), Server()
    agent.reason = None
    outlet = LoopbackOutlet((HERE,), 7103, tmp_path / "data", AppLimits())
    outlet.leads, outlet.handover = agent.leads, HANDOVER
    puppet = await Driven(tmp_path / "data", outlet=outlet).begin()
    puppet.do(["Connect", 1, "127.0.0.1", server.port])
    await agent.until(lambda: bool(agent.asked))
    puppet.process.kill()
    await agent.until(lambda: agent.asked[-1] == ())
    agent.leads.close()


async def test_refused_rule_ends_connection_and_listener(tmp_path: Path) -> None:
    agent, server = Agent(), Server()
    agent.reason = "the home agent takes no more"
    outlet = LoopbackOutlet((HERE,), 7102, tmp_path / "data", AppLimits())
    outlet.leads, outlet.handover = agent.leads, HANDOVER
    puppet = await Driven(tmp_path / "data", outlet=outlet).begin()
    puppet.do(["Connect", 1, "127.0.0.1", server.port])
    assert "takes no more" in (await puppet.wait("Ended", connection=1))["reason"]
    puppet.do(["Listen", 2, free_port()])
    assert "takes no more" in (await puppet.wait("Ended", connection=2))["reason"]
    await puppet.end()


def test_port_of_a_connection_is_none_of_the_devices() -> None:
    with socket.socket() as sock:
        bind(sock, HERE)
        assert sock.getsockname()[1] in PORTS


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken, socket.socket() as sock:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        monkeypatch.setattr(module, "PORTS", range(port, port + 1))
        monkeypatch.setattr(module, "TRIES", 1)
        with pytest.raises(OSError, match="no port of the home address is free"):
            bind(sock, HERE)


def test_flows_are_read_from_both_families() -> None:
    v4 = bytes.fromhex("ee48 0050 0a630005 000000000000000000000000 c0000250 000000000000000000000000")
    assert silence._flow(v4 + bytes(12)) == Flow(6, HOME, 61000, IPv4Address("192.0.2.80"), 80)
    v6 = bytes.fromhex("ee48 0050 20010db8000000000000000000000005 20010db8000000000000000000000080")
    expected = Flow(6, ip_address("2001:db8::5"), 61000, ip_address("2001:db8::80"), 80)
    assert silence._flow(v6 + bytes(12)) == expected
