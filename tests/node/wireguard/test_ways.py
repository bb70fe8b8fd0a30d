"""Real daemons with WireGuard between them: NATs, another network, kills, an interface that others take away."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.node.conftest import Namespace
from tests.node.wireguard.walking import DEVICE, SERVER, Walk


@pytest.fixture
def walk(tmp_path: Path, namespace: Callable[[str], Namespace]) -> Iterator[Walk]:
    made = Walk(tmp_path, namespace)
    yield made
    made.close()


def test_device_walks_between_two_nats(walk: Walk) -> None:
    """Nothing is lost while both links are up; a lost link costs little; the server learns each end point."""
    walk.start("sv", "dv")
    walk.back(1)
    assert walk.ping("dv", SERVER) and walk.ping("sv", DEVICE)
    assert "203.0.113.2:" in walk.wg("sv", "endpoints")
    walk.until(
        lambda: "203.0.113.2:" in str(walk.ask("sv", "status")["wireguard"]["peers"]), "the daemon to know it"
    )
    assert walk.lost(1.5, lambda: walk.enter("cafe")) == 0
    assert walk.back(2)["renewals"] == 0
    assert "203.0.113.6:" in walk.wg("sv", "endpoints")
    moves = walk.until(lambda: walk.events("sv", "wireguard-peer-moved"), "the event of the server", 10)
    assert moves[0]["detail"]["peer"] == DEVICE
    assert walk.lost(1.5, lambda: walk.leave("cafe")) < 40
    assert walk.back(3)["renewals"] == 0
    assert all(peer["answers"] for peer in walk.ask("dv", "status")["wireguard"]["peers"])
    counters = walk.ask("dv", "counters")["wireguard"]
    assert counters["calls"] >= 2 and counters["echo-answers"] >= 3 and counters["handshakes"] == 1
    assert 'name="received-bytes"' in walk.ask("dv", "counters", format="prometheus")


def test_packets_flow_on_without_daemons(walk: Walk) -> None:
    """A killed daemon takes nothing along, the next one adopts; SIGTERM leaves nothing."""
    walk.start("sv", "dv")
    walk.back(1)

    def killed() -> None:
        walk.kill("sv")
        walk.kill("dv")

    assert walk.lost(1.0, killed) == 0
    before = walk.wg("dv", "latest-handshakes")
    assert walk.lost(6.0, lambda: walk.start("sv", "dv")) == 0
    assert walk.wg("dv", "latest-handshakes") == before
    assert walk.events("dv", "wireguard-ready")[-1]["detail"]["adopted"] is True
    assert walk.terminate("dv") == 0 and walk.terminate("sv") == 0
    for name in ("dv", "sv"):
        links = [link["ifname"] for link in json.loads(walk.spaces[name].ip("-j link"))]
        assert walk.interfaces[name] not in links
        assert not Path(f"/run/wireguard/{walk.interfaces[name]}.sock").exists()
        assert "fwmark" not in walk.spaces[name].ip("rule")


def test_server_that_lost_all_is_found_again(walk: Walk) -> None:
    """The interface is taken away at the server, and made again; a server that starts anew calls the device."""
    walk.start("sv", "dv")
    walk.back(1)
    walk.until(
        lambda: walk.ask("sv", "status")["wireguard"]["peers"][0]["endpoint"], "the device's end point", 10
    )
    walk.spaces["sv"].ip(f"link del {walk.interfaces['sv']}")
    walk.until(lambda: walk.events("sv", "wireguard-remade"), "the interface")
    began = time.monotonic()
    assert walk.ping("sv", DEVICE) and walk.ping("dv", SERVER)
    assert time.monotonic() - began < 3.0
    assert walk.terminate("sv") == 0
    walk.start("sv")
    began = time.monotonic()
    assert walk.ping("sv", DEVICE)
    assert time.monotonic() - began < 3.0


def test_outer_packets_keep_out_of_the_tunnel(walk: Walk) -> None:
    """A default route into the tunnel takes the device's packets, and not WireGuard's own."""
    walk.start("sv", "dv")
    walk.back(1)
    walk.spaces["dv"].ip("rule add pref 1000 lookup 777")
    walk.spaces["dv"].ip(f"route add default dev {walk.interfaces['dv']} table 777")
    walk.enter("cafe")
    assert walk.back(2)["renewals"] == 0 and walk.ping("dv", SERVER)
    rules = walk.spaces["dv"].ip("rule")
    assert "fwmark 0x4c57 lookup main" in rules
    assert "0x4c57" in walk.wg("dv", "fwmark")


def test_mtu_follows_the_path(walk: Walk) -> None:
    walk.start("sv", "dv")
    walk.back(1)
    assert walk.ask("dv", "status")["wireguard"]["mtu"] == 1440
    assert walk.ask("sv", "status")["wireguard"]["mtu"] == 1420
    walk.spaces["dv"].ip("link set wlan0 mtu 1400")
    walk.until(lambda: walk.ask("dv", "status")["wireguard"]["mtu"] == 1340, "the smaller MTU", 5)
