"""Every table at its limit: a change that does not fit changes nothing, and takes nothing from other devices."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address, ip_address

import pytest

from locum.dataplane import DataPlane, DataPlaneError, Limits
from locum.dataplane.kernel.entries import settle
from locum.dataplane.kernel.libbpf import Map
from locum.dataplane.layout import entries as layout
from locum.dataplane.state import ForwardingState, difference
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.flows import (
    Candidate,
    Filter,
    FilterPlace,
    FilterRule,
    FilterVerdict,
    ForwardGroup,
    InstallFilter,
    InstallTranslation,
    OfferService,
    Rule,
    RuleVerdict,
    Translation,
    Tunnel,
    WatchPort,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    FlowEntry,
    FlowVerdict,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    OutboundEntry,
    RemoveBinding,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.forwarding_order import home_address_of
from locum.roles.actions import Action
from locum.wire.control import Flow
from locum.wire.traffic_selector import Ipv4Selector
from tests.dataplane.namespaces import Namespace, bpffs, join

HASH = 1  # BPF_MAP_TYPE_HASH; the other types make room by themselves or have a place for each index
HERE, THERE, ELSEWHERE = (ip_address(text) for text in ("10.2.0.200", "10.3.0.1", "10.3.0.2"))
X, NEW, STAYS = (IPv4Address(f"10.9.0.{number}") for number in (1, 2, 3))
ROOM = 64
# Written when a node starts, by ICMP errors, by programs, or for proxies.
NOT_OF_ACTIONS = {"access_links", "found_sysctls", "paths", "first_fragments", "logged"}


def tunnel(destination: Addr = THERE) -> Tunnel:
    return Tunnel(HERE, destination)


def rules(number: int, destination: Addr = THERE) -> tuple[Rule, ...]:
    candidates = (Candidate(tunnel(destination)),)
    return tuple(
        Rule(n, Ipv4Selector(destination_port=(n, n)), RuleVerdict.FORWARD, candidates)
        for n in range(1, number + 1)
    )


def bound(*tunnels: Tunnel, number: int = 0, at: Stage = Stage.HOME) -> Action:
    return InstallBinding(BindingEntry(NEW, Verdict.ENCAPSULATE, tunnels, rules=rules(number), at=at))


def filtered(number: int) -> Action:
    allowed = tuple(
        FilterRule(n, Ipv4Selector(destination_port=(n, n)), FilterVerdict.ALLOW)
        for n in range(1, number + 1)
    )
    return InstallFilter(Filter(NEW, FilterPlace.TO_VISITOR, allowed, FilterVerdict.DROP))


ACCEPTED = AcceptTunnel(TunnelAcceptance(ELSEWHERE, NEW, Side.FROM_HOME_ADDRESS, source_port=4000))
OUTBOUND = InstallOutbound(OutboundEntry(NEW, None, tunnel()))
TRANSLATED = InstallTranslation(Translation(NEW, IPv4Address("10.2.0.9"), None))
GROUP = ForwardGroup(ip_address("239.1.2.3"), "out0", ("lan0",))
NEEDS: dict[str, Action] = {
    "endpoints": LocalEndpoint(ip_address("10.2.0.77")),
    "bindings": bound(tunnel()),
    "binding_values": bound(tunnel(ip_address("10.3.0.3"))),
    "binding_more": bound(tunnel(), tunnel(ELSEWHERE)),
    "more_values": bound(tunnel(), tunnel(ELSEWHERE)),
    "visited": bound(tunnel(), at=Stage.VISITED),
    "rules": bound(tunnel(), number=2),
    "rules_few": bound(tunnel(), number=2),
    "rules_many": bound(tunnel(), number=20),
    "rule_count": bound(tunnel(), number=20),
    "filters": filtered(2),
    "filters_few": filtered(2),
    "filters_many": filtered(20),
    "acceptances": ACCEPTED,
    "acceptance_values": ACCEPTED,
    "tunnel_sources": ACCEPTED,
    "senders": AcceptTunnel(TunnelAcceptance(ELSEWHERE, NEW, Side.TO_HOME_ADDRESS, "lan0", NEW)),
    "outbound": OUTBOUND,
    "tunnel_values": OUTBOUND,
    "flows": SetFlow(FlowEntry(Flow(6, NEW, 1, THERE, 2), FlowVerdict.HOLD)),
    "translations": TRANSLATED,
    "translation_values": TRANSLATED,
    "watched": WatchPort(NEW, 80),
    "services": OfferService(6, 80),
    "groups": GROUP,
    "group_values": GROUP,
}


class Small(Limits):
    """Every table has room for a few entries."""

    __slots__ = ()

    def sizes(self) -> dict[str, int]:
        kept = ("held", "scratches")
        return {name: size if name in kept else min(size, ROOM) for name, size in super().sizes().items()} | {
            "services": ROOM,
            "groups": ROOM,
            "group_values": ROOM,
        }


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(tmp_path_factory.mktemp("bpf")))
        space, other = Namespace("full"), Namespace("full-other")
        stack.callback(space.remove)
        stack.callback(other.remove)
        for link in ("out0", "lan0"):
            join(space, link, other, f"{link}p")
        space.run(f"ip addr add {HERE}/24 dev out0")
        with space.inside():
            opened = DataPlane.open("full", ["out0", "lan0"], bpf_root=root, limits=Small())
            stack.callback(opened.remove)
            yield opened


@pytest.fixture
def empty(plane: DataPlane) -> Iterator[DataPlane]:
    """The plane without entries; what a test leaves behind in a table is found."""
    settle(plane._entries)
    before = {name: len(found.items()) for name, found in tables(plane).items()}
    yield plane
    plane.apply(difference(plane.state, ForwardingState()))
    settle(plane._entries)
    assert {name: len(found.items()) for name, found in tables(plane).items()} == before
    assert plane.snapshot() == plane.state


def tables(plane: DataPlane) -> dict[str, Map]:
    return {
        name: found
        for name, found in plane._object.maps.items()
        if found.type == HASH and name not in NOT_OF_ACTIONS
    }


def contents(plane: DataPlane) -> dict[str, dict[bytes, bytes]]:
    """Keys and values of all tables, but for the identifiers by which the values are found."""
    found: dict[str, dict[bytes, bytes]] = {}
    for name, table in tables(plane).items():
        if name in plane._entries:
            found[name] = dict(plane._entries[name].items())
        elif name not in layout.VALUES:
            found[name] = dict(table.items())
    return found


def fill(table: Map, but: int = 0) -> Callable[[], None]:
    """Fill the table, `but` some places, with keys that no entry has; the result takes them out."""
    keys = [
        b"\xee" * (table.key_size - 2) + n.to_bytes(2, "big")
        for n in range(table.max_entries - len(table.items()) - but)
    ]
    table.put_many([(key, bytes(table.value_size)) for key in keys])
    return lambda: table.delete_many(keys)


def test_every_table_of_entries_is_tested(plane: DataPlane) -> None:
    assert NEEDS.keys() == tables(plane).keys()


@pytest.mark.parametrize("name", NEEDS)
def test_full_table_changes_nothing_and_keeps_no_other_back(empty: DataPlane, name: str) -> None:
    plane, need = empty, NEEDS[name]
    table = plane._object.maps[name]
    moved = InstallBinding(BindingEntry(X, Verdict.ENCAPSULATE, (tunnel(ELSEWHERE),)))
    plane.apply([InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (tunnel(),))) for home in (X, STAYS)])
    before = plane.snapshot()
    entries = contents(plane)
    beside = [] if need is ACCEPTED else [AcceptTunnel(TunnelAcceptance(THERE, NEW, Side.TO_HOME_ADDRESS))]
    drain = fill(table, but=1 if name == "binding_values" else 0)  # `moved` has a value that is new too
    try:
        if name not in plane._entries and name not in layout.VALUES:
            entries = {**entries, name: dict(table.items())}
        with pytest.raises(DataPlaneError, match=f"table {name} is full"):
            plane.apply([moved, *beside, need])
        assert contents(plane) == entries
        assert plane.state == before
        if home_address_of(need) is None:
            beside = []
        (refused,) = plane.apply_each([moved, *beside, need])
        assert refused.actions[-1] == need and refused.home_address in (NEW, None)
    finally:
        drain()
    after = plane.snapshot()
    assert after == plane.state
    assert after.bindings[X].tunnels == (tunnel(ELSEWHERE),)
    assert NEW not in after.bindings and not after.acceptances
    assert plane.apply_each(refused.actions) == []
    assert plane.snapshot() == plane.state
    assert plane.state.entry(need) == need


def test_visitor_with_half_of_its_places_leaves_none(empty: DataPlane) -> None:
    """A visitor on a link takes two places of one table."""
    drain = fill(empty._object.maps["senders"], but=1)
    try:
        with pytest.raises(DataPlaneError):
            empty.apply([NEEDS["senders"]])
    finally:
        drain()


@pytest.mark.parametrize("many", [("rules_many", bound), ("filters_many", filtered)])
def test_entry_that_became_small_makes_room_for_a_large_one(
    empty: DataPlane, many: tuple[str, Callable[..., Action]]
) -> None:
    plane, (name, _) = empty, many
    large, small = (
        (bound(tunnel(), number=20), bound(tunnel(), number=2))
        if name == "rules_many"
        else (filtered(20), filtered(2))
    )
    plane.apply([large])
    plane.apply([small])
    drain = fill(plane._object.maps[name])
    try:
        other = [of_another(large)]
        plane.apply(other)
    finally:
        drain()
    assert plane.state.entry(small) == small and plane.snapshot() == plane.state


def of_another(action: Action) -> Action:
    """The same for another home address."""
    match action:
        case InstallBinding(entry):
            return InstallBinding(BindingEntry(X, entry.verdict, entry.tunnels, rules=entry.rules))
        case InstallFilter(found):
            return InstallFilter(Filter(X, found.place, found.rules, found.otherwise))
    raise AssertionError(action)


def test_replaced_rules_come_back_when_new_ones_find_no_room(empty: DataPlane) -> None:
    plane = empty
    plane.apply([bound(tunnel(), number=2)])
    before = plane.snapshot()
    drain = fill(plane._object.maps["rule_count"])
    try:
        with pytest.raises(DataPlaneError):
            plane.apply([bound(tunnel(ELSEWHERE), number=20)])
    finally:
        drain()
    assert plane.snapshot() == before == plane.state
    assert set(plane.rule_counters(NEW)) == {0, 1, 2}


def test_removed_entry_comes_back_when_a_later_change_fails(empty: DataPlane) -> None:
    plane = empty
    plane.apply([bound(tunnel(), number=2)])
    before = plane.snapshot()
    drain = fill(plane._object.maps["flows"])
    try:
        with pytest.raises(DataPlaneError):
            plane.apply([RemoveBinding(NEW), NEEDS["flows"]])
    finally:
        drain()
    assert plane.snapshot() == before == plane.state


def test_reconciliation_looks_at_the_kernel(empty: DataPlane) -> None:
    """An entry that went behind our back is made again, and one that came is removed."""
    plane = empty
    wanted = [bound(tunnel(), number=2), ACCEPTED, OUTBOUND, TRANSLATED, NEEDS["flows"], filtered(2)]
    plane.apply(wanted)
    kept = plane.snapshot()
    for name in ("bindings", "acceptances", "outbound", "translations", "flows", "filters", "rules"):
        found = plane._object.maps[name]
        ((key, value),) = found.items()
        found.delete(key)
        if name == "acceptances":
            found.put(key[:15] + b"\x77" + key[16:], value)
    assert plane.state == kept != plane.snapshot()
    changes = plane.reconcile(wanted)
    assert changes and not changes.refused
    assert plane.snapshot() == kept == plane.state
    assert not plane.reconcile(wanted)
