"""Configuration of a device's listening ports: messages to its stand-in, and errors."""

from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from locum.node.assembly import mobile_node
from locum.node.config.load import ConfigError, load
from locum.node.sessions.replaying import Replaying
from locum.wire.control import Listener, Policy

DEVICE = """
[mobile_node]
home_address = "10.36.0.5"
home_address_v6 = "fd36::5"
home_agent = "10.0.0.1"
links = ["eth0"]
spi = 1000
key_file = "key"
"""
HOME4, HOME6 = ip_address("10.36.0.5"), ip_address("fd36::5")


def written(folder: Path, text: str) -> Path:
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_text("00112233445566778899aabbccddeeff\n")
    file = folder / "node.toml"
    file.write_text('[node]\nname = "n"\ninterfaces = ["eth0"]\n' + DEVICE + text)
    return file


def listen(lines: str) -> str:
    return f"[[mobile_node.listen]]\n{lines}\n"


def test_ports_are_told_for_each_home_address(tmp_path: Path) -> None:
    text = listen('port = 22\nwhile_asleep = "accept"\nmost = 5\nwindow = "16K"')
    text += listen('port = "8000-8001"\nwhile_asleep = "refuse"') + listen(
        'port = 9\nwhile_asleep = "ignore"'
    )
    role = mobile_node(load(written(tmp_path, text)))
    told = role.mobile.configuration.listeners
    assert told[:2] == tuple(
        Listener(home_address, 22, Policy.ACCEPT, 5, 16384) for home_address in (HOME4, HOME6)
    )
    assert [(listener.port, listener.policy) for listener in told[2::2]] == [
        (8000, Policy.REFUSE),
        (8001, Policy.REFUSE),
        (9, Policy.IGNORE),
    ]


@pytest.mark.parametrize("port", ["ssh", "22-", "-22", "22-x", "1-2-3"])
def test_invalid_port_is_refused_with_a_reason(tmp_path: Path, port: str) -> None:
    text = listen(f'port = "{port}"\nwhile_asleep = "refuse"')
    with pytest.raises(ConfigError, match=r'is not a port, or a range such as "8000-8003"$'):
        load(written(tmp_path, text))


def test_a_port_may_be_a_text(tmp_path: Path) -> None:
    told = mobile_node(load(written(tmp_path, listen('port = "22"\nwhile_asleep = "refuse"'))))
    assert {listener.port for listener in told.mobile.configuration.listeners} == {22}


def test_a_kernel_that_could_not_take_them_accepts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = listen('port = 22\nwhile_asleep = "accept"') + listen('port = 80\nwhile_asleep = "refuse"')
    settings = load(written(tmp_path, text))
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release="6.1.0-56-amd64"))
    told = mobile_node(settings).mobile.configuration.listeners
    assert [listener.policy for listener in told[::2]] == [Policy.IGNORE, Policy.REFUSE]
    events: list[tuple[object, ...]] = []
    assert settings.mobile_node is not None
    listening = settings.mobile_node.configuration.listening
    Replaying.tell_impossible(listening, lambda *told, **_: events.append(told))
    assert events == [("accept-impossible",)]


@pytest.mark.parametrize(
    ("text", "table", "key"),
    [
        (listen("port = 22"), "mobile_node.listen", "while_asleep"),
        (listen('port = 22\nwhile_asleep = "maybe"'), "mobile_node.listen", "while_asleep"),
        (listen('port = 0\nwhile_asleep = "accept"'), "mobile_node.listen", "port"),
        (listen('port = "1-200"\nwhile_asleep = "accept"'), "mobile_node.listen", "port"),
        (listen('port = 22\nwhile_asleep = "accept"\nmost = 2000'), "mobile_node.listen", "most"),
        (listen('port = 22\nwhile_asleep = "accept"\nwindow = 100'), "mobile_node.listen", "window"),
        (listen('port = 22\nwhile_asleep = "accept"\nelse = 1'), "mobile_node.listen", "else"),
        (listen('port = 22\nwhile_asleep = "accept"') * 2, "mobile_node", "listen"),
        (
            "".join(listen(f'port = "{n}00-{n}99"\nwhile_asleep = "refuse"') for n in (1, 2)),
            "mobile_node",
            "listen",
        ),
    ],
)
def test_errors_name_file_table_and_key(tmp_path: Path, text: str, table: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    assert (caught.value.table.split(" ")[0], caught.value.key) == (table, key)
