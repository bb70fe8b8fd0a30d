"""Context transfer and packets in flight (C4, C5, C7): predictive and reactive moves, and their failures."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from locum.roles import actions as a
from locum.roles.action_values.addresses import Addr, Source
from locum.roles.action_values.flows import FilterPlace, FilterRule, FilterVerdict, MembershipChanged
from locum.roles.action_values.forwarding import InstallBinding, Side, Verdict
from locum.roles.foreign_agent.contexts.context import preconfigured, security_block
from locum.roles.mobile_ipv4.signing import signed
from locum.roles.profile import Policing, Profile
from locum.roles.registrant.movement import CannotMove
from locum.security.association import Association
from locum.security.replay import ntp64
from locum.wire.control.context import (
    Acknowledgement622,
    BlockStatus,
    Context624,
    ContextBlock,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    encode_624,
    encode_request_622,
)
from locum.wire.control.context_blocks import (
    BlockKind,
    MulticastBlock,
    PagingBlock,
    PolicyBlock,
    VisitorBlock,
    encode_block,
)
from locum.wire.mobile_ip.extensions import AuthKind, Extension, Ipv6PrefixRequest, encode_extensions
from locum.wire.mobile_ip.registration import Flag, RegistrationRequest
from locum.wire.mobile_ip.vendor import TransferContext, encode_vendor
from locum.wire.traffic_selector import Ipv4Selector
from tests.roles.moving_world import MovingWorld
from tests.roles.world import AN1, AN2, AN3, HA, HOA, HOA6, MAC, STAND_IN, Host

GROUP = ip_address("233.252.0.1")
UDP_DROP = FilterRule(1, Ipv4Selector(destination_port=(9, 9), protocol=(17, 17)), FilterVerdict.DROP)
PROFILE = Profile(to_visitor=Policing((UDP_DROP,)), from_visitor=Policing((UDP_DROP,)))


class Recorder:
    """Answers of a host to a request made by the test."""

    def __init__(self, world: MovingWorld, host: Host) -> None:
        self.world, self.host, self.body = world, host, b""

    def ask(self, path: str, body: bytes, peer: Addr) -> bytes:
        event = a.Asked(10_000, path, body, peer, ())
        actions = self.host.role.happened(event, now=self.world.clock(self.host))
        answers = [action for action in actions if isinstance(action, a.Answer)]
        assert len(answers) == 1
        self.world.perform(self.host, [action for action in actions if not isinstance(action, a.Answer)])
        return answers[0].body


def at(world: MovingWorld, link: str = "radio0") -> MovingWorld:
    world.links(link)
    world.advance(3)
    return world


def both(**options: object) -> MovingWorld:
    return at(MovingWorld(**options), "both")  # type: ignore[arg-type]


def predictive(world: MovingWorld) -> None:
    """A move in good order in the middle of a stream."""
    world.at(0.5, lambda: world.move("radio1"))
    world.stream(2.0)


def reactive(world: MovingWorld, gap: float = 0.2) -> None:
    """The link breaks in the middle of a stream; the device turns up elsewhere."""
    world.at(0.5, lambda: world.links(None))
    world.at(0.5 + gap, lambda: world.links("radio1"))
    world.stream(3.0)


def in_order(world: MovingWorld) -> bool:
    return world.arrived == sorted(set(world.arrived))


# Packets --------------------------------------------------------------------------------------------------------------


def test_predictive_move_loses_no_packet_and_keeps_order() -> None:
    world = both()
    predictive(world)
    assert len(world.arrived) == world.sent_packets and not world.lost and in_order(world)
    assert "context-transferred" in world.an1.kinds() and "context-received" in world.an2.kinds()
    via = world.mn.via
    assert via is not None and via.care_of == AN2


def test_reactive_move_loses_no_packet_and_keeps_order() -> None:
    world = at(MovingWorld())
    reactive(world)
    assert len(world.arrived) == world.sent_packets and not world.lost and in_order(world)
    assert "context-received" in world.an2.kinds()


class Listening(MovingWorld):
    """Notes, after each action of an access node, whether a packet of its visitor would be let in there."""

    def __init__(self) -> None:
        self.let_in: dict[str, list[bool]] = {"an1": [], "an2": []}
        super().__init__()

    def _perform(self, host: Host, action: a.Action) -> None:
        super()._perform(host, action)
        if host.name in self.let_in:
            held = host.acceptances.values()
            self.let_in[host.name].append(any(at.home_address == HOA and at.link is not None for at in held))


def test_the_device_sends_whatever_happens_to_its_packets() -> None:
    """Packets to it wait, are released or go to its next access node; its own enter from 604 until the visit ends."""
    told, untold = Listening(), Listening()
    at(told, "both")
    predictive(told)
    at(untold)
    reactive(untold)
    for world in (told, untold):
        for name, let_in in world.let_in.items():
            first, after = let_in.index(True), len(let_in) - let_in[::-1].index(True)
            assert all(let_in[first:after]), (name, let_in)


def held_at_request(*said: Extension, behind: tuple[Extension, ...] = ()) -> set[Addr]:
    """Home addresses whose packets the new access node holds after a request that is not answered yet.

    `behind`: extensions after the mobile-home authentication.
    """
    world = at(MovingWorld())
    asked = RegistrationRequest(300, HOA, HA, AN2, ntp64(world.now), Flag.T, said)
    message = signed(asked.encode(), AuthKind.MN_HA, world.key()) + encode_extensions(behind)
    source = Source(HOA, 434, "radio1", MAC, AN2)
    actions = world.an2.role.receive(message, source, now=world.clock(world.an2))
    entries = [action.entry for action in actions if isinstance(action, InstallBinding)]
    return {entry.home_address for entry in entries if entry.verdict is Verdict.HOLD}


def test_request_heralds_only_a_signed_ipv6_prefix() -> None:
    here, prefix = encode_vendor(TransferContext(AN1)), Ipv6PrefixRequest(HOA6)
    assert held_at_request(here, prefix) == {HOA, HOA6}
    assert held_at_request(here, behind=(prefix,)) == {HOA}
    assert held_at_request(prefix, behind=(here,)) == set()


def test_without_context_transfer_packets_are_lost() -> None:
    world = at(MovingWorld(transfer=False))
    reactive(world)
    assert world.lost and "context-received" not in world.an2.kinds()


def test_silent_tunnel_ends_and_leaves_no_state() -> None:
    world = both()
    predictive(world)
    assert world.an1.bindings  # what still arrives is sent on
    world.advance(12)
    assert not world.an1.bindings and not world.an1.acceptances and not world.agent(world.an1).visitors()
    assert {key[0] for key in world.an2.acceptances} == {HA}
    assert "in-flight-ended" in world.an1.kinds() and "in-flight-ended" in world.an2.kinds()


def test_the_device_comes_back_before_the_tunnel_has_ended() -> None:
    world = both()
    world.at(0.5, lambda: world.move("radio1"))
    world.at(1.0, lambda: world.move("radio0"))
    world.stream(2.0)
    assert len(world.arrived) == world.sent_packets and in_order(world)
    assert not world.an1.bindings and world.an2.bindings
    world.advance(12)
    assert not world.an2.bindings and [
        visitor.home_address for visitor in world.agent(world.an1).visitors()
    ] == [HOA]


def test_flapping_link_delivers_held_packets() -> None:
    world = at(MovingWorld())
    world.at(0.5, lambda: world.tell(world.an1, a.LinkDown("radio0")))
    world.at(0.7, lambda: world.tell(world.an1, a.LinkUp("radio0")))
    world.stream(1.0)
    assert len(world.arrived) == world.sent_packets and in_order(world)


def test_packets_wait_for_a_lost_device_only_so_long() -> None:
    world = at(MovingWorld())
    world.at(0.1, lambda: world.links(None))
    world.stream(0.3)
    assert world.packets["an1"][HOA]
    world.advance(12)
    assert not world.packets["an1"].get(HOA) and not world.an1.bindings
    assert any("dropped" in why for _, why in world.lost)
    assert "in-flight-dropped" in world.an1.kinds()


def test_packets_wait_for_an_announced_device_only_so_long() -> None:
    world = both()
    world.at(0.1, lambda: world.move("radio1"))
    world.at(0.125, lambda: world.links(None))  # it goes, and never arrives
    world.stream(0.5)
    world.advance(20)
    assert not world.an2.bindings and not world.packets.get("an2", {}).get(HOA)


# The machine ----------------------------------------------------------------------------------------------------------


def test_peer_that_never_answers_a_request() -> None:
    """The device is served at once; the context is asked for every 2 s and given up after 15 s."""
    world = at(MovingWorld())
    world.mute.add("an1")
    reactive(world)
    assert world.arrived[-1] == world.sent_packets
    asked = [event for event in world.an2.events if event.message == "622"]
    world.advance(20)
    asked = [event for event in world.an2.events if event.message == "622"]
    assert 6 <= len(asked) <= 8
    assert world.an2.kinds().count("context-given-up") == 1
    assert [visitor.home_address for visitor in world.agent(world.an2).visitors()] == [HOA]


def test_peer_that_never_answers_a_push() -> None:
    """The device still gets an answer from its access node, and may leave."""
    world = both()
    world.mute.add("an2")
    world.move("radio1")
    world.advance(8)
    via = world.mn.via
    assert via is not None and via.care_of == AN2 and not world.an1.bindings


def test_unknown_access_node_is_refused() -> None:
    world = at(MovingWorld(agents={AN2: {"access_nodes": {}}}))
    reactive(world)
    assert world.an2.counts["context-peer-unknown"] >= 1
    assert [visitor.home_address for visitor in world.agent(world.an2).visitors()] == [HOA]


def test_unknown_mobile_node_is_refused() -> None:
    world = MovingWorld()
    before = world.an1.tables()
    body = encode_request_622(ContextRequest622(HOA, 1, onward=Onward.MOVED))
    answer = decode_624(Recorder(world, world.an1).ask("622", body, AN2))
    assert answer.status is ContextStatus.UNKNOWN_MOBILE and not answer.blocks
    assert world.an1.tables() == before


@pytest.mark.parametrize("peer", [STAND_IN, HOA, AN1])
def test_unauthorised_peer_is_refused(peer: Addr) -> None:
    world = at(MovingWorld(agents={AN1: {"access_nodes": {AN2: frozenset(), AN3: frozenset()}}}))
    before = world.an1.tables()
    recorder = Recorder(world, world.an1)
    body = encode_request_622(ContextRequest622(HOA, 1 << 50, onward=Onward.MOVED))
    assert decode_624(recorder.ask("622", body, peer)).status is ContextStatus.NOT_AUTHORISED
    pushed = encode_624(Context624(ContextStatus.OK, HOA, 1 << 50, onward=Onward.MOVED))
    refused = decode_acknowledgement_622(recorder.ask("624", pushed, peer))
    assert refused.status is ContextStatus.NOT_AUTHORISED
    assert world.an1.tables() == before


def test_peer_authorised_for_other_addresses_is_refused() -> None:
    other = ip_address("10.50.0.77")
    world = at(MovingWorld(agents={AN1: {"access_nodes": {AN2: frozenset((other,))}}}))
    body = encode_request_622(ContextRequest622(HOA, 1 << 50, onward=Onward.MOVED))
    answer = decode_624(Recorder(world, world.an1).ask("622", body, AN2))
    assert answer.status is ContextStatus.NOT_AUTHORISED


@pytest.mark.parametrize("path", ["622", "624"])
@pytest.mark.parametrize("body", [b"", b"\xa0", b"\xff\xff", bytes(300)])
def test_malformed_body_is_refused(path: str, body: bytes) -> None:
    world = at(MovingWorld())
    before = world.an1.tables()
    answer = Recorder(world, world.an1).ask(path, body, AN2)
    status = decode_624(answer).status if path == "622" else decode_acknowledgement_622(answer).status
    assert status is ContextStatus.MALFORMED and world.an1.tables() == before


VISIT = VisitorBlock(HA, 2, 300, HOA6)


def push(world: MovingWorld, *blocks: ContextBlock, host: Host | None = None) -> Acknowledgement622:
    body = Context624(ContextStatus.OK, HOA, 1 << 50, blocks, onward=Onward.MOVED)
    answer = Recorder(world, host or world.an2).ask("624", encode_624(body), AN1)
    return decode_acknowledgement_622(answer)


def test_half_a_context_is_taken_block_by_block() -> None:
    world = MovingWorld()
    good = ContextBlock(BlockKind.VISITOR, 1, encode_block(VISIT))
    broken = ContextBlock(BlockKind.POLICY, 1, b"\xa1\x00\x00")
    unknown = ContextBlock(99, 1, b"")
    missing = ContextBlock(BlockKind.PAGING, 4, None)
    answer = push(world, good, broken, unknown, missing)
    assert answer.status is ContextStatus.OK
    assert answer.statuses == {
        BlockKind.VISITOR: BlockStatus.TAKEN,
        BlockKind.POLICY: BlockStatus.MALFORMED,
        99: BlockStatus.UNSUPPORTED,
        BlockKind.PAGING: BlockStatus.ABSENT,
    }
    book = world.agent(world.an2).contexts
    assert book.content(HOA, BlockKind.VISITOR) == VISIT and book.content(HOA, BlockKind.POLICY) is None
    assert world.an2.bindings[HOA].verdict is Verdict.HOLD


def test_context_without_a_home_agent_changes_no_forwarding() -> None:
    world = MovingWorld()
    answer = push(world, ContextBlock(BlockKind.VISITOR, 1, b"\xa0"))
    assert answer.status is ContextStatus.MALFORMED
    assert not world.an2.bindings and not world.an2.acceptances


def test_too_many_rules_are_refused() -> None:
    world = MovingWorld()
    many = tuple(replace(UDP_DROP, identifier=number) for number in range(1, 70))
    policy, paging = preconfigured(Profile(to_visitor=Policing(many)))
    answer = push(
        world,
        ContextBlock(BlockKind.VISITOR, 1, encode_block(VISIT)),
        ContextBlock(BlockKind.POLICY, 1, encode_block(policy)),
        ContextBlock(BlockKind.PAGING, 1, encode_block(paging)),
    )
    assert answer.statuses[BlockKind.POLICY] is BlockStatus.MALFORMED
    assert answer.statuses[BlockKind.PAGING] is BlockStatus.TAKEN


def test_later_of_two_claims_to_a_device_wins() -> None:
    """The first one learns from the second one's push that its visitor has left; a late claim is refused."""
    world = at(MovingWorld(), "radio0")
    reactive(world)
    assert not world.agent(world.an1).visitors()
    before = world.an2.tables()
    late = encode_request_622(ContextRequest622(HOA, 1, onward=Onward.MOVED))
    answer = decode_624(Recorder(world, world.an2).ask("622", late, AN1))
    assert answer.status is ContextStatus.STALE and answer.registered > 1
    assert world.an2.tables() == before
    old = Context624(ContextStatus.OK, HOA, 1, (), onward=Onward.MOVED)
    refused = decode_acknowledgement_622(Recorder(world, world.an2).ask("624", encode_624(old), AN1))
    assert refused.status is ContextStatus.STALE
    assert [visitor.home_address for visitor in world.agent(world.an2).visitors()] == [HOA]


def test_notice_of_a_later_registration_ends_the_visit() -> None:
    world = at(MovingWorld())
    world.mute.add("an1")
    reactive(world)  # the device is at the second one, whose request for the context is not answered yet
    assert world.agent(world.an2).visitors()
    later = world.agent(world.an1).contexts.registered(HOA, 1 << 51)
    world.perform(world.an1, later)
    world.mute.clear()
    world.advance(4)
    assert "visitor-claimed" in world.an2.kinds()
    assert not world.agent(world.an2).visitors() and not world.an2.bindings


def test_earlier_access_nodes_learn_of_the_next_move() -> None:
    """From the first to the second, and on to the third before the tunnel has ended: all learn where it went."""
    world = at(MovingWorld())
    reactive(world)
    claim = encode_request_622(ContextRequest622(HOA, 1 << 51, onward=Onward.MOVED))
    Recorder(world, world.an1).ask("622", claim, AN3)
    assert world.an1.bindings[HOA].tunnels[0].destination == AN3
    world.advance(1)
    assert not world.agent(world.an2).visitors()
    assert world.an2.bindings[HOA].tunnels[0].destination == AN1


# Content of a context -------------------------------------------------------------------------------------------------


def test_policing_moves_with_the_device() -> None:
    world = both(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}})
    places = {(HOA, FilterPlace.TO_VISITOR), (HOA, FilterPlace.FROM_VISITOR)}
    assert {key for key in world.an1.forwarding.filters if key[0] == HOA} == places
    predictive(world)
    assert {key for key in world.an2.forwarding.filters if key[0] == HOA} == places
    assert world.an2.forwarding.filters[HOA, FilterPlace.TO_VISITOR].rules == (UDP_DROP,)
    world.advance(12)
    assert not world.an1.forwarding.filters


def test_groups_go_on_at_the_new_access_node() -> None:
    world = both()
    world.tell(world.an1, MembershipChanged("radio0", HOA, GROUP, True))
    assert world.groups["an1"][GROUP] == ("radio0",)
    world.at(0.2, lambda: world.move("radio1"))
    world.advance(0.4)
    assert world.groups["an2"][GROUP] == ("radio1",) and world.groups["an1"][GROUP] == ()
    world.advance(15)
    assert world.groups["an2"][GROUP] == ("radio1",)
    world.tell(world.an1, MembershipChanged("radio0", HOA, GROUP, False))  # its old link forgets it
    assert world.groups["an2"][GROUP] == ("radio1",)
    world.tell(world.an2, MembershipChanged("radio1", HOA, GROUP, False))
    assert world.groups["an2"][GROUP] == ()


@pytest.mark.parametrize(
    "shared",
    [Association(500, b"f" * 16), Association(500, b"short", sent_spi=501, short_key=True)],
    ids=["plain", "two SPIs and a short key"],
)
def test_new_access_node_uses_the_devices_association(shared: Association) -> None:
    world = both(mobiles={AN1: {HOA: shared}, AN2: {}})
    assert security_block(shared) == world.agent(world.an1).contexts.content(HOA, BlockKind.SECURITY)
    world.move("radio1")
    world.advance(1.5)
    # the device does not sign for the second one, which knows by now that it should
    assert world.agent(world.an2).contexts.association(HOA) == shared
    assert world.an2.counts["refused-67"] >= 1


def test_incremental_context_omits_unchanged_blocks() -> None:
    world = both(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}})
    bodies: list[Context624] = []
    ask = world._ask

    def watched(host: Host, action: a.Ask) -> None:
        if action.path == "624":
            bodies.append(decode_624(action.body))
        ask(host, action)

    world._ask = watched  # type: ignore[method-assign]
    predictive(world)
    world.advance(2)
    world.move("radio0")
    world.advance(2)
    there, back = bodies
    whole = {block.kind for block in there.blocks if block.data is not None}
    changed = {block.kind for block in back.blocks if block.data is not None}
    assert BlockKind.POLICY in whole and changed <= {BlockKind.VISITOR}


def test_peer_without_a_stored_context_gets_all_blocks() -> None:
    world = both(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}})
    predictive(world)
    world.advance(2)
    book = world.agent(world.an2).contexts
    world.perform(world.an1, world.agent(world.an1).contexts.drop(HOA))
    world.perform(world.an2, book.note(HOA, MulticastBlock((GROUP,))))
    empty = preconfigured(Profile())
    world.agent(world.an1).contexts._contexts.clear()
    world.move("radio0")
    world.advance(2)
    held = world.agent(world.an1).contexts.content(HOA, BlockKind.POLICY)
    assert held == preconfigured(PROFILE)[0] != empty[0]


def test_stand_in_access_node_returns_the_context_with_changes() -> None:
    """C7: pushed to the third access node, dropped at the first, changed there, and fetched by the second."""
    world = at(MovingWorld(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}}))
    sent = world.agent(world.an1).contexts.get(HOA)
    assert sent is not None
    blocks, _ = world.agent(world.an1).contexts.give(sent, sent.blocks, {})
    stored = Context624(ContextStatus.OK, HOA, 0, blocks)
    answer = Recorder(world, world.an3).ask("624", encode_624(stored), AN1)
    assert decode_acknowledgement_622(answer).status is ContextStatus.OK
    assert (
        HOA,
        FilterPlace.TO_VISITOR,
    ) in world.an3.forwarding.filters  # what reaches the stand-in is policed as well
    world.links(None)
    world.advance(310)  # the first access node forgets its visitor
    assert not world.agent(world.an1).visitors() and not world.an1.forwarding.filters
    classifier = PagingBlock(preconfigured(Profile(to_visitor=Policing((UDP_DROP,))))[0].to_visitor)  # type: ignore[union-attr]
    world.perform(world.an3, world.agent(world.an3).contexts.note(HOA, classifier))
    request = ContextRequest622(HOA, 1 << 51, onward=Onward.MOVED)
    given = decode_624(Recorder(world, world.an3).ask("622", encode_request_622(request), AN2))
    assert given.status is ContextStatus.OK
    book = world.agent(world.an2).contexts
    statuses, actions = book.take(HOA, 1 << 51, given.blocks)
    world.perform(world.an2, actions)
    assert statuses[BlockKind.POLICY] is BlockStatus.TAKEN
    assert book.content(HOA, BlockKind.PAGING) == classifier
    assert isinstance(book.content(HOA, BlockKind.POLICY), PolicyBlock)
    assert world.an3.bindings[HOA].tunnels[0].destination == AN2  # 620''
    assert world.an3.events[-1].kind != "failed"
    notices = [event for event in world.an3.events if event.message == "618"]
    assert notices and notices[-1].detail["responsible"] is False
    world.advance(10)
    assert not world.an3.bindings and (HA, HOA, Side.TO_HOME_ADDRESS) in world.an3.acceptances


def test_contexts_survive_a_restart() -> None:
    world = both(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}})
    predictive(world)
    world.advance(2)
    world.kill(world.an2)
    world.an2.forwarding.filters.clear()
    world.start(world.an2)
    assert world.agent(world.an2).contexts.content(HOA, BlockKind.POLICY) == preconfigured(PROFILE)[0]
    assert (HOA, FilterPlace.TO_VISITOR) in world.an2.forwarding.filters


def test_changed_configuration_replaces_a_stored_context() -> None:
    world = at(MovingWorld(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}}))
    book = world.agent(world.an1).contexts
    world.perform(world.an1, book.note(HOA, MulticastBlock((GROUP,))))
    world.kill(world.an1)
    world.an1.rows["context", str(HOA)].value["configured"]["policy"][0] = 9  # type: ignore[index, call-overload]
    world.start(world.an1)
    assert world.agent(world.an1).contexts.groups(HOA) == ()


def test_context_rows_name_peer_state_and_blocks() -> None:
    world = both(agents={AN1: {"contexts": {HOA: preconfigured(PROFILE)}}})
    predictive(world)
    old = world.agent(world.an1).context_rows(now=world.now)
    new = world.agent(world.an2).context_rows(now=world.now)
    assert old[0]["forwarded_to"] == str(AN2) and new[0]["forwarded_from"] == str(AN1)
    assert new[0]["state"] == "visitor" and "policy" in new[0]["blocks"]  # type: ignore[operator]


# The device -----------------------------------------------------------------------------------------------------------


def test_impossible_moves_are_refused() -> None:
    world = at(MovingWorld())
    for to in ("radio0", str(AN1), "radio1", "nowhere"):
        with pytest.raises(CannotMove):
            world.move(to)
    silent = at(MovingWorld(transfer=False))
    with pytest.raises(CannotMove):
        silent.move(str(AN2))


def test_move_to_an_access_node_that_advertises_later() -> None:
    world = at(MovingWorld())
    world.move(str(AN2))
    world.advance(0.5)
    assert world.an2.bindings[HOA].verdict is Verdict.HOLD
    world.links("radio1")
    world.advance(3)
    via = world.mn.via
    assert via is not None and via.care_of == AN2
    assert not world.an2.bindings


def test_move_to_an_access_node_that_never_advertises() -> None:
    world = at(MovingWorld())
    world.move(str(AN2))
    world.advance(40)
    via = world.mn.via
    assert via is not None and via.care_of == AN1
    assert world.device.mobile.movement.last
