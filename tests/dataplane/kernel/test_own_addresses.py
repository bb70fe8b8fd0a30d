"""Bits of this host's addresses spare the programs look-ups: they follow the entries, also from one daemon to the next."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane
from locum.dataplane.layout import maps
from locum.roles.action_values.forwarding import LocalEndpoint, RemoveLocalEndpoint
from tests.dataplane.chain import Chain, chain

ENDS = [ip_address(f"203.0.113.{n}") for n in range(20)] + [ip_address(f"2001:db8::{n}") for n in range(20)]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Chain]:
    with chain(tmp_path / "bpf") as net:
        yield net


def test_bits_follow_the_addresses(network: Chain) -> None:
    net = network

    def assert_bits(plane: DataPlane) -> None:
        ends = [maps.address_of(key) for key, _ in plane._entries["endpoints"].items()]
        value = plane._object.maps["own_addresses"].get(bytes(4))
        assert value == maps.OWN_ADDRESSES.pack(maps.own_bits(ends))

    with net.ha.inside():
        with DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root) as plane:
            assert plane._tables.own
            assert_bits(plane)
            few = plane._object.maps["own_addresses"].get(bytes(4))
            for end in ENDS:
                plane.apply([LocalEndpoint(end)])
                assert_bits(plane)
        plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root)
        try:
            assert_bits(plane)
            plane.apply([RemoveLocalEndpoint(end) for end in ENDS])
            assert_bits(plane)
            assert plane._object.maps["own_addresses"].get(bytes(4)) == few
        finally:
            plane.remove()
