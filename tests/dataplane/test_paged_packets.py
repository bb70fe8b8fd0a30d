"""Packets that wait for a device: reports, room and times without pages, without a kernel."""

from ipaddress import IPv4Address

from locum.dataplane.hold import HeldPacket, HoldQueue, Room
from locum.dataplane.layout.maps import HeldReason
from locum.dataplane.paged_packets import MOST_QUIET, NANOSECONDS, PagedPackets
from locum.wire.control import Flow

HOME, PEER = IPv4Address("10.9.0.5"), IPv4Address("10.1.0.2")


class Clock:
    def __init__(self) -> None:
        self.now = 100 * NANOSECONDS

    def __call__(self) -> int:
        return self.now


def paged(clock: Clock, packets: int = 64) -> PagedPackets:
    def queue() -> HoldQueue:
        return HoldQueue(Room(packets, 1 << 20), Room(8, 1 << 16), 60 * NANOSECONDS)

    return PagedPackets(queue(), queue(), clock)


def packet(clock: Clock, home_address: IPv4Address = HOME, rule: int = 7) -> HeldPacket:
    flow = Flow(6, home_address, 22, PEER, 4000)
    return HeldPacket(flow, bytes(60), HeldReason.PAGE, time=clock.now, rule=rule)


def test_each_page_is_reported_once() -> None:
    clock = Clock()
    found = paged(clock)
    for rule in (7, 8):
        found.take(packet(clock, rule=rule))
    assert [event.rule for event in found.first] == [7]
    assert found.release(HOME) == 2
    found.take(packet(clock, rule=8))
    assert [event.rule for event in found.first] == [7, 8]


def test_a_device_is_paged_although_the_queue_is_full() -> None:
    clock = Clock()
    found = paged(clock, packets=2)
    for number in range(5):
        assert not found.floods(HOME + number, 60)
        found.take(packet(clock, HOME + number))
    assert len(found.first) == 5 and len(found.queue) == 2
    assert found.floods(HOME + 4, 60)


def test_quiet_times_end_and_are_bounded() -> None:
    clock = Clock()
    found = paged(clock)
    found.take(packet(clock))
    found.drop(HOME, 5.0)
    clock.now += 4 * NANOSECONDS
    found.take(packet(clock))
    assert (found.dropped, len(found.first)) == (2, 1)
    clock.now += NANOSECONDS
    found.take(packet(clock))
    assert (found.dropped, len(found.first)) == (2, 2)
    for number in range(MOST_QUIET + 1):
        found.drop(HOME + number, 5.0)
    assert len(found._quiet) == MOST_QUIET


def test_packets_held_in_silence_page_nobody() -> None:
    """They take no room from those that page, outlive a page in vain, and go out behind them."""
    clock = Clock()
    found = paged(clock)
    for number in range(9):
        found.take(packet(clock, rule=number), pages=False)
    assert found.first == [] and len(found.silent) == 8, "their share"
    assert found.floods(HOME, 60, pages=False) and not found.floods(HOME, 60)
    found.take(packet(clock, rule=70))
    assert [event.rule for event in found.first] == [70]
    found.drop(HOME, 5.0)
    assert (found.dropped, len(found.queue), len(found.silent)) == (1, 0, 8)
    found.take(packet(clock, rule=71), pages=False)
    assert len(found.silent) == 8 and found.dropped == 1, "the quiet time is for those that page"
    clock.now += 6 * NANOSECONDS
    found.take(packet(clock, rule=72))
    assert found.release(HOME) == 9 and found.is_due
    rules = []
    while (due := found.next_due()) is not None:
        assert due.ahead
        rules.append(due.packet.rule)
    assert rules == [72, *range(8)] and not found.is_due
