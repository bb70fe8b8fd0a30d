"""A daemon that finds pinned maps of another size or layout replaces them, and no packet is lost."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane import plane as plane_module
from locum.dataplane.kernel.libbpf import Map, pinned
from locum.dataplane.state import ForwardingState, state_of
from locum.roles.action_values.flows import Encapsulation
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, Verdict
from tests.dataplane.chain import HOME4, Chain, chain, foreign_actions, home_actions, tunnels

SO_RCVBUFFORCE = 33  # Linux; the module has no name for it
LIMITS = Limits(bindings=2048, flows=2048)
HOME_STATE = home_actions(tunnels(Encapsulation.IPIP, 4)[0])


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Chain]:
    with chain(tmp_path / "bpf") as net:
        fa = net.open(net.fa, "fa", ["fa0", "fa1"])
        with net.fa.inside():
            fa.apply(foreign_actions(tunnels(Encapsulation.IPIP, 4)[1]))
        yield net
        with net.fa.inside():
            fa.remove()


@contextmanager
def opened(
    net: Chain, limits: Limits = LIMITS, *, tcx: bool = True, last: bool = False
) -> Iterator[DataPlane]:
    """The home agent's data plane; afterwards it goes on without a daemon, or (`last`) ends."""
    with net.ha.inside():
        plane = DataPlane.open("ha", ["ha0", "ha1"], bpf_root=net.root, limits=limits, tcx=tcx)
        try:
            yield plane
        finally:
            plane.remove() if last else plane.close()


@contextmanager
def packets(net: Chain) -> Iterator[None]:
    """Packets to the home address all the while; none is lost, doubled or out of order."""
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.bind((str(HOME4), 7000))
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        ear.settimeout(2)
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    enough, sent = threading.Event(), [0]

    def send() -> None:
        while not enough.is_set():
            mouth.sendto(sent[0].to_bytes(4, "big"), (str(HOME4), 7000))
            sent[0] += 1
            time.sleep(0.0005)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()
    assert sent[0] > 10
    assert [int.from_bytes(ear.recv(10), "big") for _ in range(sent[0])] == list(range(sent[0]))


def pin_of(net: Chain, name: str) -> Map:
    return Map(name, pinned(net.root / "locum" / "ha" / "maps" / name))


def pins(net: Chain) -> set[str]:
    return {path.name for path in (net.root / "locum" / "ha" / "maps").iterdir()}


@pytest.mark.parametrize("tcx", [True, False])
def test_other_limits_lose_neither_entries_nor_packets(network: Chain, tcx: bool) -> None:
    net = network
    limits = Limits(bindings=4096, flows=1024, ring_bytes=1 << 20)
    with opened(net, tcx=tcx) as first:
        first.reconcile(HOME_STATE)
        names = pins(net)
        with packets(net):
            time.sleep(0.05)
            first.close()
            with opened(net, limits, tcx=tcx) as plane:
                assert pins(net) == names
                assert (pin_of(net, "bindings").max_entries, pin_of(net, "flows").max_entries) == (4096, 1024)
                assert plane.snapshot() == state_of(HOME_STATE)
                before = plane.binding_counters(HOME4).packets
                assert before, "counters come along"
                assert not plane.reconcile(HOME_STATE)
                time.sleep(0.05)
                assert plane.binding_counters(HOME4).packets > before, "the programs use the new maps"
    with opened(net, limits, tcx=tcx, last=True) as plane:
        assert plane.state == state_of(HOME_STATE)


def other_layout(path: Path) -> Path:
    """An object like ours in which a member of a binding has another name."""
    data = plane_module.OBJECT.read_bytes()
    assert b"\0tunnels\0" in data
    path.write_bytes(data.replace(b"\0tunnels\0", b"\0slennut\0"))
    return path


@pytest.mark.parametrize("tcx", [True, False])
def test_other_layout_is_filled_before_programs_use_it(
    network: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tcx: bool
) -> None:
    net = network
    with monkeypatch.context() as patched:
        patched.setattr(plane_module, "OBJECT", other_layout(tmp_path / "locum.bpf.o"))
        with opened(net, tcx=tcx) as first:
            first.reconcile(HOME_STATE)
            names = pins(net)
    old, addresses = pin_of(net, "binding_values").layout(), pin_of(net, "own_addresses")
    bits = addresses.get(bytes(4))
    with packets(net), opened(net, tcx=tcx) as plane:
        assert plane.snapshot() == ForwardingState(), "entries of another layout are not read"
        assert addresses.get(bytes(4)) == bits != bytes(8), (
            "the earlier programs still know the host's addresses"
        )
        time.sleep(0.05)
        assert len(plane.reconcile(HOME_STATE).actions) == len(HOME_STATE)
        assert pins(net) == names
        time.sleep(0.05)
        assert plane.binding_counters(HOME4).packets
    assert old != pin_of(net, "binding_values").layout()
    assert pin_of(net, "own_addresses").get(bytes(4)) == bits
    with opened(net, tcx=tcx, last=True) as plane:
        assert plane.state == state_of(HOME_STATE)


def test_death_before_the_exchange_leaves_all_as_it_was(
    network: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network
    with opened(net) as first:
        first.reconcile(HOME_STATE)
        names = pins(net)
    with packets(net):
        with monkeypatch.context() as patched:
            patched.setattr(plane_module, "OBJECT", other_layout(tmp_path / "locum.bpf.o"))
            with opened(net) as dying:
                dying.apply(HOME_STATE[:2])
        assert pins(net) == names
        (net.root / "locum" / "ha" / "maps" / "flows").rename(
            net.root / "locum" / "ha" / "maps" / "flows+new"
        )
        with opened(net) as plane:
            assert not plane.reconcile(HOME_STATE)
            assert pins(net) == names
    with opened(net, last=True):
        pass


def test_table_keeps_its_size_while_its_entries_would_not_fit(network: Chain) -> None:
    net = network
    many = [InstallBinding(BindingEntry(IPv4Address(0x0B000000 + n), Verdict.DROP)) for n in range(1500)]
    smaller = replace(LIMITS, bindings=1024)
    with opened(net) as first:
        first.reconcile(many)
    with opened(net, smaller) as plane:
        assert pin_of(net, "bindings").max_entries == 2048
        assert len(plane.snapshot().bindings) == 1500
        plane.reconcile(many[:10])
    with opened(net, smaller, last=True) as plane:
        assert pin_of(net, "bindings").max_entries == 1024
        assert plane.state == state_of(many[:10])


def test_packets_that_wait_in_a_ring_of_another_size_come_out(network: Chain) -> None:
    net = network
    held = [InstallBinding(BindingEntry(HOME4, Verdict.HOLD))]
    with opened(net) as first:
        first.reconcile(held)
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for number in range(3):
            mouth.sendto(b"%d" % number, (str(HOME4), 7000))
    time.sleep(0.1)
    with opened(net, replace(LIMITS, ring_bytes=1 << 20), last=True) as plane:
        mouth.sendto(b"3", (str(HOME4), 7000))
        time.sleep(0.1)
        assert [packet.data[-1:] for packet in plane.held.read()] == [b"0", b"1", b"2", b"3"]
