"""Pushed changes from a stock radclient, over a real socket (RFC 5176; P7)."""

import asyncio
import time
from collections import Counter
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, cast

import pytest

from locum.lab.programs.radius.freeradius import DICTIONARY
from locum.lab.programs.radius.radclient import push_text
from locum.node.config.policy_settings import PolicyServer, PolicySettings, PushClient, PushSettings
from locum.node.events import EventStream
from locum.node.policy.radius import RadiusClient
from locum.roles.actions import Event
from locum.roles.profile_requests import AnswerPush, DisconnectAsked, ProfilePushed, PushOutcome, Session
from tests.node.policy.test_radius import free_port

SECRET, LOOPBACK = b"replace-this-by-32-random-letters", IPv4Address("127.0.0.1")
PAGE = 'id = 5, priority = 3, action = "page", protocol = "tcp", destination_port = 22'


class Node:
    """A node's policy client, whose only role answers as the test says."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.kinds: list[str] = []
        self.fed: list[ProfilePushed | DisconnectAsked] = []
        self.outcome = PushOutcome.DONE
        self.port = free_port()
        settings = PolicySettings(
            (PolicyServer(LOOPBACK, free_port(), SECRET),),
            "ha",
            0.3,
            1,
            30.0,
            None,
            PushSettings(self.port, 300.0, (PushClient(LOOPBACK, SECRET),)),
        )
        stream = cast("EventStream", self)
        self.client = RadiusClient(settings, LOOPBACK, stream, self._happened, ("home_agent",))

    def count(self, reason: str) -> None:
        self.counts[reason] += 1

    def emit(self, kind: str, **_: Any) -> None:
        self.kinds.append(kind)

    def _happened(self, role: str, event: Event) -> None:
        assert isinstance(event, ProfilePushed | DisconnectAsked)
        self.fed.append(event)
        handler = self.client.handlers(role)[AnswerPush]
        handler(AnswerPush(event.push, self.outcome))


async def radclient(node: Node, folder: Path, command: str, text: str, secret: bytes = SECRET) -> str:
    """Send it; what the program prints."""
    (folder / "dictionary").write_text(DICTIONARY)
    ours = files("locum.node.policy").joinpath("dictionary.locum").read_bytes()
    (folder / "dictionary.locum").write_bytes(ours)
    arguments = ("-x", "-r", "1", "-t", "2", "-d", str(folder), f"127.0.0.1:{node.port}", command)
    program = await asyncio.create_subprocess_exec(
        "radclient", *arguments, secret.decode(),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await program.communicate(text.encode())
    return said.decode()


@pytest.fixture
async def node() -> Any:
    made = Node()
    await made.client.begin()
    yield made
    await made.client.close()


async def test_radclient_pushes_a_rule(node: Node, tmp_path: Path) -> None:
    text = push_text(time.time(), "alice@example.org", version=7, rules=[PAGE])
    said = await radclient(node, tmp_path, "coa", text)
    assert "Received CoA-ACK" in said, said
    (event,) = node.fed
    assert isinstance(event, ProfilePushed) and event.session == Session("alice@example.org")
    assert event.change.version == 7 and event.change.rules is not None
    assert [rule.identifier for rule in event.change.rules] == [5]


async def test_radclient_learns_why_it_is_refused(node: Node, tmp_path: Path) -> None:
    node.outcome = PushOutcome.STALE
    text = push_text(time.time(), "alice@example.org", version=7, rules=[PAGE])
    said = await radclient(node, tmp_path, "coa", text)
    assert "Received CoA-NAK" in said and "Invalid-Attribute-Value" in said, said
    assert node.kinds == ["push-refused"]


async def test_radclient_ends_a_registration(node: Node, tmp_path: Path) -> None:
    said = await radclient(node, tmp_path, "disconnect", push_text(time.time(), "203.0.113.4"))
    assert "Received Disconnect-ACK" in said, said
    assert node.fed == [DisconnectAsked(1, Session("203.0.113.4"))]


async def test_radclient_with_another_secret_gets_no_answer(node: Node, tmp_path: Path) -> None:
    text = push_text(time.time(), "alice@example.org", version=7, rules=[PAGE])
    said = await radclient(node, tmp_path, "coa", text, b"another secret!!")
    assert "No reply" in said, said
    assert node.fed == [] and node.counts["push-not-authentic"] >= 1


async def test_a_taken_port_is_said(node: Node) -> None:
    other = Node()
    other.client._pushes._port = node.port  # type: ignore[union-attr]
    with pytest.raises(OSError, match=r"\[policy.changes\].*in use"):
        await other.client.begin()
