"""Hold, suspend, guard and release, on the host of the home address, with real TCP."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from locum.dataplane import DataPlane, HeldPacket, Limits
from locum.dataplane.hold import HoldQueue
from locum.dataplane.layout.maps import HeldReason
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
            fresh, until = plane.read_held(), time.monotonic() + 10
            while not fresh and time.monotonic() < until:  # the sender has not had its turn yet
                time.sleep(0.01)
                fresh = plane.read_held()
            assert fresh and all(packet.flow == flow for packet in fresh)
            largest = max(largest, *(len(packet.data) for packet in fresh))
            sizes = max(sizes, *(packet.gso_size for packet in fresh))
            set_flow(net, plane, flow, FlowVerdict.DELIVER)
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
    assert plane.read_held()
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
    fresh = [packet for packet in plane.read_held() if packet.flow.protocol == 17]
    assert [packet.data[48] for packet in fresh] == list(range(50))
    assert {packet.reason for packet in fresh} == {HeldReason.BINDING}
    with net.mn.inside():
        plane.apply([ReleaseHeld(HOME6)])
        assert plane.release(HOME6) == 0  # still held: the verdict stands
        plane.apply([RemoveBinding(HOME6), ReleaseHeld(HOME6)])
    ear.settimeout(1)
    assert [ear.recv(1000)[0] for _ in range(50)] == list(range(50))


def test_queue_is_bounded() -> None:
    flow = Flow(17, HOME4, 1, CN4, 2)
    queue = HoldQueue(3, 250)
    assert [queue.add(HeldPacket(flow, bytes(100))) for _ in range(3)] == [True, True, False]
    assert (len(queue), queue.bytes, queue.overflow) == (2, 200, 1)
    assert len(queue.take(flow)) == 2
    assert (len(queue), queue.bytes) == (0, 0)


def test_queue_keeps_the_common_order() -> None:
    flows = [Flow(17, HOME4, port, CN4, 2) for port in (1, 2, 3)]
    queue = HoldQueue(100, 100)
    for number, flow in enumerate((*flows, *flows)):
        queue.add(HeldPacket(flow, bytes([number])))
    assert len(queue) == 6
    assert [packet.data[0] for packet in queue.take(flows[1])] == [1, 4]
    assert [packet.data[0] for packet in queue.take_where(lambda flow: flow in flows)] == [0, 2, 3, 5]
    assert (queue.take(flows[0]), len(queue)) == ([], 0)


class CountedFlow(Flow):
    """Counts how often any of them is looked at."""

    looks = 0

    def __hash__(self) -> int:
        CountedFlow.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedFlow.looks += 1
        return super().__eq__(other)


def test_taking_one_flow_costs_the_same_among_many() -> None:
    """Flows that are released one after another, as those of a device that wakes: not each looks at all others."""

    def looks(number: int) -> int:
        queue = HoldQueue(number, number)
        flows = [CountedFlow(6, HOME4, 1 + port, CN4, 2) for port in range(number)]
        for flow in flows:
            queue.add(HeldPacket(flow, b"x"))
        before = CountedFlow.looks
        assert all(len(queue.take(flow)) == 1 for flow in flows) and len(queue) == 0
        return CountedFlow.looks - before

    assert looks(1_000) <= 2 * 100 * looks(10)


def test_full_ring_is_counted(host: Host, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The daemon does not read: packets beyond the ring's size are dropped and counted."""
    net, _ = host
    with net.fa.inside():
        small = DataPlane.open("small", ["fa0"], bpf_root=net.root, limits=Limits(ring_bytes=1 << 16))
        try:
            small.apply([InstallBinding(BindingEntry(HOME4, Verdict.HOLD))])
            with net.cn.inside():
                mouth = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            for _ in range(100):
                mouth.sendto(bytes(1400), (str(HOME4), 7000))
            time.sleep(0.05)
            lost = small.counters()["hold-overflow"]
            assert 0 < lost < 100
            assert len(small.read_held()) == 100 - lost
        finally:
            small.remove()
