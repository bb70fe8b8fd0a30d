"""The key `attend` and the tables [[mobile_node.app]] of a configuration."""

from collections.abc import Callable
from pathlib import Path

import pytest

from locum.node.config.load import load
from locum.node.config.toml_table import ConfigError
from locum.roles.action_values.app_orders import MAX_SETTINGS
from locum.roles.action_values.apps import AppOrder, Consume
from locum.roles.action_values.emission import permits
from tests.node.config.test_load import CONTROL, MOBILE_NODE, NODE

Write = Callable[[str], Path]

MAIL = '\n[[mobile_node.app]]\nkind = "keepalive"\nname = "mail"\nsettings = { interval = 5 }\n'
AUTO = AppOrder("auto", "keepalive", {"protocol": "auto"})


def orders(path: Path) -> tuple[AppOrder, ...]:
    settings = load(path).mobile_node
    assert settings is not None
    return settings.configuration.apps


def test_attend_auto_adds_a_proxy_behind_all_others(write: Write) -> None:
    head = NODE + CONTROL + MOBILE_NODE
    mail = AppOrder("mail", "keepalive", {"interval": 5})
    assert orders(write(head)) == () and orders(write(head + MAIL)) == (mail,)
    assert orders(write(head + '\nattend = "auto"\n' + MAIL)) == (mail, AUTO)


@pytest.mark.parametrize("consume", Consume)
def test_leave_to_consume_is_read(write: Write, consume: Consume) -> None:
    found = orders(write(NODE + CONTROL + MOBILE_NODE + MAIL + f'consume = "{consume}"\n'))
    assert [order.consume for order in found] == [consume]


def test_emission_rules_are_read(write: Write) -> None:
    rule = NODE + CONTROL + MOBILE_NODE + MAIL
    found = orders(write(rule + 'emission = ["tcp 443", "udp 192.0.2.0/24 53"]\n'))
    assert [order.emission for order in found] == [permits(["tcp 443", "udp 192.0.2.0/24 53"])]
    assert [order.emission for order in orders(write(rule + "emission = []\n"))] == [()]
    for wrong in ('["tcp 443-1"]', '"tcp"', "[1]", "[[]]"):
        with pytest.raises(ConfigError, match=r"mobile_node\.app #1\] emission: .*(expected|list of rules)"):
            load(write(rule + f"emission = {wrong}\n"))


WATCH = '\n[[mobile_node.app]]\nkind = "mail"\nsettings = { user = "a", password_file = "mail.key" }\n'


def test_password_comes_from_a_file_of_its_own(write: Write, tmp_path: Path) -> None:
    secret = tmp_path / "mail.key"
    path = write(NODE + CONTROL + MOBILE_NODE + WATCH)
    with pytest.raises(ConfigError, match=r"mail\.key does not exist"):
        load(path)
    secret.write_text("s3cret\n")
    secret.chmod(0o644)
    with pytest.raises(ConfigError, match=r"app.*password_file.*open to others"):
        load(path)
    secret.chmod(0o600)
    (order,) = orders(path)
    assert order.settings == {"user": "a", "password": "s3cret"}
    assert order.shown() == {"user": "a", "password": "(hidden)"} and "s3cret" not in repr(order)
    secret.write_text("\n")
    with pytest.raises(ConfigError, match="holds no password"):
        load(path)
    both = WATCH.replace("user =", "password = 'x', user =")
    with pytest.raises(ConfigError, match=r"password_file.*either this or password"):
        load(write(NODE + CONTROL + MOBILE_NODE + both))


def test_wrong_word_names_no_class_of_the_program(write: Write) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write(NODE + CONTROL + MOBILE_NODE + MAIL + 'consume = "eat"\n'))
    said = str(raised.value)
    assert said.endswith("""[mobile_node.app #1] consume: 'eat' is not one of "replay", "replace", "omit\"""")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\nattend = "all"\n', "attend"),
        ('\nattend = "auto"\n' + MAIL.replace('"mail"', '"auto"'), "attend.*the name auto"),
        (MAIL + MAIL, "app.*2 tables have the name mail: give each a name"),
        (MAIL.replace("keepalive", "x" * 65), "kind"),
        (MAIL.replace("{ interval = 5 }", "5"), "settings"),
        (MAIL.replace("5 }", "18446744073709551616 }"), "settings.*64 bits"),
        (MAIL.replace("5 }", "[[[[[[[[0]]]]]]]] }"), "settings.*at most 8 deep"),
        (MAIL.replace("5 }", f"'{'x' * MAX_SETTINGS}' }}"), "settings.*at most 16384 bytes"),
        *((MAIL + f"consume = {wrong}\n", 'consume.*"replay"') for wrong in ('"eat"', "1", '["omit"]')),
        (
            '\nattend = "auto"\n' + "".join(MAIL.replace('"mail"', f'"{n}"') for n in range(16)),
            "at most 16 .*auto.* are 17",
        ),
    ],
)
def test_mistakes_name_table_and_key(write: Write, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"mobile_node.*{said}"):
        load(write(NODE + CONTROL + MOBILE_NODE + text))
