"""One device's hand-overs at a stand-in: bounded, separate, one owner per flow, cancelled completely."""

from ipaddress import IPv4Address

from locum.roles import actions as a
from locum.roles.action_values.forwarding import ClearFlow
from locum.roles.action_values.sessions import Restored, RestoreSessions
from locum.roles.mnps.quotas import MOST_HANDOVERS, MOST_PREPARED
from locum.wire.control import Cancel, Flow, Status, TakeoverPrepare, TakeoverTransfer, encode_634
from locum.wire.takes import Takes
from tests.roles.mnps.test_giving_up import FIRST, SECOND, Device, answers
from tests.roles.world import HOA, START, flow

OTHER = IPv4Address("10.50.0.77")


def named(number: int) -> bytes:
    return number.to_bytes(16, "big")


def status(actions: list[a.Action]) -> Status:
    (answer,) = answers(actions)
    return answer.status


def prepare(number: int, *flows: Flow) -> TakeoverPrepare:
    return TakeoverPrepare(named(number), (HOA,), flows)


def test_a_device_that_only_prepares_leaves_room_for_others() -> None:
    device = Device()
    for number in range(MOST_PREPARED):
        assert status(device.ask(prepare(number, flow(number)))) is Status.OK
    assert status(device.ask(prepare(99, flow(99)))) is Status.LIMIT
    assert status(device.ask(prepare(0, flow(0)))) is Status.OK, "a repeated one is no other"
    device.ask(Cancel(named(0)))
    assert status(device.ask(prepare(99, flow(99)))) is Status.OK


def test_a_device_has_a_share_of_the_hand_overs() -> None:
    device = Device()
    done: list[bytes] = []
    for number in range(MOST_HANDOVERS):
        device.ask(prepare(number))
        assert status(device.ask(TakeoverTransfer(named(number), (), others=tuple(done)))) is Status.OK
        done.append(named(number))
    assert status(device.ask(prepare(999))) is Status.LIMIT


def test_hand_over_id_of_another_device_is_refused() -> None:
    device = Device()
    device.ask(TakeoverPrepare(FIRST, (HOA,), ()))
    own = Flow(6, OTHER, 1, flow(0).peer, 2)
    asked = a.Asked(7, "634", encode_634(TakeoverPrepare(FIRST, (OTHER,), (own,))), OTHER, (OTHER,))
    assert status(device.tell(asked)) is Status.NOT_AUTHORISED
    (taken,) = device.role.handovers()
    assert taken.home_addresses == (HOA,) and not taken.flows


def test_a_flow_that_was_prepared_twice_has_one_owner() -> None:
    device = Device()
    both = (flow(0), flow(1))
    device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0),)))
    device.ask(TakeoverPrepare(SECOND, (HOA,), both))
    records = [{0: record.to_cbor(), 1: 1} for record in both]
    device.ask(TakeoverTransfer(FIRST, (records[0],), others=(SECOND,)))
    device.tell(Restored(FIRST, (0,)))
    restored = device.ask(TakeoverTransfer(SECOND, tuple(records), others=(FIRST,)))
    (action,) = (action for action in restored if isinstance(action, RestoreSessions))
    assert [session.flow for session in action.sessions] == [flow(1)]
    after = device.tell(Restored(SECOND, (1,)))
    (answer,) = answers(after)
    assert [session.status for session in answer.sessions] == [Status.REFUSED, Status.OK]
    assert not [action for action in after if isinstance(action, ClearFlow)], "the other hand-over has it"


def test_prepare_cancelled_while_waiting_is_answered() -> None:
    device = Device(registers=True)
    waiting = device.ask(TakeoverPrepare(FIRST, (HOA,), (flow(0),), switch=Takes.ALL))
    assert not answers(waiting)
    told = answers(device.ask(Cancel(FIRST)))
    assert sorted(answer.status for answer in told) == [Status.OK, Status.UNKNOWN_HANDOVER]
    assert device.role._switching.deadline() is None
    assert not device.role._switching._preparing


def test_repeated_prepare_cost_is_linear_in_new_flows() -> None:
    """As many set look-ups as flows: hashing is counted, not time."""
    device = Device()
    hashed = [0]

    class Counted(Flow):
        def __hash__(self) -> int:
            hashed[0] += 1
            return Flow.__hash__(self)

    flows = [Counted(6, HOA, 1000 + number, flow(0).peer, 80) for number in range(400)]
    known = device.role._holdings
    device.ask(prepare(1, *flows[:-1]))
    taken = known.get(named(1))
    assert taken is not None
    request = prepare(1, *flows)
    asked = a.Asked(5, "634", encode_634(request), HOA, (HOA,))
    device.role.taking_over._extend(taken, tuple(flows), request, asked, START)
    assert hashed[0] < 20 * len(flows)
