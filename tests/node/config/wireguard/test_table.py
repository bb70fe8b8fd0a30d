"""The table [wireguard], and the keys in its files."""

from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from locum.node.config.load import ConfigError, load
from locum.node.config.wireguard.values import MARK, Endpoint, Peer, WireGuardSettings, public_key_of

PRIVATE = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk="  # of wg(8)'s manual
PUBLIC = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw="
OTHER = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
THIRD = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0="
NODE = '[node]\nname = "device"\ninterfaces = ["wlan0"]\n'
TABLE = '[wireguard]\nprivate_key_file = "wg.key"\naddress = "10.20.1.2/24"\n'
PEER = f'[[wireguard.peer]]\npublic_key = "{OTHER}"\naddress = "10.20.1.1"\n'


class Reader:
    """Reads a text as a configuration file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key(PRIVATE)

    def key(self, text: str, name: str = "wg.key", mode: int = 0o600) -> None:
        path = self.folder / name
        path.touch()
        path.chmod(mode)
        path.write_text(text + "\n")

    def __call__(self, text: str) -> WireGuardSettings:
        path = self.folder / "device.toml"
        path.write_text(NODE + text)
        found = load(path).wireguard
        assert found is not None
        return found

    def problem(self, text: str) -> str:
        with pytest.raises(ConfigError) as caught:
            self(text)
        return str(caught.value).removeprefix(f"{self.folder}/device.toml: ")


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_whole_table(read: Reader) -> None:
    read.key(THIRD, "psk.key")
    text = (
        TABLE + 'interface = "wg7"\nlisten_port = 51820\nmark = 7\n' + PEER + 'endpoint = "vpn.Example:51820"\n'
        'keepalive = 20\npreshared_key_file = "psk.key"\n'
    )  # fmt: skip
    assert read(text) == WireGuardSettings(
        interface="wg7",
        private_key=PRIVATE,
        private_key_file=str(read.folder / "wg.key"),
        address=ip_interface("10.20.1.2/24"),
        listen_port=51820,
        mark=7,
        peers=(Peer(OTHER, ip_address("10.20.1.1"), THIRD, Endpoint("vpn.example", 51820), 20),),
    )


def test_defaults_and_secrecy(read: Reader) -> None:
    settings = read(TABLE + PEER)
    assert (settings.interface, settings.listen_port, settings.mark) == ("locum0", 0, MARK)
    assert (settings.peers[0].endpoint, settings.peers[0].keepalive) == (None, 0)
    assert PRIVATE not in repr(settings)


def test_public_key_is_that_of_wg() -> None:
    assert public_key_of(PRIVATE) == PUBLIC


@pytest.mark.parametrize(
    "text, problem",
    [
        (TABLE.replace("10.20.1.2/24", "10.20.1.2"), "[wireguard] address: '10.20.1.2' is not an address with"),
        (TABLE.replace("10.20.1.2/24", "10.20.1.0/24"), "that is the network"),
        (TABLE + 'interface = "a/b"', "[wireguard] interface: 'a/b' must be 1 to 15 letters"),
        (TABLE + "listen_port = 65536", "[wireguard] listen_port: 65536 is not a whole number from 0 to 65535"),
        (TABLE + "mark = 0", "[wireguard] mark: 0 is not a whole number from 1 to"),
        (TABLE + "peers = 1", "[wireguard] peers: is not known; did you mean peer?"),
        (TABLE + PEER.replace(OTHER, "AAAA"), "3 bytes; a key has 32"),
        (TABLE + PEER.replace(OTHER, "?"), "[wireguard.peer #1] public_key: '?' is not a key of 32 bytes"),
        (TABLE + PEER.replace(OTHER, "A" * 43 + "="), "all bytes are 0"),
        (TABLE + PEER.replace(OTHER, PUBLIC), "#1: public_key is this node's own"),
        (TABLE + PEER + PEER.replace(".1.1", ".1.3"), "#2: public_key stands in another peer too"),
        (TABLE + PEER + PEER.replace(OTHER, THIRD), "#2: address 10.20.1.1 has another owner"),
        (TABLE + PEER.replace(".1.1", ".1.2"), "#1: address 10.20.1.2 has another owner"),
        (TABLE + PEER.replace(".1.1", ".2.1"), "#1: address 10.20.2.1 is not in 10.20.1.0/24 of address"),
        (TABLE + PEER.replace("10.20.1.1", "fd00::1"), "#1: address fd00::1 is not in 10.20.1.0/24"),
        (TABLE + PEER + "keepalive = 65536", "[wireguard.peer #1] keepalive: 65536"),
        *(
            (TABLE + PEER + f'endpoint = "{endpoint}"', f"[wireguard.peer #1] endpoint: '{endpoint}' is not")
            for endpoint in ("a", "a:0", "a:65536", "2001:db8::1:5", "[::]:5", "224.0.0.1:5", "1.2.3:4", "a b:5")
        ),
    ],
)  # fmt: skip
def test_one_clear_error(read: Reader, text: str, problem: str) -> None:
    said = read.problem(text)
    assert problem in said and "\n" not in said


@pytest.mark.parametrize(
    "endpoint, host, port",
    [("192.0.2.1:5", "192.0.2.1", 5), ("[2001:DB8::1]:6", "2001:db8::1", 6), ("a-b.example.:7", "a-b.example", 7)],
)  # fmt: skip
def test_endpoints(read: Reader, endpoint: str, host: str, port: int) -> None:
    (peer,) = read(TABLE + PEER + f'endpoint = "{endpoint}"').peers
    assert peer.endpoint == Endpoint(host, port)


def test_key_files_are_for_their_owner_alone(read: Reader) -> None:
    read.key(PRIVATE, mode=0o644)
    assert "[wireguard] private_key_file: " in (said := read.problem(TABLE)) and "chmod 600" in said
    read.key("secret words")
    assert "private_key_file: the file holds no key of WireGuard" in read.problem(TABLE)
    (read.folder / "wg.key").unlink()
    assert "does not exist; put the output of wg genkey there, mode 0600" in read.problem(TABLE)
