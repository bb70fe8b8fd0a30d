"""The hold queue and the bounds of its turns, on a virtual clock."""

from ipaddress import ip_address

from locum.dataplane.hold import DuePacket, HeldPacket, HoldQueue, Room
from locum.dataplane.turn import LEAST_PACKETS, MOST_BYTES, MOST_PACKETS, NANOSECONDS, Turn
from locum.wire.control import Flow

HOME, OTHER, THIRD = (ip_address(f"10.9.0.{number}") for number in (5, 6, 7))
PEER = ip_address("10.1.0.2")
SECOND = 1_000_000_000
AMPLE = Room(1_000_000, 1 << 40)


def flow(home: object = HOME, port: int = 1) -> Flow:
    return Flow(17, home, port, PEER, 2)  # type: ignore[arg-type]


def packet(of: Flow, data: bytes = b"x", time: int = 0) -> HeldPacket:
    return HeldPacket(of, data, time=time)


def queue(
    packets: int = 1_000_000, size: int = 1 << 40, *, quota: Room = AMPLE, age: int = 60 * SECOND
) -> HoldQueue:
    return HoldQueue(Room(packets, size), quota, age)


def due(of: HoldQueue) -> list[bytes]:
    """All that goes out, in order."""
    sent = []
    while (following := of.next_due()) is not None:
        sent.append(following.packet.data)
    return sent


def test_queue_is_bounded() -> None:
    held = queue(3, 250)
    homes = (HOME, OTHER, THIRD, HOME)
    assert [held.add(packet(flow(home), bytes(60))) for home in homes] == [True, True, True, False]
    assert (len(held), held.bytes, held.overflow, held.beyond_share) == (3, 180, 1, 0)
    assert len(held.take(flow())) == 1
    assert not held.add(packet(flow(THIRD, 2), bytes(131)))  # more than the free bytes
    assert (len(held), held.bytes, held.overflow) == (2, 120, 2)
    assert held.drop(OTHER) + held.drop(THIRD) == 2
    assert (len(held), held.bytes, held.home_addresses) == (0, 0, 0)


def test_flooded_home_address_has_its_quota() -> None:
    """In packets and in bytes; what the flood loses is counted, and others lose nothing."""
    for quota, size, kept in ((Room(10, 1000), 1, 10), (Room(1000, 105), 10, 10)):
        held = queue(100, 10_000, quota=quota)
        assert sum(held.add(packet(flow(), bytes(size))) for _ in range(500)) == kept
        assert (held.beyond_share, held.overflow) == (500 - kept, 0)
        assert all(held.add(packet(flow(OTHER))) for _ in range(10))
        assert len(held.take(flow())) == kept
        assert held.add(packet(flow()))


def test_several_flooded_home_addresses_leave_room() -> None:
    """None has more than what is free: a quiet one finds room beside any number of flooded ones."""
    for room in (queue(1000), queue(size=1000)):
        flooded = [ip_address(f"10.8.0.{number}") for number in range(1, 60)]
        for _ in range(300):
            for home in flooded:
                room.add(packet(flow(home)))
        assert room.overflow == 0 and room.beyond_share > 0
        assert all(room.add(packet(flow(OTHER))) for _ in range(5))


def test_packets_go_out_in_their_common_order() -> None:
    flows = [flow(port=port) for port in (1, 2, 3)]
    held = queue()
    for number, of in enumerate((*flows, *flows)):
        held.add(packet(of, bytes([number])))
    assert [it.data[0] for it in held.take(flows[1])] == [1, 4]
    assert held.release_where(HOME, lambda of: of in flows) == 4
    assert len(held) == 4
    assert due(held) == [bytes([number]) for number in (0, 2, 3, 5)]
    assert (held.take(flows[0]), len(held), held.is_due) == ([], 0, False)


def test_home_addresses_go_out_in_turns() -> None:
    """One with many packets does not keep others waiting."""
    held = queue()
    for number in range(5):
        held.add(packet(flow(), b"a%d" % number))
    for number in range(2):
        held.add(packet(flow(OTHER), b"b%d" % number))
    held.release(flow())
    held.release(flow(OTHER))
    assert due(held) == [b"a0", b"b0", b"a1", b"b1", b"a2", b"a3", b"a4"]


def test_due_packet_can_wait_again() -> None:
    """A flow that is held again before its packets went out: they stay before later ones."""
    held = queue()
    for number in range(3):
        held.add(packet(flow(), bytes([number])))
    held.release(flow())
    again: list[DuePacket] = []
    while (following := held.next_due()) is not None:
        again.append(following)
    held.add(packet(flow(), b"\3"))
    for one in again:
        held.keep_again(one)
    assert len(held) == 4
    assert [it.data[0] for it in held.take(flow())] == [0, 1, 2, 3]
    assert (len(held), held.bytes) == (0, 0)


def test_old_packets_are_dropped() -> None:
    held = queue(age=60 * SECOND)
    assert (held.expires, len(held)) == (None, 0)
    for second, of in enumerate((flow(), flow(OTHER), flow(), flow(OTHER, 2))):
        held.add(packet(of, bytes([second]), time=second * SECOND))
    assert held.expires == 60 * SECOND
    assert held.expire(60 * SECOND - 1, 100) == 0
    assert held.expire(61 * SECOND, 1) == 1  # a bounded number at once
    assert held.expire(61 * SECOND, 100) == 1
    assert (held.aged, len(held), held.bytes, held.expires) == (2, 2, 2, 62 * SECOND)
    assert [it.data for it in held.take(flow())] == [b"\2"]
    assert held.release(flow(OTHER, 2)) == 1
    assert held.expire(1000 * SECOND, 100) == 0  # a released one goes out
    assert due(held) == [b"\3"]
    assert held.home_addresses == 0


def test_dropped_home_address_has_nothing_due() -> None:
    held = queue()
    for of in (flow(), flow(port=2), flow(OTHER)):
        held.add(packet(of))
    held.release(flow())
    assert held.drop(HOME) == 2
    assert (len(held), held.is_due, due(held)) == (1, False, [])
    assert held.drop(HOME) == 0


def test_late_packet_is_due_at_once() -> None:
    held = queue()
    assert held.add(packet(flow(), b"late"), due=True)
    assert held.take(flow()) == []  # it does not wait
    assert due(held) == [b"late"]


class CountedFlow(Flow):
    """Counts how often any of them is looked at."""

    looks = 0

    def __hash__(self) -> int:
        CountedFlow.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        CountedFlow.looks += 1
        return super().__eq__(other)


def test_releasing_one_flow_costs_the_same_among_many() -> None:
    """Flows that are released one after another, as those of a device that wakes: not each looks at all others."""

    def looks(number: int) -> int:
        held = queue()
        flows = [CountedFlow(6, HOME, 1 + port, PEER, 2) for port in range(number)]
        for of in flows:
            held.add(packet(of))
        before = CountedFlow.looks
        assert all(held.release(of) == 1 for of in flows) and len(due(held)) == number
        return CountedFlow.looks - before

    assert looks(1_000) <= 2 * 100 * looks(10)


class Clock:
    """Nanoseconds that the test moves."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def test_turn_is_bounded_in_packets_bytes_and_time() -> None:
    clock = Clock()
    turn = Turn(clock)

    def work(size: int, nanoseconds: int) -> int:
        """Packets of a turn."""
        turn.begin()
        done = 1
        clock.now += nanoseconds
        while turn.spend(size):
            clock.now += nanoseconds
            done += 1
        return done

    assert work(100, 0) == MOST_PACKETS
    assert work(1 << 16, 0) == MOST_BYTES >> 16
    assert work(100, NANOSECONDS // 1000) == 1000
    assert (
        work(100, 10 * NANOSECONDS) == LEAST_PACKETS
    )  # the processor was with others: some work all the same


def test_turn_that_began_long_ago_has_ended() -> None:
    """Callers without an event loop have turns too; several calls within one share it."""
    clock = Clock()
    turn = Turn(clock)
    while turn.spend(1):
        pass
    clock.now = NANOSECONDS
    turn.join()
    assert [turn.left] == [False]
    clock.now = 2 * NANOSECONDS + 1
    turn.join()
    assert turn.left
