"""[home_agent]: stand-ins, rules and default care-of addresses reach the role; errors are named."""

from pathlib import Path
from typing import cast

import pytest

from locum.node.assembly import roles
from locum.node.config.load import ConfigError, load
from locum.roles.action_values.flows import RuleVerdict
from locum.roles.action_values.forwarding import InstallBinding, Verdict
from locum.roles.action_values.paging import PageForwarding, PageProfile
from locum.roles.home_agent.role import HomeAgent
from locum.roles.paging.limits import PageLimits

HEAD = """
[node]
name = "ha"
interfaces = ["eth0"]
[home_agent]
address = "10.0.0.1"
home_prefixes = ["10.36.0.0/24", "fd36::/64"]
"""
MOBILE = """
[[home_agent.mobile]]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
spi = 1000
key_file = "key"
default_coa = "10.0.3.1"
"""
STAND_INS = """
[[home_agent.mobile.stand_in]]
name = "near"
address = "10.0.3.2"
address_v6 = "fd03::2"
spi = 1100
key_file = "key"
translate = true
[[home_agent.mobile.stand_in]]
name = "far"
address = "10.0.4.2"
spi = 1101
key_file = "key"
"""
RULES = """
[[home_agent.mobile.rule]]
id = 1
priority = 10
to = ["near", "mn", 7]
protocol = "tcp"
source_port = 80
[[home_agent.mobile.rule]]
priority = 20
action = "drop"
source = "10.9.0.0/16"
[[home_agent.mobile.rule]]
priority = 30
to = ["default"]
protocol = "udp"
"""


def write(folder: Path, text: str) -> Path:
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text("00112233445566778899aabbccddeeff\n")
    path = folder / "ha.toml"
    path.write_text(text)
    return path


def test_configuration_reaches_the_home_agent_role(tmp_path: Path) -> None:
    extra = 'default_coa_takes = "ruled"\ndefault_coa_by_registration = false\n'
    settings = load(write(tmp_path, HEAD + MOBILE + extra + STAND_INS + RULES))
    assert settings.home_agent is not None
    mobile = settings.home_agent.mobiles[0]
    assert [
        (stand_in.name, stand_in.association.spi, stand_in.translate) for stand_in in mobile.stand_ins
    ] == [
        ("near", 1100, True),
        ("far", 1101, False),
    ]
    assert [(rule.identifier, rule.priority, rule.to) for rule in mobile.rules] == [
        (1, 10, ("near", "mn", 7)),
        (0x8000, 20, ()),
        (0x8001, 30, ("default",)),
    ]
    role = cast(HomeAgent, roles(settings, lambda _: None)["home_agent"])
    entries = [action.entry for action in role.restore([], now=0.0) if isinstance(action, InstallBinding)]
    assert [(entry.verdict, len(entry.rules)) for entry in entries] == [
        (Verdict.NATIVE, 2),
        (Verdict.NATIVE, 1),
    ]
    assert [line.live for line in role.list_rules()] == [(), (4,), (4, 6)]


def test_default_values_of_the_home_agent(tmp_path: Path) -> None:
    settings = load(write(tmp_path, HEAD + MOBILE))
    assert settings.home_agent is not None and settings.home_agent.configuration.multipath
    mobile = settings.home_agent.mobiles[0]
    assert (mobile.stand_ins, mobile.rules) == ((), ())
    assert mobile.default_by_registration and not mobile.default_ruled
    assert settings.home_agent.configuration.pages == PageLimits()


def test_limits_of_pages_are_read_and_checked(tmp_path: Path) -> None:
    keys = "page_seconds = 9\npage_wake_seconds = 8.5\npages_per_hour = 7\npage_burst = 3\npage_rule_interval = 0\n"
    settings = load(write(tmp_path, HEAD + keys + MOBILE))
    assert settings.home_agent is not None
    assert settings.home_agent.configuration.pages == PageLimits(9.0, 8.5, 7, 3, 0.0)
    with pytest.raises(ConfigError, match=r"home_agent.*pages_per_hour"):
        load(write(tmp_path, HEAD + "pages_per_hour = 0\n" + MOBILE))


def test_settings_about_sleepers_are_read_and_checked(tmp_path: Path) -> None:
    settings = load(write(tmp_path, HEAD + MOBILE)).home_agent
    assert settings is not None and settings.homes.asleep_otherwise is RuleVerdict.AGENT
    assert settings.mobiles[0].asleep_otherwise is RuleVerdict.AGENT
    keys = 'asleep_otherwise = "hold"\npage_rules_lifetime = 60\n'
    settings = load(write(tmp_path, HEAD + keys + MOBILE)).home_agent
    assert settings is not None and settings.homes.asleep_otherwise is RuleVerdict.HOLD
    assert settings.mobiles[0].asleep_otherwise is RuleVerdict.HOLD
    assert settings.configuration.left_lifetime == 60
    own = MOBILE.replace("spi = 1000", 'asleep_otherwise = "drop"\nspi = 1000')
    settings = load(write(tmp_path, HEAD + keys + own)).home_agent
    assert settings is not None and settings.mobiles[0].asleep_otherwise is RuleVerdict.DROP
    with pytest.raises(ConfigError, match=r"home_agent.*asleep_otherwise"):
        load(write(tmp_path, HEAD + 'asleep_otherwise = "page"\n' + MOBILE))


def test_forwarding_of_pages_is_read_and_checked(tmp_path: Path) -> None:
    settings = load(write(tmp_path, HEAD + MOBILE)).home_agent
    assert settings is not None and settings.mobiles[0].page_forwarding is None
    assert settings.configuration.page_forwarding is PageForwarding.REGISTRATION
    own = MOBILE.replace("[[home_agent.mobile]]", '[[home_agent.mobile]]\npage_forwarding = "after"', 1)
    settings = load(write(tmp_path, HEAD + 'page_forwarding = "with"\n' + own)).home_agent
    assert settings is not None and settings.configuration.page_forwarding is PageForwarding.WITH
    assert settings.mobiles[0].page_forwarding is PageForwarding.AFTER
    assert settings.configuration.page_profile is PageProfile.NONE
    with pytest.raises(ConfigError, match=r"policy.*page_profile"):
        load(write(tmp_path, HEAD + 'page_profile = "pointer"\n' + MOBILE))
    with pytest.raises(ConfigError, match=r"home_agent.*page_forwarding"):
        load(write(tmp_path, HEAD + 'page_forwarding = "soon"\n' + MOBILE))


@pytest.mark.parametrize(
    ("old", "new", "table", "words"),
    [
        ("spi = 1101", "spi = 1100", "home_agent.mobile #1", "spi is the same twice"),
        ("spi = 1101", "spi = 1000", "home_agent.mobile #1", "spi is the same twice"),
        ('name = "far"', 'name = "near"', "home_agent.mobile #1", "name is the same twice"),
        ('"10.0.4.2"', '"10.0.3.2"', "home_agent.mobile #1", "address is the same twice"),
        ('name = "far"', 'name = "mn"', "home_agent.mobile #1.stand_in #2", "cannot be the name"),
        ('name = "far"', 'name = "a b"', "home_agent.mobile #1.stand_in #2", "cannot be the name"),
        ("translate = true", "translat = true", "home_agent.mobile #1.stand_in #1", "translate"),
        ('["default"]', '["fat"]', "home_agent.mobile #1", "known are default, far, mn, mnps, near"),
        ('["default"]', "[255]", "home_agent.mobile #1", "1 to 254"),
        ('["default"]', "[]", "home_agent.mobile #1.rule #3", "0 targets"),
        ('protocol = "udp"', 'protocol = "udq"', "home_agent.mobile #1.rule #3", "protocol"),
        ("priority = 30\n", "", "home_agent.mobile #1.rule #3", "priority"),
        ("priority = 20", "priority = 10", "home_agent.mobile #1.rule #2", "take the same packets"),
        ("id = 1\n", "id = 65500\n", "home_agent.mobile #1.rule #1", "65471"),
        (
            'default_coa = "10',
            'default_coa_takes = "some"\ndefault_coa = "10',
            "home_agent.mobile #1",
            "ruled",
        ),
    ],
)
def test_errors_name_file_table_and_key(tmp_path: Path, old: str, new: str, table: str, words: str) -> None:
    text = HEAD + MOBILE + STAND_INS + RULES
    assert old in text
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text.replace(old, new, 1)))
    assert caught.value.table == table
    assert words in str(caught.value)


OTHER = """
[[home_agent.mobile]]
home_address = "10.36.0.5"
home_address_v6 = "fd36::5"
spi = 1010
key_file = "key"
"""


@pytest.mark.parametrize(
    ("old", "new", "table", "key"),
    [
        ('default_coa = "10.0.3.1"', 'default_coa = "10.36.0.5"', "home_agent.mobile #1", "default_coa"),
        ('default_coa = "10.0.3.1"', 'default_coa = "10.36.0.4"', "home_agent.mobile #1", "default_coa"),
        ('default_coa = "10.0.3.1"', 'default_coa = "10.0.0.1"', "home_agent.mobile #1", "default_coa"),
        ('default_coa = "10.0.3.1"', 'mnps = "10.36.0.5"', "home_agent.mobile #1", "mnps"),
        ('default_coa = "10.0.3.1"', 'mnps_v6 = "fd36::5"', "home_agent.mobile #1", "mnps_v6"),
        ('"10.0.4.2"', '"10.36.0.4"', "home_agent.mobile #1.stand_in #2", "address"),
        ('"fd03::2"', '"fd36::5"', "home_agent.mobile #1.stand_in #1", "address_v6"),
    ],
)
def test_default_that_leads_back_home_is_refused(
    tmp_path: Path, old: str, new: str, table: str, key: str
) -> None:
    text = HEAD + MOBILE + STAND_INS + OTHER
    assert text.count(old) == 1
    load(write(tmp_path, text))
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text.replace(old, new)))
    assert (caught.value.file, caught.value.table, caught.value.key) == (
        str(tmp_path / "ha.toml"),
        table,
        key,
    )


@pytest.mark.parametrize(
    "role",
    [
        '[foreign_agent]\ncare_of_address = "10.0.0.1"\nlinks = ["eth0"]\n',
        '[control]\naddress = "10.0.0.1"\n[mnps]\naddress = "10.0.0.1"\naccess_node = "10.0.0.1"\n'
        'home_prefixes = ["10.36.0.0/24"]\nlinks = ["eth0"]\n',
    ],
)
def test_a_default_care_of_address_on_this_very_host(tmp_path: Path, role: str) -> None:
    """R17: a role on this host takes the packets."""
    text = HEAD + MOBILE.replace("10.0.3.1", "10.0.0.1") + role
    assert load(write(tmp_path, text)).home_agent is not None
    with pytest.raises(ConfigError, match="own address"):
        load(
            write(
                tmp_path,
                text.replace('care_of_address = "10.0.0.1"', 'care_of_address = "10.0.0.2"').replace(
                    '[mnps]\naddress = "10.0.0.1"', '[mnps]\naddress = "10.0.0.2"'
                ),
            )
        )


def test_more_rules_than_there_is_room_for(tmp_path: Path) -> None:
    rules = "".join(f'[[home_agent.mobile.rule]]\npriority = {number}\nto = ["mn"]\n' for number in range(65))
    with pytest.raises(ConfigError, match="no room"):
        load(write(tmp_path, HEAD + MOBILE + rules))
    all_but_one = rules[: rules.rindex("[[")]
    load(write(tmp_path, HEAD + MOBILE + all_but_one))
    with pytest.raises(ConfigError, match="1 more than 64"):
        load(write(tmp_path, HEAD + MOBILE + STAND_INS + all_but_one))
