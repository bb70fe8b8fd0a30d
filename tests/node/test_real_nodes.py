"""Real daemons in four namespaces: they register, packets take the tunnels, daemons die and come back, nothing stays.

cn 10.1.0.2 -- 10.1.0.1 ha 10.2.0.1 -- 10.2.0.2 an 10.3.0.1 ~radio~ mn (10.36.0.4, fd36::4)
"""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from locum.node.control.client import NodeClient, NodeUnreachable
from tests.node.conftest import Namespace, join
from tests.node.host.test_network import picture

HA = """
[node]
name = "ha"
interfaces = ["eth0", "eth1"]
{common}
[home_agent]
address = "10.2.0.1"
home_prefixes = ["10.36.0.0/24", "fd36::/64"]
[[home_agent.mobile]]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
spi = 1000
key_file = "key"
"""
AN = """
[node]
name = "an"
interfaces = ["eth0", "radio0"]
{common}
[foreign_agent]
care_of_address = "10.2.0.2"
links = ["radio0"]
advertise_interval = 0.3
"""
MN = """
[node]
name = "mn"
interfaces = ["radio0"]
{common}
[mobile_node]
home_address = "10.36.0.4"
home_address_v6 = "fd36::4"
home_agent = "10.2.0.1"
links = ["radio0"]
lifetime = 60
spi = 1000
key_file = "key"
"""


class World:
    """The namespaces, the configuration files and the daemons."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        self.folder = folder
        self.spaces = {name: make(name) for name in ("cn", "ha", "an", "mn")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        cn, ha, an, mn = (self.spaces[name] for name in ("cn", "ha", "an", "mn"))
        join(cn, "eth0", ha, "eth0")
        join(an, "radio0", mn, "radio0")
        cn.ip("addr add 10.1.0.2/24 dev eth0")
        cn.ip("route add default via 10.1.0.1")
        cn.ip("addr add fd01::2/64 dev eth0 nodad")
        cn.ip("-6 route add default via fd01::1")
        ha.ip("addr add 10.1.0.1/24 dev eth0")
        ha.ip("addr add fd01::1/64 dev eth0 nodad")
        self.connect_agents(ha, an)
        an.ip("addr add 10.3.0.1/24 dev radio0")
        (folder / "key").touch(mode=0o600)
        (folder / "key").write_text("00112233445566778899aabbccddeeff")
        self.bpf = folder / "bpf"
        self.bpf.mkdir()
        subprocess.run(["mount", "-t", "bpf", "none", str(self.bpf)], check=True)
        for name, text in (("ha", HA), ("an", AN), ("mn", MN)):
            (folder / f"{name}.toml").write_text(text.format(common=self.common(name)))

    def common(self, name: str) -> str:
        """Common keys of every [node] table."""
        return (
            f'state_dir = "{self.folder}/state"\nrun_dir = "{self.folder}/run"\nbpf_dir = "{self.bpf}"\n'
            f'log_events = "{self.folder}/{name}.jsonl"'
        )

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        join(ha, "eth1", an, "eth0")
        ha.ip("addr add 10.2.0.1/24 dev eth1")
        an.ip("addr add 10.2.0.2/24 dev eth0")
        an.ip("route add default via 10.2.0.1")

    def start(self, name: str) -> None:
        space = self.spaces[name]
        self.daemons[name] = subprocess.Popen(
            ["nsenter", f"--net={space.path}", sys.executable, "-m", "locum", "node", "run",
             str(self.folder / f"{name}.toml")],
            stderr=(self.folder / f"{name}.err").open("ab"),
        )  # fmt: skip
        self.until(lambda: self.ask(name, "status"), f"{name} to start", 40.0)

    def ask(self, name: str, request: str, **arguments: Any) -> Any:
        try:
            with NodeClient(self.folder / "run" / f"{name}.sock") as client:
                return client.request(request, **arguments)
        except NodeUnreachable:
            daemon = self.daemons[name]
            assert daemon.poll() is None, (self.folder / f"{name}.err").read_text()
            return None

    def until(self, true: Callable[[], Any], what: str, seconds: float = 60.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.complaints()}"
            time.sleep(0.05)
        return found

    def complaints(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))

    def radio(self, name: str) -> str:
        return str(self.ask(name, "status")["interfaces"]["radio0"])

    def care_of(self) -> list[str]:
        return [care_of["address"] for row in self.ask("ha", "binding list") for care_of in row["care_of"]]

    def ping(self, source: str, target: str, count: int = 3, *options: str) -> bool:
        done = self.spaces[source].run(
            "ping", "-c", str(count), "-i", "0.05", "-W", "1", *options, target, check=False
        )
        return done.returncode == 0

    def kill(self, name: str) -> None:
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def terminate(self, name: str) -> int:
        daemon = self.daemons.pop(name)
        daemon.send_signal(signal.SIGTERM)
        return daemon.wait(20)

    def close(self) -> None:
        for name in tuple(self.daemons):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.terminate(name)
        subprocess.run(["umount", "-l", str(self.bpf)], check=False)


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[World]:
    made = World(tmp_path, namespace)
    yield made
    made.close()


def settled(space: Namespace) -> bool:
    """Every link has its link-local address."""
    links = [link["ifname"] for link in json.loads(space.ip("-j link show up")) if link["ifname"] != "lo"]
    local = space.ip("-6 route show table local").splitlines()
    return all(
        any(line.startswith("local fe80::") and f" dev {link} " in line for line in local) for link in links
    )


def pictures(world: World) -> dict[str, Any]:
    return {name: picture(space) for name, space in world.spaces.items()} | {
        f"links of {name}": [
            {key: link[key] for key in ("ifname", "mtu")} for link in json.loads(space.ip("-j link"))
        ]
        for name, space in world.spaces.items()
    }


def test_register_ping_crash_and_leave_no_trace(world: World) -> None:
    world.until(lambda: all(settled(space) for space in world.spaces.values()), "link-local addresses")
    before = pictures(world)
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration")
    world.until(lambda: world.ping("cn", "10.36.0.4"), "the first answer to a ping")
    assert world.ping("mn", "10.1.0.2")
    assert world.ping("cn", "fd36::4")
    assert world.ping("an", "10.36.0.4", 1)  # of its own, as 618 goes

    # The data plane forwards while the daemons of home agent and access node are dead.
    world.kill("ha")
    world.kill("an")
    assert world.ping("cn", "10.36.0.4", 5)
    world.start("ha")
    world.start("an")
    assert "10.2.0.2" in world.care_of()
    assert world.ping("cn", "10.36.0.4", 5)

    # The radio link is lost and comes back.
    world.spaces["an"].ip("link set radio0 down")
    world.until(lambda: {world.radio("an"), world.radio("mn")} == {"down"}, "the cut to be seen")
    world.spaces["an"].ip("link set radio0 up")
    world.until(lambda: world.ping("cn", "10.36.0.4", 1), "packets after the link came back")

    # A daemon that was killed leaves what its successor takes away.
    world.kill("mn")
    world.start("mn")
    world.until(lambda: world.ping("cn", "10.36.0.4", 1), "packets after the mobile node's restart")
    for name in ("mn", "an", "ha"):
        assert world.terminate(name) == 0, world.complaints()
    after = pictures(world)
    for name in before:
        for old, new in zip(before[name], after[name], strict=True):
            assert new == old, name
    assert not (world.bpf / "locum").exists()
    assert "Traceback" not in world.complaints(), world.complaints()
    for name in ("mn", "an"):
        kinds = [
            json.loads(line)["kind"] for line in (world.folder / f"{name}.jsonl").read_text().splitlines()
        ]
        assert (kinds.count("link-down"), kinds.count("link-up")) == (1, 1), name  # the link was cut once
        assert "action-failed" not in kinds
        assert {"started", "stopping"} <= set(kinds)
    assert "registered" in (world.folder / "mn.jsonl").read_text()


def test_an_interface_that_vanishes_and_comes_back(world: World) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: world.ping("cn", "10.36.0.4", 1), "the tunnel")
    world.spaces["mn"].ip("link del radio0")
    world.until(lambda: world.radio("mn") == "absent", "the loss to be seen")
    assert world.radio("an") == "absent"
    join(world.spaces["an"], "radio0", world.spaces["mn"], "radio0")
    world.spaces["an"].ip("addr add 10.3.0.1/24 dev radio0")
    world.until(lambda: world.ping("cn", "10.36.0.4", 1), "the tunnel by the new interface", 15)
    assert "Traceback" not in world.complaints(), world.complaints()


def test_mobile_node_deregisters_at_exit_and_registers_at_start(world: World) -> None:
    for name in ("ha", "an", "mn"):
        world.start(name)
    for _ in range(2):
        world.until(lambda: "10.2.0.2" in world.care_of(), "the registration")
        assert world.terminate("mn") == 0
        assert world.care_of() == [], "RFC 5944 section 3.6.1.2"
        assert world.ask("an", "binding list") == []
        world.start("mn")
    # Without an answer the end is delayed by a second, and the next start registers.
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration")
    world.kill("ha")
    began = time.monotonic()
    assert world.terminate("mn") == 0
    assert time.monotonic() - began < 10
    world.start("ha")
    world.start("mn")
    world.until(lambda: "10.2.0.2" in world.care_of(), "the registration")
    world.until(lambda: world.ping("cn", "10.36.0.4", 1), "packets")


def test_start_errors_are_one_line(world: World) -> None:
    world.start("ha")

    def run(name: str, config: str, *before: str) -> tuple[int, str]:
        done = world.spaces[name].run(
            *before, sys.executable, "-m", "locum", "node", "run", str(world.folder / config), check=False
        )
        assert done.stderr.count("\n") == 1, done.stderr
        return done.returncode, done.stderr

    code, text = run("an", "ha.toml")
    assert (code, "another node answers" in text) == (1, True)
    (world.folder / "other.toml").write_text(
        (world.folder / "ha.toml").read_text().replace('"ha"', '"other"')
    )
    code, text = run("ha", "other.toml")
    assert (code, "434" in text) == (1, True), text
    (world.folder / "bad.toml").write_text((world.folder / "ha.toml").read_text().replace("spi =", "spy ="))
    code, text = run("ha", "bad.toml")
    assert code == 4 and "home_agent.mobile #1" in text and "spi" in text
    code, text = run("ha", "other.toml", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    assert code == 5 and "cap_net_admin missing" in text, text


def test_a_start_that_fails_leaves_the_host_as_it_was(world: World) -> None:
    (world.folder / "busy.toml").write_text(
        (world.folder / "ha.toml").read_text() + '[control]\naddress = "10.2.0.1"\n[[control.association]]\n'
        'peer = "10.2.0.2"\nsender_id = "01"\nrecipient_id = "02"\nsecret_file = "key"\n'
    )
    (world.folder / "unmounted.toml").write_text(
        (world.folder / "ha.toml").read_text().replace(str(world.bpf), str(world.folder))
    )
    time.sleep(0.5)  # link-local addresses settle
    before = picture(world.spaces["ha"]), json.loads(world.spaces["ha"].ip("-j link"))
    with world.spaces["ha"].entered():
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other:
        other.bind(("10.2.0.1", 5683))
        for name, words in (
            ("busy.toml", "[control] address: 10.2.0.1 port 5683: Address already in use"),
            ("unmounted.toml", "mount -t bpf"),
        ):
            done = world.spaces["ha"].run(
                sys.executable, "-m", "locum", "node", "run", str(world.folder / name), check=False
            )
            assert done.returncode == 1 and done.stderr.count("\n") == 1 and words in done.stderr, done.stderr
    assert (picture(world.spaces["ha"]), json.loads(world.spaces["ha"].ip("-j link"))) == before
    assert not (world.bpf / "locum").exists()


class Unconnected(World):
    """The link between the agents is not there when the daemons start."""

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        pass


def test_late_interfaces_and_addresses_are_used(
    tmp_path: Path, namespace: Callable[[str], Namespace]
) -> None:
    world = Unconnected(tmp_path, namespace)
    try:
        for name in ("ha", "an", "mn"):
            world.start(name)
        complaints = (world.folder / "ha.err").read_text()
        assert f"{world.folder}/ha.toml: there is no interface eth1 yet; waiting for it" in complaints
        assert (
            f"{world.folder}/ha.toml: [home_agent] address: 10.2.0.1 is no address of this host yet"
            in complaints
        )
        World.connect_agents(world, world.spaces["ha"], world.spaces["an"])
        world.until(lambda: "10.2.0.2" in world.care_of(), "the registration", 20.0)
        world.until(lambda: world.ping("cn", "10.36.0.4"), "the first answer to a ping")
        world.spaces["ha"].ip("link del eth1")
        world.until(
            lambda: "interface eth1 is gone" in (world.folder / "ha.err").read_text(), "a word about it"
        )
        assert world.ask("ha", "status")["interfaces"]["eth1"] == "absent"
    finally:
        world.close()
