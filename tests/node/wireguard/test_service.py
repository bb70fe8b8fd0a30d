"""Two services in one namespace, over the loopback interface: peers, keys, and what stands in the way."""

import asyncio
import itertools
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from locum.node.config.wireguard.values import Endpoint, Peer, WireGuardSettings, public_key_of
from locum.node.events import EventStream
from locum.node.host.network import HostNetwork
from locum.node.store import Store
from locum.node.wireguard import tool
from locum.node.wireguard.key_change import new_private_key
from locum.node.wireguard.service import WireGuard
from locum.node.wireguard.tool import WireGuardError
from tests.node.conftest import Namespace

SERVER, DEVICE = "10.88.1.1", "10.88.1.2"
PORT = 51820
_numbers = itertools.count()


@pytest.fixture
def space(namespace: Callable[[str], Namespace]) -> Iterator[Namespace]:
    made = namespace("wg")
    with made.entered():
        yield made


class Ends:
    """Settings of a server and a device, with keys of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = {name: new_private_key() for name in ("server", "device")}
        at = Endpoint("127.0.0.1", PORT)
        self.settings = {
            "server": self.of("server", SERVER, PORT, Peer(self.public("device"), ip_address(DEVICE))),
            "device": self.of("device", DEVICE, 0, Peer(self.public("server"), ip_address(SERVER), None, at, 20)),
        }  # fmt: skip

    def public(self, name: str) -> str:
        return public_key_of(self.keys[name])

    def of(self, name: str, address: str, port: int, *peers: Peer) -> WireGuardSettings:
        file = self.folder / f"{name}.key"
        file.write_text(self.keys[name])
        own = ip_interface(f"{address}/24")
        interface = f"ls{os.getpid()}{next(_numbers)}"
        return WireGuardSettings(interface, self.keys[name], str(file), own, port, 0x4C57, peers)

    @asynccontextmanager
    async def running(self, name: str, *, keep: bool = False) -> AsyncIterator[WireGuard]:
        """The service of one end; `keep`: its interface stays as after a kill."""
        store = Store(self.folder / f"{name}.db")
        events = EventStream(name, self.folder / f"{name}.jsonl")
        service = WireGuard(self.settings[name], ("lo",), store, events)
        network = HostNetwork(store)
        await network.open()
        try:
            await service.open()
            await service.begin(network)
            yield service
        finally:
            await service.close(remove=not keep)
            await network.undo_all()
            await network.close()
            await store.close()
            events.close()


async def until(true: Callable[[], bool], seconds: float = 8.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.02)


async def handshake(service: WireGuard, public: str) -> int:
    """Time of the peer's latest handshake, once there is one."""
    async with asyncio.timeout(8.0):
        while not (peer := (await service.look()).peer(public)) or not peer.handshake:
            await asyncio.sleep(0.02)
    return peer.handshake


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path)


def test_keys_roll_over_at_both_ends(space: Namespace, ends: Ends) -> None:
    new = new_private_key()

    async def run() -> None:
        async with ends.running("server") as server, ends.running("device") as device:
            await handshake(server, ends.public("device"))
            rolling = asyncio.create_task(server.replace_peer_key(ends.public("device"), public_key_of(new)))
            async with asyncio.timeout(3):
                while (await server.look()).peer(public_key_of(new)) is None:
                    await asyncio.sleep(0.01)
            await device.replace_key(new)
            await rolling
            (peer,) = await server.peers()
            assert peer.public_key == public_key_of(new) and peer.allowed == (f"{DEVICE}/32",)
            assert peer.handshake and (await device.look()).public_key == public_key_of(new)

    asyncio.run(run())
    file = ends.folder / "device.key"
    assert file.read_text().strip() == new and file.stat().st_mode & 0o777 == 0o600
    assert '"wireguard-key-replaced"' in (ends.folder / "device.jsonl").read_text()
    assert not list(ends.folder.glob(".*.new"))


def test_key_that_no_peer_takes_is_given_up(space: Namespace, ends: Ends) -> None:
    async def run() -> None:
        async with ends.running("server") as server, ends.running("device") as device:
            await handshake(device, ends.public("server"))
            with pytest.raises(WireGuardError, match="no peer has answered to the new key within"):
                await device.replace_key(new_private_key(), patience=0.5)
            await handshake(device, ends.public("server"))
            assert (await device.look()).public_key == ends.public("device")
            with pytest.raises(WireGuardError, match="has not used its new key"):
                await server.replace_peer_key(ends.public("device"), public_key_of(new_private_key()), 0.3)
            with pytest.raises(WireGuardError, match="no key of WireGuard"):
                await device.replace_key("short")
            (peer,) = await server.peers()
            assert peer.public_key == ends.public("device") and peer.allowed == (f"{DEVICE}/32",)

    asyncio.run(run())
    assert (ends.folder / "device.key").read_text().strip() == ends.keys["device"]


def test_peers_come_and_go_while_it_runs(space: Namespace, ends: Ends) -> None:
    ends.settings["server"] = replace(ends.settings["server"], peers=())
    known = Peer(ends.public("device"), ip_address(DEVICE))

    async def run() -> None:
        async with ends.running("server", keep=True) as server, ends.running("device") as device:
            await server.add_peer(known)
            await handshake(device, ends.public("server"))
            with pytest.raises(WireGuardError, match=f"address {DEVICE} belongs to the peer"):
                await server.add_peer(Peer(public_key_of(new_private_key()), ip_address(DEVICE)))
            with pytest.raises(WireGuardError, match=f"address {SERVER} belongs to this node"):
                await server.add_peer(Peer(public_key_of(new_private_key()), ip_address(SERVER)))
            before = await handshake(server, known.public_key)
            await server.add_peer(known)
            assert await handshake(server, known.public_key) == before
        async with ends.running("server", keep=True) as server:
            assert server.interface.adopted and len(await server.peers()) == 1
            await server.add_peer(known)
            await server.settle()
            assert len(await server.peers()) == 1 and await server.remove_peer(known.public_key)
            assert not await server.peers() and not await server.remove_peer(known.public_key)
            await server.add_peer(known)
        async with ends.running("server") as server:
            await server.settle()
            assert not await server.peers(), "nobody has added it again"

    asyncio.run(run())


def test_name_is_resolved_again_for_a_server_that_moved(
    space: Namespace, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first address is dead; IPv6 has no route here; the second answer of the resolver has the right one."""
    answers = [["2001:db8::5", "192.0.2.9"], ["2001:db8::5", "127.0.0.1"]]

    def resolve(host: str, port: int, *_: object, **__: object) -> list[object]:
        assert host == "server.example"
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(0, 0, 0, "", (address, port)) for address in found]

    space.ip("link add dead0 type veth peer dead1")
    for link in ("dead0", "dead1"):
        space.ip(f"link set {link} up")
    space.ip("addr add 192.0.2.1/24 dev dead0")
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    (peer,) = ends.settings["device"].peers
    named = replace(peer, endpoint=Endpoint("server.example", PORT))
    ends.settings["device"] = replace(ends.settings["device"], peers=(named,))

    async def run() -> None:
        async with ends.running("server"), ends.running("device") as device:
            await handshake(device, peer.public_key)
            assert str(device.book.known[peer.public_key].endpoint) == f"127.0.0.1:{PORT}"

    asyncio.run(run())


def test_obstacles_are_one_clear_error_each(
    space: Namespace, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ends.settings["server"]

    async def refused() -> str:
        with pytest.raises(WireGuardError) as caught:
            async with ends.running("server"):
                pass
        return str(caught.value)

    space.ip(f"link add {settings.interface} type veth peer name other")
    assert f"there is an interface {settings.interface} that is not of this node" in asyncio.run(refused())
    assert "other@" in space.ip("link"), "it is left alone"
    space.ip("link del other")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", PORT))
        said = asyncio.run(refused())
    assert said.startswith(
        f"UDP port {PORT} of listen_port in [wireguard] is in use; end its owner (ss -lunp"
    )
    assert settings.interface not in space.ip("link")
    with monkeypatch.context() as patched:
        patched.setattr("shutil.which", lambda _: None)
        assert "apt-get install wireguard-go" in asyncio.run(refused())
    with monkeypatch.context() as patched:
        patched.setattr(tool, "_PROGRAM", "no-such-wg")
        assert asyncio.run(refused()).startswith("the program no-such-wg is missing")
    assert settings.interface not in space.ip("link")


def test_keys_are_in_no_process_list(space: Namespace, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every program that is run gets no secret as an argument."""
    seen: list[str] = []
    begin = asyncio.create_subprocess_exec

    async def watched(*command: str, **more: object) -> object:
        seen.append(" ".join(command))
        return await begin(*command, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", watched)
    secret = new_private_key()

    async def run() -> None:
        async with ends.running("server") as server:
            await server.add_peer(Peer(ends.public("device"), ip_address(DEVICE), secret))

    asyncio.run(run())
    said = "\n".join(seen)
    assert "private-key /dev/fd/" in said and "preshared-key /dev/fd/" in said
    assert secret not in said and ends.keys["server"] not in said
