"""Hold, suspend, guard and release, on the host of the home address, with real TCP."""

import hashlib
import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.layout.maps import HeldReason
from locum.dataplane.turn import MOST_PACKETS
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.forwarding import (
    BindingEntry,
    ClearFlow,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    ReleaseHeld,
    RemoveBinding,
    SetFlow,
    Stage,
    Verdict,
)
from locum.wire.control import Flow
from tests.dataplane.chain import CN4, CN6, HOME4, HOME6, Chain, chain

Host = tuple[Chain, DataPlane]
OTHER4, END4 = ip_address("10.9.0.6"), ip_address("10.9.0.7")
SO_RCVBUFFORCE = 33


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The mobile node's data plane; the path from cn is plain forwarding."""
    with chain(tmp_path_factory.mktemp("bpf")) as net:
        for space in (net.ha, net.fa):
            space.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        net.ha.run("ip route add 10.9.0.0/24 via 10.2.0.2")
        net.ha.run("ip -6 route add fd09::/64 via fd02::2")
        with net.mn.inside():
            plane = DataPlane.open("mn", ["mn0"], bpf_root=net.root, forwarding=False)
        try:
            yield net, plane
        finally:
            with net.mn.inside():
                plane.remove()


def connected(net: Chain, home: object, correspondent: object) -> tuple[socket.socket, socket.socket, Flow]:
    """(socket of the mobile node, socket of the correspondent, flow)."""
    family = socket.AF_INET6 if ":" in str(home) else socket.AF_INET
    with net.cn.inside():
        listener = socket.create_server((str(correspondent), 0), family=family)
    with net.mn.inside():
        mine = socket.create_connection(listener.getsockname()[:2], source_address=(str(home), 0))
    theirs, _ = listener.accept()
    listener.close()
    local, peer = mine.getsockname(), theirs.getsockname()
    return mine, theirs, Flow(6, home, local[1], correspondent, peer[1])  # type: ignore[arg-type]


def set_flow(net: Chain, plane: DataPlane, flow: Flow, verdict: FlowVerdict) -> None:
    with net.mn.inside():
        plane.apply([SetFlow(FlowEntry(flow, verdict))])


@pytest.mark.parametrize("version", [4, 6])
def test_held_and_released_in_order(host: Host, version: int) -> None:
    """Bulk TCP, GSO and unfinished checksums included, held in the middle: not a byte is lost or altered."""
    net, plane = host
    home, correspondent = (HOME4, CN4) if version == 4 else (HOME6, CN6)
    plane.held.read()  # as new come those that an earlier case released while its flow was let go
    mine, theirs, flow = connected(net, home, correspondent)
    data = os.urandom(64 << 20)

    def send() -> None:
        theirs.sendall(data)
        theirs.close()

    sender = threading.Thread(target=send)
    sender.start()
    digest, received, rounds, largest, sizes = hashlib.sha256(), 0, 0, 0, 0
    while chunk := mine.recv(1 << 20):
        digest.update(chunk)
        received += len(chunk)
        if rounds < 4 and received > rounds * (12 << 20):
            rounds += 1
            set_flow(net, plane, flow, FlowVerdict.HOLD)
            time.sleep(0.1)
            fresh, until = plane.held.read(), time.monotonic() + 10
            while not fresh and time.monotonic() < until:  # the sender has not had its turn yet
                time.sleep(0.01)
                fresh = plane.held.read()
            assert fresh and all(packet.flow == flow for packet in fresh)
            largest = max(largest, *(len(packet.data) for packet in fresh))
            sizes = max(sizes, *(packet.gso_size for packet in fresh))
            set_flow(net, plane, flow, FlowVerdict.DELIVER)
            while plane.held.is_due:
                plane.held.serve()
            assert plane.release(flow) == 0  # nothing waits any more
    sender.join()
    mine.close()
    assert received == len(data) and digest.digest() == hashlib.sha256(data).digest()
    assert largest > 2 * 1500 and sizes > 1000  # GSO packets were held whole, not a segment each
    assert plane.counters()["hold-overflow"] == 0
    with net.mn.inside():
        plane.apply([ClearFlow(flow)])
    assert plane.snapshot().flows == {}


def test_suspended_flow_is_silent(host: Host) -> None:
    net, plane = host
    mine, theirs, flow = connected(net, HOME4, CN4)
    set_flow(net, plane, flow, FlowVerdict.SUSPEND)
    before = plane.counters()["suspended"]
    mine.sendall(b"from the device")
    theirs.sendall(b"to the device")
    theirs.settimeout(0.3)
    with pytest.raises(TimeoutError):
        theirs.recv(100)
    assert plane.counters()["suspended"] > before
    assert plane.held.read()
    set_flow(net, plane, flow, FlowVerdict.DELIVER)
    mine.settimeout(3)
    theirs.settimeout(3)
    assert mine.recv(100) == b"to the device"
    assert theirs.recv(100) == b"from the device"
    with net.mn.inside():
        plane.apply([ClearFlow(flow)])


def test_guarded_home_address(host: Host) -> None:
    """Only flows of the table and ICMP reach the host; a stranger gets no answer, not even a reset."""
    net, plane = host
    mine, theirs, flow = connected(net, HOME4, CN4)
    with net.mn.inside():
        plane.apply(
            [
                SetFlow(FlowEntry(flow, FlowVerdict.DELIVER)),
                InstallBinding(BindingEntry(HOME4, Verdict.GUARD)),
            ]
        )
    before = plane.counters()["no-session"]
    theirs.sendall(b"known")
    assert mine.recv(100) == b"known"
    with net.cn.inside():
        stranger = socket.socket()
    stranger.settimeout(0.3)
    with pytest.raises(TimeoutError):
        stranger.connect((str(HOME4), 9))
    assert plane.counters()["no-session"] > before
    assert "1 received" in net.cn.run(f"ping -c 1 -W 1 {HOME4}")
    with net.mn.inside():
        plane.apply([RemoveBinding(HOME4, Stage.LOCAL), ClearFlow(flow)])
    assert not plane.snapshot().local_ends
    with net.cn.inside():
        other = socket.socket()
    with pytest.raises(ConnectionRefusedError):
        other.connect((str(HOME4), 9))


def test_binding_hold_is_released(host: Host) -> None:
    """HOLD of a whole home address, then the packets are delivered where the binding now says."""
    net, plane = host
    with net.mn.inside():
        plane.apply([InstallBinding(BindingEntry(HOME6, Verdict.HOLD))])
        ear = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        ear.bind((str(HOME6), 7000))
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    for number in range(50):
        mouth.sendto(bytes([number]) * 700, (str(HOME6), 7000))
    time.sleep(0.05)
    fresh = [packet for packet in plane.held.read() if packet.flow.protocol == 17]
    assert [packet.data[48] for packet in fresh] == list(range(50))
    assert {packet.reason for packet in fresh} == {HeldReason.BINDING}
    with net.mn.inside():
        plane.apply([ReleaseHeld(HOME6)])
        assert plane.release(HOME6) == 0  # still held: the verdict stands
        plane.apply([RemoveBinding(HOME6), ReleaseHeld(HOME6)])
    ear.settimeout(1)
    assert [ear.recv(1000)[0] for _ in range(50)] == list(range(50))


class Flooded:
    """An access node's data plane, where packets of home addresses are held, and a correspondent that sends to them."""

    def __init__(self, net: Chain, plane: DataPlane, *homes: Addr) -> None:
        self.net, self.plane = net, plane
        with net.cn.inside():
            self.mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        plane.apply([InstallBinding(BindingEntry(home, Verdict.HOLD)) for home in homes])
        plane.apply([InstallBinding(BindingEntry(END4, Verdict.DROP))])
        self.before = plane.counters()

    def send(self, home: Addr, packets: int, size: int = 1400) -> None:
        """Return when the programs have seen them all."""
        dropped = self.plane.counters()["binding-drop"]
        for number in range(packets):
            self.mouth.sendto(number.to_bytes(4, "big").ljust(size, b"x"), (str(home), 7000))
        self.mouth.sendto(b"end", (str(END4), 7000))
        until(lambda: self.plane.counters()["binding-drop"] > dropped)

    def grown(self, name: str) -> int:
        return self.plane.counters()[name] - self.before[name]

    def kept(self) -> dict[Addr, int]:
        """Packets in the ring and in the queue."""
        homes: Counter[Addr] = Counter()
        while select.select([self.plane], [], [], 0)[0]:
            homes.update(packet.home_address for packet in self.plane.held.read())
        return homes


@contextmanager
def flooded(net: Chain, limits: Limits, *homes: Addr) -> Iterator[Flooded]:
    with net.fa.inside():
        plane = DataPlane.open("small", ["fa0"], bpf_root=net.root, limits=limits)
        try:
            yield Flooded(net, plane, *homes)
        finally:
            plane.remove()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    assert condition()


def test_flooded_address_leaves_room_in_the_ring(host: Host) -> None:
    """The daemon does not read: one address has its share, and all packets of another are kept."""
    net, _ = host
    with flooded(net, Limits(ring_bytes=1 << 16), HOME4, OTHER4) as access:
        for _ in range(3):  # reading gives the share back
            before = access.grown("hold-share")
            access.send(HOME4, 100)
            access.send(OTHER4, 5)
            lost = access.grown("hold-share") - before
            assert 50 < lost < 90
            assert access.kept() == {HOME4: 100 - lost, OTHER4: 5}
        assert access.grown("hold-overflow") == 0


def test_full_ring_is_counted(host: Host) -> None:
    """Many flooded addresses leave too little for one more packet: it is dropped and counted."""
    net, _ = host
    homes = [ip_address(f"10.9.0.{number}") for number in range(100, 160)]
    with flooded(net, Limits(ring_bytes=1 << 16), *homes) as access:
        for home in homes:
            access.send(home, 2)
        lost = access.grown("hold-overflow") + access.grown("hold-share")
        assert access.grown("hold-overflow") > 0
        assert sum(access.kept().values()) == 2 * len(homes) - lost > 30


def test_flooded_address_leaves_room_in_the_queue(host: Host) -> None:
    """The daemon reads: one address has its quota there, and all packets of another are kept."""
    net, _ = host
    limits = Limits(hold_packets=200, hold_packets_each=30)
    with flooded(net, limits, HOME4, OTHER4) as access:
        access.send(HOME4, 300)
        access.send(OTHER4, 20)
        assert access.kept() == {HOME4: 30, OTHER4: 20}
        assert access.plane.held.waiting()["packets"] == 50
        assert (access.grown("hold-queue-share"), access.grown("hold-queue-overflow")) == (270, 0)


def test_turn_of_the_event_loop_is_bounded(host: Host) -> None:
    """Reading and sending take turns, and all packets arrive in order: those too that were in the ring at their release."""
    net, plane = host
    number = 3 * MOST_PACKETS
    with net.mn.inside():
        ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        ear.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        ear.bind((str(HOME4), 7000))
        ear.settimeout(20)
        plane.apply([InstallBinding(BindingEntry(HOME4, Verdict.HOLD))])
    with net.cn.inside():
        mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for place in range(number):
        mouth.sendto(place.to_bytes(4, "big"), (str(HOME4), 7000))
    until(lambda: plane.held.waiting()["packets"] > 0 or bool(plane.held.read()))
    assert 0 < plane.held.waiting()["packets"] <= MOST_PACKETS
    with net.mn.inside():
        plane.apply([RemoveBinding(HOME4), ReleaseHeld(HOME4)])
        while plane.held.is_due or select.select([plane], [], [], 0)[0]:
            before = plane.held.waiting()["packets"]
            plane.held.serve()
            assert before - MOST_PACKETS <= plane.held.waiting()["packets"] <= before + MOST_PACKETS
    assert [int.from_bytes(ear.recv(10), "big") for _ in range(number)] == list(range(number))


def test_old_held_packets_are_dropped(host: Host) -> None:
    net, _ = host
    with flooded(net, Limits(hold_age=1), HOME4) as access:
        access.send(HOME4, 3)
        assert access.kept() == {HOME4: 3}
        expires = access.plane.held.expires
        assert expires is not None and 0 < expires - time.monotonic_ns() <= 1_000_000_000
        access.plane.held.serve()
        time.sleep(1.05)
        access.plane.held.serve()
        assert access.grown("hold-aged") == 3
        assert access.plane.held.waiting() == {"packets": 0, "bytes": 0, "home_addresses": 0}


def test_packets_of_a_forgotten_address_are_dropped(host: Host) -> None:
    """Those too that were still in the ring because a turn did not reach them."""
    net, _ = host
    with flooded(net, Limits(), HOME4, OTHER4) as access:
        access.send(HOME4, 2 * MOST_PACKETS, 10)
        access.plane.apply([RemoveBinding(HOME4), DropHeld(HOME4)])
        access.send(OTHER4, 3)
        assert access.kept() == {OTHER4: 3}
        assert access.grown("hold-forgotten") == 2 * MOST_PACKETS
        assert access.plane.held.waiting()["packets"] == 3
