"""Inputs for measuring one packet: tables of many bindings, a frame, a route. Only benchmarks and tests use it.

It makes a network namespace of its own for the route of the outer packet, and changes nothing outside.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

from pyroute2 import IPRoute

from locum.dataplane.kernel.entries import open_entries
from locum.dataplane.kernel.loading import Object
from locum.dataplane.layout import maps
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import BindingEntry, Verdict
from locum.wire.ip.checksum import ones_sum

CLONE_NEWNET = 0x40000000
HOME_AGENT, CARE_OF = IPv4Address("10.2.0.1"), IPv4Address("10.2.0.2")
FIRST_HOME = int(IPv4Address("11.0.0.0"))
CHUNK = 65536
TC_ACT_REDIRECT = 7


@contextmanager
def private_network() -> Iterator[None]:
    """This thread in a new network namespace with a route to the care-of address."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "a new network namespace")
    try:
        with IPRoute() as route:
            route.link("set", index=1, state="up")
            route.link("add", ifname="m0", kind="veth", peer={"ifname": "m1"})
            for name in ("m0", "m1"):
                route.link("set", index=route.link_lookup(ifname=name)[0], state="up")
            index = route.link_lookup(ifname="m0")[0]
            route.addr("add", index=index, address=str(HOME_AGENT), prefixlen=24)
            route.neigh("add", dst=str(CARE_OF), lladdr="02:00:00:00:00:02", ifindex=index)
        Path("/proc/sys/net/ipv4/conf/lo/forwarding").write_text("1")
        yield
    finally:
        libc.setns(before, 0)
        os.close(before)


def fill(loaded: Object, number: int) -> None:
    """Put `number` bindings into the tables; `loaded` has `locum_change` among its programs."""
    tunnel = Tunnel(HOME_AGENT, CARE_OF)
    value = maps.binding(BindingEntry(HOME_AGENT, Verdict.ENCAPSULATE, (tunnel,)))
    bindings = open_entries(loaded)["bindings"]
    for start in range(0, number, CHUNK):
        keys = [maps.address(IPv4Address(FIRST_HOME + i)) for i in range(start, min(start + CHUNK, number))]
        bindings.put_many([(key, value) for key in keys])


def udp_frame(destination: IPv4Address, payload: int = 64) -> bytes:
    """An Ethernet frame with a UDP packet of 10.1.0.2 to `destination`."""
    length = 28 + payload
    head = bytes((0x45, 0)) + length.to_bytes(2, "big") + b"\x00\x00\x40\x00\x40\x11\x00\x00"
    head += bytes((10, 1, 0, 2)) + destination.packed
    head = head[:10] + (ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return (
        bytes(12)
        + b"\x08\x00"
        + head
        + b"\x13\x88\x13\x88"
        + (8 + payload).to_bytes(2, "big")
        + bytes(2 + payload)
    )
