"""An access node's data plane for a visitor."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from locum.roles.action_values.flows import (
    FilterRule,
    FilterVerdict,
    InstallTranslation,
    RemoveTranslation,
    Translation,
    Tunnel,
)
from locum.roles.action_values.forwarding import NeighbourEntry, OutboundEntry
from locum.roles.foreign_agent.configuration import StaticVisitor
from locum.roles.foreign_agent.contexts.book import ContextBook
from locum.roles.foreign_agent.contexts.context import preconfigured
from locum.roles.foreign_agent.visitor import Visitor, static_forwarding, visitor_forwarding
from locum.roles.foreign_agent.visitor_list import VisitorList
from locum.roles.forwarding import Forwarding
from locum.roles.profile import Policing, Profile
from locum.wire.mobile_ip.registration import Flag
from locum.wire.traffic_selector import Ipv4Selector

HOA, HOA6 = IPv4Address("10.50.0.9"), IPv6Address("2001:db8:50::9")
HA, AN, STAND_IN = (IPv4Address(name) for name in ("10.5.0.1", "10.1.0.1", "10.1.0.130"))
MAC = b"\2" * 6
DEVICE = Visitor(HOA, HA, "wire", MAC, 300, 1_790_000_300.0, 0, home_address_v6=HOA6)


def ways(visitor: Visitor) -> tuple[dict[object, object], set[object]]:
    """The next hop for each home address, and the addresses with a known link-layer address."""
    found = visitor_forwarding(visitor, AN)
    return ways_of(found), {neighbour.address for neighbour in found.neighbours.values()}


def test_a_device_is_reached_by_its_home_addresses() -> None:
    assert ways(DEVICE) == ({HOA: HOA, HOA6: HOA6}, {HOA, HOA6})


def test_stand_in_next_hop_is_an_address_or_a_link_layer_address() -> None:
    stand_in = replace(DEVICE, next_hop=STAND_IN)
    assert ways(stand_in) == ({HOA: STAND_IN, HOA6: HOA6}, {HOA6})
    assert ways(replace(stand_in, home_address_v6=None)) == ({HOA: STAND_IN}, set())
    assert ways(replace(stand_in, link_layer=None))[1] == set()


def test_packets_of_a_stand_in_on_the_same_host_have_no_link() -> None:
    """Its packets take the reverse tunnel like those of one on the link (R10, R17)."""
    elsewhere = StaticVisitor(HOA, HA, "wire", STAND_IN)
    for static, link in ((elsewhere, "wire"), (replace(elsewhere, here=True), None)):
        found = static_forwarding(static, AN)
        assert list(found.outbound.values()) == [OutboundEntry(HOA, link, Tunnel(AN, HA))]
        assert [acceptance.next_hop for acceptance in found.acceptances.values()] == [STAND_IN]


def test_local_stand_in_gets_packets_of_a_short_lived_visitor() -> None:
    """The default care-of address is the visitor's own: the home agent cannot say whose a packet is."""
    static = StaticVisitor(HOA, HA, "wire", STAND_IN, here=True)

    calling = FilterRule(1, Ipv4Selector(protocol=(17, 17)), FilterVerdict.DROP)
    book = ContextBook({HOA: preconfigured(Profile(paging=Policing((calling,))))})

    def hops(lifetime: int, bound: StaticVisitor) -> list[object]:
        known = VisitorList(AN, [bound], (), 10, short_lifetime=10)
        known.adjust(book.police)
        known.start([])
        actions = known.admit(replace(DEVICE, home_address_v6=None, lifetime=lifetime, flags=Flag.T))
        held = known._installed[HOA]
        assert {link for _, link in held.outbound} == ({"wire", None} if bound.here else {"wire"})
        assert known.stood_in_for(HOA) is bool(held.filters) is (bound.here and lifetime <= 10)
        assert NeighbourEntry("wire", HOA, MAC) in actions  # the stand-in's own messages reach it
        return [acceptance.next_hop for acceptance in held.acceptances.values()]

    assert hops(300, static) == [HOA]
    assert hops(10, static) == [STAND_IN]
    assert hops(10, replace(static, here=False)) == [HOA]


# A stand-in that is bound in advance, too -----------------------------------------------------------------------------

STAND_IN6 = IPv6Address("2001:db8:1::130")
BOUND = StaticVisitor(HOA, HA, "wire", STAND_IN, HOA6, STAND_IN6, translate=True)
REGISTERED = replace(DEVICE, next_hop=STAND_IN, flags=int(Flag.T))


def translated(static: StaticVisitor, *visitors: Visitor) -> set[Translation]:
    """Translations after the access node has started and these have registered."""
    listed = VisitorList(AN, (static,), (HA,), 8)
    actions = listed.start(())
    for visitor in visitors:
        actions += listed.admit(visitor)
    found: dict[object, Translation] = {}
    for action in actions:
        match action:
            case InstallTranslation(entry):
                found[entry.home_address, entry.tunnel] = entry
            case RemoveTranslation(home_address, tunnel):
                del found[home_address, tunnel]
    return set(found.values())


def test_translation_outlives_the_stand_ins_registration() -> None:
    """R12 with Fig. 7: packets for the stand-in are translated before and after its registration."""
    both = {Translation(HOA, STAND_IN), Translation(HOA6, STAND_IN6)}
    assert translated(BOUND) == translated(BOUND, REGISTERED) == both
    assert ways_of(visitor_forwarding(REGISTERED, AN, BOUND)) == {HOA: STAND_IN, HOA6: STAND_IN6}
    listed = VisitorList(AN, (BOUND,), (HA,), 8)
    listed.start(())
    listed.admit(REGISTERED)
    assert not any(isinstance(action, RemoveTranslation) for action in listed.dismiss(HOA))


def test_only_the_selected_stand_in_gets_translated_packets() -> None:
    """Another stand-in, the device itself, and one whose access node has no translation."""
    other = IPv4Address("10.1.0.131")
    assert translated(BOUND, replace(REGISTERED, next_hop=other)) == set()
    assert translated(BOUND, DEVICE) == set()
    assert translated(replace(BOUND, translate=False), REGISTERED) == set()
    only4 = replace(BOUND, next_hop_v6=None)
    assert translated(only4, REGISTERED) == {Translation(HOA, STAND_IN)}
    assert ways_of(visitor_forwarding(REGISTERED, AN, only4)) == {HOA: STAND_IN, HOA6: HOA6}


def ways_of(found: Forwarding) -> dict[object, object]:
    return {acceptance.home_address: acceptance.next_hop for acceptance in found.acceptances.values()}
