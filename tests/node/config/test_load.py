"""Configuration: valid files become values, errors are named by file, table and key."""

from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from locum.node.assembly import limits, roles
from locum.node.config.load import ConfigError, load
from locum.node.config.settings import Settings
from locum.roles.foreign_agent.configuration import KeyMode
from locum.roles.foreign_agent.role import ForeignAgent
from locum.roles.mnps.role import StandIn
from locum.roles.mobile_node.handover import OwnStandIn
from locum.roles.mobile_node.role import SleepingNode
from locum.roles.registrant.routing import NO_ROUTING, Routing
from locum.security.association import Algorithm, Replay

NODE = """
[node]
name = "all"
interfaces = ["eth0", "radio0"]
"""
CONTROL = """
[control]
address = "10.0.0.1"
[[control.association]]
peer = "10.0.0.9"
sender_id = "01"
recipient_id = "02"
secret_file = "key"
home_addresses = ["10.36.0.4", "fd36::4"]
"""
HOME_AGENT = """
[home_agent]
address = "10.0.0.1"
home_prefixes = ["10.36.0.0/24", "fd36::/64"]
[[home_agent.mobile]]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
spi = 1000
key_file = "key"
replay = "nonce"
algorithm = "hmac-md5"
default_coa = "10.0.3.1"
[[home_agent.foreign_agent]]
address = "10.0.2.1"
spi = 2000
key_file = "key"
"""
FOREIGN_AGENT = """
[foreign_agent]
care_of_address = "10.0.2.1"
links = ["radio0"]
[[foreign_agent.static]]
home_address = "10.36.0.4"
home_agent = "10.0.0.1"
link = "eth0"
next_hop = "10.0.3.2"
"""
MOBILE_NODE = """
[mobile_node]
home_address = "10.36.0.4"
home_agent = "10.0.0.1"
links = ["radio0"]
spi = 1000
key_file = "key"
mnps = "10.0.0.9"
"""
MNPS = """
[mnps]
address = "10.0.3.2"
access_node = "10.0.3.1"
home_prefixes = ["10.36.0.0/24"]
links = ["eth0"]
memory_bound = "8M"
disk_bound = 4096
"""
ALL = NODE + CONTROL + HOME_AGENT + FOREIGN_AGENT + MOBILE_NODE + MNPS


def test_every_role_at_once(write: Any, tmp_path: Path) -> None:
    settings = load(write(ALL))
    assert settings.roles == ("home_agent", "foreign_agent", "mobile_node", "mnps")
    assert settings.node.socket == Path("/run/locum/all.sock")
    assert settings.home_agent is not None
    mobile = settings.home_agent.mobiles[0]
    assert mobile.association.spi == 1000
    assert mobile.association.key == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert (mobile.association.algorithm, mobile.association.replay) == (Algorithm.HMAC_MD5, Replay.NONCE)
    assert mobile.default_care_of == ip_address("10.0.3.1")
    assert settings.control is not None
    assert settings.control.associations[0].home_addresses == (ip_address("10.36.0.4"), ip_address("fd36::4"))
    assert "0011" not in repr(settings.control)
    assert settings.mnps is not None
    assert (settings.mnps.memory_bound, settings.mnps.disk_bound) == (8 << 20, 4096)
    quota = settings.mnps.configuration.quota
    assert quota.stored == (8 << 20) + 4096 and quota.held_seconds == 7 * 86400
    assert settings.mnps.configuration.home_prefixes == (ip_network("10.36.0.0/24"),)
    assert settings.mobile_node is not None and settings.mobile_node.configuration.care_of_address is None


STAND_INS = """
[[mobile_node.stand_in]]
name = "cellar"
address = "10.0.0.8"
[[mobile_node.stand_in]]
name = "attic"
address = "10.0.0.9"
"""
SECOND_PEER = """
[[control.association]]
peer = "10.0.0.8"
sender_id = "03"
recipient_id = "04"
secret_file = "key"
"""
REGISTERS = """
mode = "register"
home_agent = "10.0.0.1"
[[mnps.mobile]]
home_address = "10.36.0.4"
spi = 1100
key_file = "key"
bid = 3
"""


def test_stand_ins_of_a_device(write: Any) -> None:
    """The one of mnps comes first; a table may say more of it. Without a table packets come by the default CoA."""
    alone = load(write(ALL)).mobile_node
    assert alone is not None
    assert alone.stand_ins == (OwnStandIn("mnps", ip_address("10.0.0.9")),)
    several = load(write(NODE + CONTROL + SECOND_PEER + MOBILE_NODE + STAND_INS)).mobile_node
    assert several is not None
    assert several.stand_ins == (
        OwnStandIn("attic", ip_address("10.0.0.9"), True),
        OwnStandIn("cellar", ip_address("10.0.0.8"), True),
    )


def test_routing_of_a_device_is_read(write: Any) -> None:
    plain = load(write(ALL)).mobile_node
    assert plain is not None and plain.configuration.routing == NO_ROUTING
    text = ALL.replace("[mobile_node]\n", '[mobile_node]\nbid = 5\nweight = 3\ndefault_coa = "10.0.3.1"\n')
    settings = load(write(text))
    made = cast(SleepingNode, roles(settings, lambda link: None)["mobile_node"])
    assert made.mobile.configuration.routing == Routing(5, 3, IPv4Address("10.0.3.1"))
    text = text.replace('3\ndefault_coa = "10.0.3.1"', '3\ndefault_coa = "0.0.0.0"')
    taken_back = load(write(text)).mobile_node
    assert taken_back is not None and taken_back.configuration.routing.default == IPv4Address(0)


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ("bid = 0", "bid", "from 1 to 63"),
        ("bid = 64", "bid", "from 1 to 63"),
        ('bid = "5"', "bid", "whole number"),
        ("weight = 0", "weight", "from 1 to 65535"),
        ('default_coa = "fd36::1"', "default_coa", "IPv4 address of a host"),
        ('default_coa = "224.0.0.5"', "default_coa", "IPv4 address of a host"),
        ("default_coa = 7", "default_coa", "IPv4 address of a host"),
        ('default_coa = "10.36.0.4"', "default_coa", "home address itself"),
        ('default_coas = "10.0.3.1"', "default_coas", "did you mean default_coa"),
    ],
)
def test_wrong_routing_of_a_device_is_refused(write: Any, line: str, key: str, words: str) -> None:
    file = write(ALL.replace("[mobile_node]\n", f"[mobile_node]\n{line}\n"))
    with pytest.raises(ConfigError) as failure:
        load(file)
    assert (failure.value.file, failure.value.table, failure.value.key) == (str(file), "mobile_node", key)
    assert words in failure.value.problem


@pytest.mark.parametrize(
    ("lines", "key", "words"),
    [
        ('home_network = "10.36.0.0/24"', "home_network", "add broadcasts = true"),
        ('broadcasts = true\nhome_network = "10.36.0.4/31"', "home_network", "at most 30 bits"),
        ('broadcasts = true\nhome_network = "10.37.0.0/24"', "home_network", "10.36.0.4"),
        ('broadcasts = true\nhome_network = "fd36::/64"', "home_network", "a prefix such as"),
        ("foreign_agent_keys = true", "foreign_agent_keys", 'association_with = "aaa"'),
    ],
)
def test_wrong_broadcasts_and_keys_of_a_device_are_refused(
    write: Any, lines: str, key: str, words: str
) -> None:
    file = write(ALL.replace("[mobile_node]\n", f"[mobile_node]\n{lines}\n"))
    with pytest.raises(ConfigError) as failure:
        load(file)
    assert (failure.value.file, failure.value.table, failure.value.key) == (str(file), "mobile_node", key)
    assert words in failure.value.problem


def test_broadcasts_and_keys_reach_the_roles(write: Any) -> None:
    own = 'broadcasts = true\nhome_network = "10.36.0.0/24"\nassociation_with = "aaa"\nforeign_agent_keys = true'
    text = ALL.replace("[mobile_node]\n", f"[mobile_node]\n{own}\n")
    text = text.replace("[foreign_agent]\n", '[foreign_agent]\nvisitor_keys = "required"\n')
    settings = load(write(text))
    mobile, foreign, home = settings.mobile_node, settings.foreign_agent, settings.home_agent
    assert mobile is not None and foreign is not None and home is not None
    assert mobile.configuration.agent_keys and foreign.configuration.visitor_keys is KeyMode.REQUIRED
    broadcasts = tuple(map(str, mobile.configuration.broadcast_addresses))
    assert broadcasts == ("255.255.255.255", "10.36.0.255")
    assert ip_address("10.36.0.255") in home.broadcast_addresses and settings.home_network is not None


def test_a_stand_in_that_registers(write: Any) -> None:
    settings = load(write(ALL + REGISTERS))
    assert settings.mnps is not None
    (device,) = settings.mnps.devices
    assert (device.home_agent, device.association.spi, device.binding, device.weight) == (
        ip_address("10.0.0.1"),
        1100,
        3,
        1,
    )
    role = roles(settings, lambda _link: None)["mnps"]
    assert isinstance(role, StandIn) and role.registration is not None
    assert not role.registration.configuration.colocated


REGISTERING = ALL + REGISTERS


@pytest.mark.parametrize(
    ("wrong", "right", "table", "key", "words"),
    [
        ("", 'mode = "register"\n', "mnps", "mobile", "no use"),
        ("bid = 64\n", "bid = 3\n", "mnps.mobile #1", "bid", "63"),
        ('home_address = "10.37.0.4"\nspi = 1100', 'home_address = "10.36.0.4"\nspi = 1100', "mnps", "mobile",
         "home_prefixes"),
        ("[[mnps", 'home_agent = "10.0.0.1"\n[[mnps', "mnps.mobile #1", "home_agent", "missing"),
    ],
)  # fmt: skip
def test_wrong_tables_of_stand_ins(
    write: Any, wrong: str, right: str, table: str, key: str, words: str
) -> None:
    assert right in REGISTERING
    text = REGISTERING.replace(right, wrong)
    with pytest.raises(ConfigError) as caught:
        load(write(text))
    assert (caught.value.table, caught.value.key) == (table, key)
    assert words in str(caught.value)


WRONG = [
    # new text, replaced text, table, key, helpful words
    ("", "", "node", None, "missing"),
    ("[node\n", "[node]\n", "", None, "not TOML"),
    ('nam = "x"\n', 'name = "all"\n', "node", "name", "missing"),
    ('name = "all"\ncolour = 1\n', 'name = "all"\n', "node", "colour", "not known"),
    ('name = "a/b"\n', 'name = "all"\n', "node", "name", "letters"),
    ("interfaces = []\n", 'interfaces = ["eth0", "radio0"]\n', "node", "interfaces", "at least one"),
    ('interfaces = ["eth0"]\n', 'interfaces = ["eth0", "radio0"]\n', "foreign_agent", "links", "[node]"),
    ('name = "all"\nmax_bindings = 1000\n', 'name = "all"\n', "node", "max_bindings", "1024"),
    ('name = "all"\nmax_bindings = 2000\n', 'name = "all"\n', "node", "max_bindings", "too few"),
    ('name = "all"\nmax_flows = 9000000\n', 'name = "all"\n', "node", "max_flows", "1048576"),
    ('name = "all"\nhold_packets = 1\n', 'name = "all"\n', "node", "hold_packets", "64"),
    ('name = "all"\nhold_bytes = "1K"\n', 'name = "all"\n', "node", "hold_bytes", "1048576"),
    ('name = "all"\nhold_packets_each = 8\n', 'name = "all"\n', "node", "hold_packets_each", "16"),
    ('name = "all"\nhold_bytes_each = "1K"\n', 'name = "all"\n', "node", "hold_bytes_each", "65536"),
    ('name = "all"\nhold_age = 121\n', 'name = "all"\n', "node", "hold_age", "120"),
    ('short_lifetime = -1\nlinks = ["radio0"]\n[[foreign', 'links = ["radio0"]\n[[foreign', "foreign_agent",
     "short_lifetime", "65534"),
    ('brief_lifetime = 0\nspi = 1000\nkey_file = "key"\nmnps', 'spi = 1000\nkey_file = "key"\nmnps', "mobile_node",
     "brief_lifetime", "from 1"),
    ("[home_agnet]\n", "[home_agent]\n", "", "home_agnet", "home_agent"),
    ("short_lifetime = 1800\n[[home_agent.mobile]]\n", "[[home_agent.mobile]]\n", "home_agent", "short_lifetime",
     "below max_lifetime"),
    ("max_lifetime = 70000\n[[home_agent.mobile]]\n", "[[home_agent.mobile]]\n", "home_agent", "max_lifetime",
     "65534"),
    ('home_prefixes = ["10.36.0.1/24"]\n', 'home_prefixes = ["10.36.0.0/24", "fd36::/64"]\n', "home_agent",
     "home_prefixes", "prefixes"),
    ('home_prefixes = ["10.37.0.0/24"]\n', 'home_prefixes = ["10.36.0.0/24", "fd36::/64"]\n',
     "home_agent.mobile #1", "home_address", "none of home_prefixes"),
    ('key_file = "kye"\nreplay', 'key_file = "key"\nreplay', "home_agent.mobile #1", "key_file", "0600"),
    ('replay = "none"\n', 'replay = "nonce"\n', "home_agent.mobile #1", "replay", '"timestamp", "nonce"'),
    ("spi = 255\nkey_file = \"key\"\nreplay", "spi = 1000\nkey_file = \"key\"\nreplay", "home_agent.mobile #1",
     "spi", "256"),
    ("spi = true\nkey_file = \"key\"\nreplay", "spi = 1000\nkey_file = \"key\"\nreplay", "home_agent.mobile #1",
     "spi", "whole number"),
    ('address = "fd00::1"\nhome_pre', 'address = "10.0.0.1"\nhome_pre', "home_agent", "address", "IPv4"),
    ('address = "224.0.0.1"\nhome_pre', 'address = "10.0.0.1"\nhome_pre', "home_agent", "address", "a host's"),
    ('default_coa = "0.0.0.0"\n', 'default_coa = "10.0.3.1"\n', "home_agent.mobile #1", "default_coa", "a host's"),
    ('peer = "255.255.255.255"\n', 'peer = "10.0.0.9"\n', "control.association #1", "peer", "a host's"),
    ('key_file = "k\\u0000y"\nreplay', 'key_file = "key"\nreplay', "home_agent.mobile #1", "key_file", "a path"),
    ('sender_id = "02"\n', 'sender_id = "01"\n', "control.association #1", "recipient_id", "different"),
    ('sender_id = "0"\n', 'sender_id = "01"\n', "control.association #1", "sender_id", "hexadecimal"),
    ('memory_bound = "8X"\n', 'memory_bound = "8M"\n', "mnps", "memory_bound", "64M"),
    ('session_least = "2G"\naccess_node', "access_node", "mnps", "session_least", "session_most"),
    ("max_sessions_per_device = 5000\naccess_node", "access_node", "mnps", "max_sessions_per_device", "4096"),
    ("max_handovers = 0\naccess_node", "access_node", "mnps", "max_handovers", "65536"),
    ("max_held_seconds = 2592001\naccess_node", "access_node", "mnps", "max_held_seconds", "2592000"),
    ('mnps = "10.0.0.8"\n', 'mnps = "10.0.0.9"\n', "control.association", "peer", "10.0.0.8"),
    ('link = "eth1"\n', 'link = "eth0"\n', "foreign_agent.static #1", "link", "[node]"),
    ("mobile = 3\n[[home_agent.foreign_agent]]", '[[home_agent.foreign_agent]]', None, None, ""),
]  # fmt: skip


@pytest.mark.parametrize(("new", "old", "table", "key", "words"), WRONG)
def test_errors_name_file_table_and_key(
    write: Any, new: str, old: str, table: str | None, key: str | None, words: str
) -> None:
    assert old in ALL
    text = ALL.replace(old, new, 1) if old else new
    path = write(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    if table is not None:
        assert (caught.value.table, caught.value.key) == (table, key), caught.value
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_room_follows_the_number_of_home_addresses(write: Any) -> None:
    """A home agent alone gets the next power of two, and no empty places beyond; a foreign agent needs some of each kind."""
    node = load(write(ALL)).node

    def room(needed: int, foreign: object = None) -> int:
        stand_in = SimpleNamespace(node=node, home_addresses=needed, foreign_agent=foreign)
        return limits(cast(Settings, stand_in)).bindings

    assert [room(needed) for needed in (1, 16_384, 16_385, 32_768, 32_769, 100_000, 262_145)] == [
        *(32_768,) * 4,
        65_536,
        131_072,
        524_288,
    ]
    assert [room(needed, object()) for needed in (1, 16_385, 262_145)] == [32_768, 262_144, 524_288]


def test_room_in_the_data_plane(write: Any) -> None:
    ordinary = limits(load(write(ALL)))
    assert (ordinary.bindings, ordinary.flows) == (32_768, 16_384)
    many = limits(
        load(
            write(
                ALL.replace('links = ["radio0"]\n[[for', 'links = ["radio0"]\nmax_visitors = 500000\n[[for')
            )
        )
    )
    assert many.bindings >= 1_000_000
    own = 'name = "all"\nmax_bindings = 1000000\nmax_flows = 2000\nhold_packets = 100\nhold_bytes = "2M"\n'
    own += 'hold_packets_each = 50\nhold_bytes_each = "1M"\nhold_age = 5\n'
    chosen = limits(load(write(ALL.replace('name = "all"\n', own))))
    assert (chosen.bindings, chosen.flows, chosen.hold_packets, chosen.hold_bytes) == (
        1_000_000,
        2000,
        100,
        2 << 20,
    )
    assert (chosen.hold_packets_each, chosen.hold_bytes_each, chosen.hold_age) == (50, 1 << 20, 5)
    assert (ordinary.hold_packets_each, ordinary.hold_bytes_each, ordinary.hold_age) == (8192, 16 << 20, 60)


def test_short_lifetimes_reach_the_roles(write: Any) -> None:
    text = ALL.replace('links = ["radio0"]\n[[for', 'links = ["radio0"]\nshort_lifetime = 2\n[[for')
    settings = load(write(text.replace("[mobile_node]\n", "[mobile_node]\nbrief_lifetime = 2\n")))
    made = roles(settings, lambda _: None)
    assert cast(ForeignAgent, made["foreign_agent"]).configuration.short_lifetime == 2
    assert cast(SleepingNode, made["mobile_node"]).mobile.configuration.brief_lifetime == 2


def test_a_secret_that_others_may_read_is_refused(write: Any, tmp_path: Path) -> None:
    path = write(ALL)
    (tmp_path / "key").chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(path)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "key").write_text("zz" * 16)
    with pytest.raises(ConfigError, match="hexadecimal"):
        load(path)
    (tmp_path / "key").write_text("aabb")
    with pytest.raises(ConfigError, match="2 bytes"):
        load(path)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 15, 129, 4096])
def test_keys_of_the_wrong_length_are_named_with_file_and_key(write: Any, tmp_path: Path, size: int) -> None:
    """Of every kind: a line of text can be read, and a daemon does not start with a traceback."""
    for kind in ("key_file", "secret_file"):
        for number in range(ALL.count(f'{kind} = "key"')):
            parts = ALL.split(f'{kind} = "key"')
            text = f'{kind} = "key"'.join(parts[: number + 1]) + f'{kind} = "other"'
            path = write(text + f'{kind} = "key"'.join(parts[number + 1 :]))
            other = tmp_path / "other"
            other.touch(mode=0o600)
            other.write_text("ab" * size)
            with pytest.raises(ConfigError, match=rf"{kind}: .*other holds {size} bytes; a key"):
                load(path)
            other.write_text("ab" * 16)
            load(path)


def test_short_and_typed_keys_are_taken_on_request(write: Any, tmp_path: Path) -> None:
    (tmp_path / "short").touch(mode=0o600)
    (tmp_path / "short").write_text("p4ss!\n")
    key = 'spi = 1000\nkey_file = "key"\nreplay'
    typed = 'spi = 1000\nkey_file = "short"\nkey_format = "text"\n'
    with pytest.raises(ConfigError, match="short holds 5 bytes"):
        load(write(ALL.replace(key, typed + "replay")))
    settings = load(write(ALL.replace(key, typed + "short_key = true\nreplay")))
    assert settings.home_agent is not None
    assert settings.home_agent.mobiles[0].association.key == b"p4ss!"
    (warning,) = settings.warnings
    assert "home_agent.mobile #1" in warning and "key_file" in warning and "5 bytes" in warning
    (tmp_path / "short").write_text("sixteen letters!\n")
    settings = load(write(ALL.replace(key, typed + "replay")))
    assert settings.home_agent is not None
    assert settings.home_agent.mobiles[0].association.key == b"sixteen letters!"
    assert len(settings.warnings) == 1 and "text" in settings.warnings[0]
    assert load(write(ALL)).warnings == ()


def test_each_direction_may_have_an_spi_of_its_own(write: Any) -> None:
    key = 'spi = 1000\nkey_file = "key"\nreplay'
    settings = load(write(ALL.replace(key, "sent_spi = 1001\n" + key)))
    assert settings.home_agent is not None
    association = settings.home_agent.mobiles[0].association
    assert (association.spi, association.outgoing_spi) == (1000, 1001)
    with pytest.raises(ConfigError, match="sent_spi"):
        load(write(ALL.replace(key, "sent_spi = 255\n" + key)))


def test_missing_file_role_or_text_is_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(tmp_path / "nowhere.toml")
    with pytest.raises(ConfigError, match="names no role"):
        load(write(NODE))
    with pytest.raises(ConfigError, match=r"\[mnps\] is asked over CoAP"):
        load(write(NODE + MNPS))
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(path)


def test_home_addresses_are_unique(write: Any) -> None:
    twice = ALL.replace(
        "[[home_agent.foreign_agent]]",
        """
[[home_agent.mobile]]
home_address = "10.36.0.4"
spi = 1001
key_file = "key"
[[home_agent.foreign_agent]]""",
        1,
    )
    with pytest.raises(ConfigError, match="appears twice"):
        load(write(twice))


def test_a_co_located_address_may_be_given(write: Any) -> None:
    text = ALL.replace(
        'mnps = "10.0.0.9"', 'mnps = "10.0.0.9"\nmode = "colocated"\ncare_of_address = "10.0.5.5"'
    )
    mobile = load(write(text)).mobile_node
    assert mobile is not None and mobile.configuration.colocated
    assert mobile.configuration.care_of_address == ip_address("10.0.5.5")


def test_stand_in_may_forward_after_a_direct_page(write: Any) -> None:
    for text, wanted in (("", "registration"), ('page_forwarding = "after"\n', "after")):
        settings = load(write(ALL + text)).mnps
        assert settings is not None and settings.configuration.page_forwarding.value == wanted
    for word in ("with", "before", "soon"):
        with pytest.raises(ConfigError, match=r"mnps.*page_forwarding"):
            load(write(ALL + f'page_forwarding = "{word}"\n'))
