"""Forged ICMP errors about control messages: no route becomes narrow, and no exchange ends."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from locum.node.coap.endpoint import AskFailed, CoapEndPoint
from locum.node.config.settings import ControlAssociation, ControlSettings
from locum.node.store import Store
from tests.dataplane.namespaces import Namespace

PORT, OTHER = 5683, 5700
MTU = 1300  # at least 1280, or a router's word counts for less in IPv6
PEER_HARDWARE = "02:00:00:00:00:77"
OWN = {4: "198.51.100.1", 6: "2001:db8::1"}
PEER = {4: "198.51.100.2", 6: "2001:db8::2"}


@pytest.fixture
def space() -> Iterator[Namespace]:
    made = Namespace("coapmtu")
    try:
        made.run("ip link set lo up")
        made.run("ip link add far type veth peer name near")
        made.run("ip link set far up")
        made.run("ip link set near up")
        made.run(f"ip addr add {OWN[4]}/24 dev near")
        made.run(f"ip addr add {OWN[6]}/64 dev near nodad")
        for peer in PEER.values():
            made.run(f"ip neigh replace {peer} lladdr {PEER_HARDWARE} dev near nud permanent")
        yield made
    finally:
        made.remove()


def sent(space: Namespace) -> bool:
    """True if a datagram has left this namespace, of either family."""
    four = space.run("cat /proc/net/snmp").split("\nUdp:")[2].split()[3]
    six = space.run("cat /proc/net/snmp6").partition("Udp6OutDatagrams")[2].split()[0]
    return int(four) + int(six) > 0


def forge(space: Namespace, version: int, port: int) -> None:
    """An error as if a router had met a datagram from this port to the peer's."""
    with space.inside():
        if version == 4:
            quoted = bytes(IP(src=OWN[4], dst=PEER[4]) / UDP(sport=port, dport=PORT) / bytes(8))
            error = bytes(ICMP(type=3, code=4, nexthopmtu=MTU) / quoted)
            protocol = socket.IPPROTO_ICMP
        else:
            quoted = bytes(IPv6(src=OWN[6], dst=PEER[6]) / UDP(sport=port, dport=PORT) / bytes(8))
            error, protocol = bytes(ICMPv6PacketTooBig(mtu=MTU) / quoted), socket.IPPROTO_ICMPV6
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with socket.socket(family, socket.SOCK_RAW, protocol) as forger:
            forger.bind((OWN[version], 0))
            forger.sendto(error, (OWN[version], 0))


async def learnt(space: Namespace, version: int, seconds: float) -> bool:
    """True if the route to the peer becomes narrow within so many seconds."""
    end = time.monotonic() + seconds
    while f"mtu {MTU}" not in space.run(f"ip -{version} route get {PEER[version]}"):
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.05)
    return True


@pytest.mark.parametrize("version", [4, 6])
async def test_forged_path_mtu_is_not_believed(space: Namespace, tmp_path: Path, version: int) -> None:
    """A socket that believes it is the control: the error is one that the kernel takes."""
    counts: Counter[str] = Counter()

    async def nothing(path: str, body: bytes, sender: ControlAssociation) -> bytes:
        return b""

    peer = ip_address(PEER[version])
    association = ControlAssociation(peer, b"a", b"b", bytes(range(32)), b"", (ip_address("10.9.0.1"),))
    settings = ControlSettings(ip_address(OWN[version]), PORT, (association,))
    store = Store(tmp_path / "coap.db")
    end = CoapEndPoint(settings, store, nothing, lambda reason: counts.update([reason]))
    with space.inside():
        await end.open()
    try:
        asked = asyncio.create_task(end.ask(peer, "634", b"x", 3.0))
        async with asyncio.timeout(30):
            while not sent(space):
                await asyncio.sleep(0.01)
        forge(space, version, PORT)
        assert not await learnt(space, version, 0.4)
        with pytest.raises(AskFailed, match="no answer"):  # the exchange went on until its time was over
            await asked
        assert counts["control-path-mtu"] == (1 if version == 4 else 0)  # the kernel drops those of IPv6
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with space.inside(), socket.socket(family, socket.SOCK_DGRAM) as believing:
            believing.bind((OWN[version], OTHER))
            forge(space, version, OTHER)
            assert await learnt(space, version, 20)
    finally:
        await end.close()
        await store.close()
