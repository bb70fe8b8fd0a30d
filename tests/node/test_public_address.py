"""A real home agent behind a 1:1 NAT: registration, packets both ways and a crash, in tunnels of each kind.

cn 10.1.0.2 -- 10.1.0.1 ha 10.2.0.1 -- 10.2.0.254 nat 198.51.100.2 = ha -- 198.51.100.9 an ~radio~ mn (10.36.0.4)
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.node.conftest import Namespace, join
from tests.node.test_real_nodes import AN, HA, MN, World

PUBLIC, ACCESS = "198.51.100.2", "198.51.100.9"
KEY = 'spi = 2000\nkey_file = "key"\n'
AT_ACCESS = f'[[foreign_agent.home_agent]]\naddress = "{PUBLIC}"\n{KEY}'
AT_HOME = f'[[home_agent.foreign_agent]]\naddress = "{ACCESS}"\n{KEY}'
RULES = f"""
table ip one-to-one {{
  chain in {{ type nat hook prerouting priority dstnat; ip daddr {PUBLIC} dnat to 10.2.0.1; }}
  chain out {{ type nat hook postrouting priority srcnat; ip saddr 10.2.0.1 snat to {PUBLIC}; }}
}}
"""


class Translated(World):
    """Between the agents stands a translator, to whose outer link the access node is attached."""

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        nat = self.spaces["nat"] = self.make("nat")
        join(ha, "eth1", nat, "eth0")
        join(nat, "eth1", an, "eth0")
        ha.ip("addr add 10.2.0.1/24 dev eth1")
        ha.ip("route add 198.51.100.0/24 via 10.2.0.254")
        nat.ip("addr add 10.2.0.254/24 dev eth0")
        nat.ip("addr add 198.51.100.1/24 dev eth1")
        nat.ip(f"addr add {PUBLIC}/32 dev eth1")
        nat.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        subprocess.run(["nsenter", f"--net={nat.path}", "nft", "-f", "-"], input=RULES, text=True, check=True)
        an.ip(f"addr add {ACCESS}/24 dev eth0")
        an.ip("route add default via 198.51.100.1")

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        self.make = make
        super().__init__(folder, make)


@pytest.fixture
def world(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Translated]:
    made = Translated(tmp_path, namespace)
    yield made
    made.close()


def configure(world: Translated, encapsulation: str, *, keyed: bool = False) -> None:
    home = HA.replace('address = "10.2.0.1"', f'address = "10.2.0.1"\npublic_address = "{PUBLIC}"')
    device = MN.replace('"10.2.0.1"', f'"{PUBLIC}"\nencapsulation = "{encapsulation}"')
    access = AN.replace('"10.2.0.2"', f'"{ACCESS}"')
    if keyed:
        home, access = home + AT_HOME, access + AT_ACCESS
    texts = {"ha": home, "an": access, "mn": device}
    for name, text in texts.items():
        (world.folder / f"{name}.toml").write_text(text.format(common=world.common(name)))


@pytest.mark.parametrize("encapsulation", ["ipip", "gre", "minimal"])
def test_home_agent_behind_a_one_to_one_nat(world: Translated, encapsulation: str) -> None:
    configure(world, encapsulation)
    for name in ("ha", "an", "mn"):
        world.start(name)
    world.until(lambda: ACCESS in world.care_of(), "the registration", 40.0)
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer through both tunnels", 40.0)
    assert world.ping("mn", "10.1.0.2")
    (tunnel,) = [
        row
        for row in world.ask("ha", "tunnel list")
        if row["direction"] == "to-home-address" and row["home_address"] == "10.36.0.4"
    ]
    assert (tunnel["source"], tunnel["destination"]) == ("10.2.0.1", ACCESS)
    assert tunnel["encapsulation"] == encapsulation
    assert PUBLIC in world.spaces["ha"].ip("addr show dev lo")
    world.kill("ha")
    world.start("ha")
    world.until(lambda: world.ping("cn", "10.36.0.4"), "an answer after the restart", 40.0)
    assert world.terminate("ha") == 0
    assert PUBLIC not in world.spaces["ha"].ip("addr show dev lo")


def told(world: Translated, name: str, event: str, least: int = 1) -> bool:
    """True if this node has told of so many events of this kind."""
    return (world.folder / f"{name}.jsonl").read_text().count(f'"{event}"') >= least


def acknowledged(world: Translated, name: str) -> bool:
    """True if this node revokes and the other one answers; a registration under way, as a repeated one, prevents it."""
    world.until(lambda: ACCESS in world.care_of() and world.ask("an", "visitors"), "a visit", 40.0)
    revoked = world.ask(name, "binding revoke", home_address="10.36.0.4")
    assert revoked["care_of"] == [ACCESS], name
    end = time.monotonic() + 15
    while not told(world, name, "revocation-acknowledged") and time.monotonic() < end:
        time.sleep(0.05)
    return told(world, name, "revocation-acknowledged")


def test_agents_revoke_through_a_one_to_one_nat(world: Translated) -> None:
    configure(world, "ipip", keyed=True)
    for name in ("ha", "an", "mn"):
        world.start(name)
    for number, name in enumerate(("ha", "an"), 1):
        world.until(partial(acknowledged, world, name), "an answer")
        # The other agent knew the registration that was meant
        world.until(partial(told, world, "an", "visitor-revoked"), "the end of the visit", 40.0)
        world.until(partial(told, world, "ha", "revoked", number), "the end of the binding", 40.0)
