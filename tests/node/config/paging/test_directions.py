"""Direct pages in configurations: the program that decides, and the keys of stand-ins and devices."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.node.config.paging.directions import decision, keys_of_devices, keys_of_stand_ins
from locum.node.config.settings import ControlAssociation, Settings
from locum.wire.control.paging.direct_page import Decision
from locum.wire.control.paging.entry import (
    ActionKind,
    Condition,
    Entry,
    EntryAction,
    Operator,
    Pattern,
)

DEVICE = """
[node]
name = "mn"
interfaces = ["eth0"]
[mobile_node]
home_address = "203.0.113.4"
home_agent = "198.51.100.2"
links = ["eth0"]
spi = 1000
key_file = "key"
"""
HOME, HOME6, STAND_IN = ip_address("203.0.113.4"), ip_address("2001:db8::4"), ip_address("192.0.2.7")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text("00112233445566778899aabbccddeeff\n")
    return tmp_path / "mn.toml"


def read(file: Path, text: str) -> Settings:
    file.write_text(DEVICE + text)
    return load(file)


def test_program_with_its_time(file: Path) -> None:
    settings = read(file, 'page_command = ["/usr/bin/decide", "-x"]\npage_command_seconds = 2.5\n')
    assert settings.mobile_node is not None
    command = settings.mobile_node.configuration.directed.command
    assert command is not None and (command.command, command.seconds) == (("/usr/bin/decide", "-x"), 2.5)
    nothing = read(file, "").mobile_node
    assert nothing is not None and nothing.configuration.directed.command is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('page_command = ["decide"]', "page_command: is a program with its whole path"),
        ('page_command = ["/bin/decide", "a\\u0000"]', "page_command: has a character"),
        ('page_command = ["/bin/decide"]\npage_command_seconds = 99', "page_command_seconds"),
    ],
)
def test_wrong_programs_are_named(file: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(file, text)


DIRECTION = """
[[mobile_node.direction]]
app = "mail"
kind = "arrived"
where = [{ field = "state.unread", is = "<", value = 10 }]
decision = "stay"
information = { seen = 3 }
[[mobile_node.direction.entry]]
id = 9
app = "mail"
kind = "urgent"
actions = ["direct"]
[[mobile_node.direction.agent_rule]]
priority = 5
protocol = "udp"
[[mobile_node.direction]]
kind = "*"
decision = "wake"
"""


def test_directions_in_their_order(file: Path) -> None:
    settings = read(file, DIRECTION)
    assert settings.mobile_node is not None
    first, second = settings.mobile_node.configuration.directed.directions
    assert first.patterns == (Pattern("mail", "arrived", (Condition("state.unread", Operator.LESS, 10),)),)
    entry = Entry(9, (Pattern("mail", "urgent"),), (EntryAction(ActionKind.PAGE_DIRECT),))
    assert first.decision is Decision.GO_ON and first.directions.entries == (entry,)
    assert first.directions.information == {"seen": 3} and len(first.directions.rules) == 1
    assert (second.patterns, second.decision) == ((Pattern("*", "*"),), Decision.WAKING)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (('"stay"', '"sleep"'), "direction #1.* decision"),
        (('"stay"', '"wake"'), 'decision: is "wake"; entry, information and agent_rule belong to "stay"'),
        (("id = 9\n", ""), r"direction #1.entry #1\] id: is missing"),
        (("seen = 3", "seen = []"), "information"),
        (("seen = 3", f'seen = "{"x" * 250}", b = "{"y" * 250}", c = "{"z" * 250}", d = "{"v" * 250}", e = "{"w" * 250}"'), "is too long: one datagram"),
        (('kind = "*"\n', ""), "direction #2.* kind: is missing"),
        (('kind = "*"', 'kind = "*"\nknd = 1'), "knd: is not known"),
    ],
)  # fmt: skip
def test_wrong_directions_are_named(file: Path, changed: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read(file, DIRECTION.replace(*changed))


def test_directions_are_bounded(file: Path) -> None:
    one = '[[mobile_node.direction]]\nkind = "*"\ndecision = "wake"\n'
    with pytest.raises(ConfigError, match="there are at most 64 tables direction"):
        read(file, one * 65)


def test_output_of_a_program_has_the_same_keys() -> None:
    entry = {"id": 9, "app": "mail", "kind": "urgent", "actions": ["direct"]}
    found = decision({"decision": "stay", "entry": [entry], "information": {"seen": 3}})
    assert found.decision is Decision.GO_ON and found.directions.information == {"seen": 3}
    assert [made.identifier for made in found.directions.entries] == [9]
    with pytest.raises(ValueError, match="id: is missing"):
        decision({"decision": "stay", "entry": [{"kind": "urgent"}]})


def test_both_ends_have_the_same_keys() -> None:
    secret = bytes(range(16))
    at_stand_in = ControlAssociation(HOME, b"\x36", b"\x04", secret, b"salt", (HOME, HOME6))
    at_device = ControlAssociation(STAND_IN, b"\x04", b"\x36", secret, b"salt", ())
    access_node = ControlAssociation(ip_address("192.0.2.1"), b"\x36", b"\x05", secret, b"", (HOME,), True)
    own = keys_of_devices((access_node, at_stand_in))
    assert own.keys() == {HOME, HOME6}, "an access node speaks for the device, and is not the device"
    peer = keys_of_stand_ins((access_node, at_device), (STAND_IN,))
    assert peer.keys() == {STAND_IN}
    assert (own[HOME].own, own[HOME].peer) == (peer[STAND_IN].peer, peer[STAND_IN].own)
