"""Each forwarding entry has a key and a place in the order of changes."""

from ipaddress import ip_address
from itertools import pairwise
from random import Random
from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from locum.roles.action_values import forwarding_order
from locum.roles.action_values.addresses import Addr
from locum.roles.action_values.contexts import DropHeld
from locum.roles.action_values.flows import (
    Encapsulation,
    Filter,
    FilterPlace,
    ForwardGroup,
    InstallFilter,
    InstallTranslation,
    OfferService,
    RemoveFilter,
    RemoveTranslation,
    Translation,
    Tunnel,
    UnwatchPort,
    WatchPort,
    WithdrawService,
)
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    ClearFlow,
    FlowEntry,
    FlowVerdict,
    ForwardingAction,
    InstallBinding,
    InstallOutbound,
    LocalEndpoint,
    NeighbourEntry,
    OutboundEntry,
    RefuseTunnel,
    ReleaseHeld,
    RemoveBinding,
    RemoveLocalEndpoint,
    RemoveNeighbour,
    RemoveOutbound,
    SetFlow,
    Side,
    Stage,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.action_values.forwarding_order import (
    HomeEntries,
    Install,
    Remove,
    difference,
    home_difference,
    net_effect,
)
from locum.roles.action_values.paging import DropPaged, ReleasePaged
from locum.roles.actions import Action
from locum.wire.control import Flow

HOME, OTHER, CARE_OF, NEXT = map(ip_address, ("10.36.0.4", "10.36.0.5", "10.2.0.2", "10.2.0.3"))
ENDS = (CARE_OF, NEXT, ip_address("10.2.0.4"), ip_address("2001:db8::4"))
DROP = InstallBinding(BindingEntry(HOME, Verdict.DROP))


def reverse(home_address: Addr = HOME) -> TunnelAcceptance:
    return TunnelAcceptance(CARE_OF, home_address, Side.FROM_HOME_ADDRESS)


def inward(source: Addr, end: Addr | None = None) -> TunnelAcceptance:
    return TunnelAcceptance(source, HOME, Side.TO_HOME_ADDRESS, end=end)


def home_entries() -> st.SearchStrategy[HomeEntries]:
    """Any entries of one home address at its home agent."""
    ends = st.sampled_from(ENDS)
    tunnels = ends.map(lambda end: (Tunnel(OTHER, end, Encapsulation.IPIP),))
    tunnelled = tunnels.map(lambda tunnel: BindingEntry(HOME, Verdict.ENCAPSULATE, tunnel))
    accepted = st.builds(
        lambda end, port: TunnelAcceptance(end, HOME, Side.FROM_HOME_ADDRESS, source_port=port),
        ends,
        st.integers(0, 1),
    )
    translations = st.builds(
        lambda inside, end: Translation(HOME, inside, end), st.sampled_from((OTHER, NEXT)), ends
    )
    return st.builds(
        HomeEntries,
        st.one_of(st.none(), st.just(BindingEntry(HOME, Verdict.NATIVE)), tunnelled),
        st.lists(accepted, unique_by=lambda it: it.outer_source).map(tuple),
        st.lists(translations, unique_by=lambda it: it.tunnel).map(tuple),
    )


def test_every_change_of_an_entry_has_a_key_and_an_opposite() -> None:
    changes = {*get_args(Install), *get_args(Remove)}
    not_entries = {ReleaseHeld, DropHeld, ReleasePaged, DropPaged}
    assert changes == {*get_args(ForwardingAction), NeighbourEntry, RemoveNeighbour} - not_entries
    assert set(forwarding_order._KEYS) == changes
    assert set(forwarding_order._OPPOSITES) == set(get_args(Install))


def test_the_last_change_of_each_entry_counts() -> None:
    other = InstallBinding(BindingEntry(OTHER, Verdict.DROP))
    actions: list[Action] = [
        InstallBinding(BindingEntry(HOME, Verdict.HOLD)), AcceptTunnel(reverse()), other, DROP,
        RefuseTunnel(reverse()), AcceptTunnel(reverse(OTHER)), RemoveBinding(OTHER),
    ]  # fmt: skip
    assert net_effect(actions) == [
        AcceptTunnel(reverse(OTHER)), DROP, RemoveBinding(OTHER), RefuseTunnel(reverse())
    ]  # fmt: skip


def test_a_translation_stays_until_the_binding_has_moved() -> None:
    translation = Translation(HOME, OTHER, CARE_OF)
    following = Translation(HOME, OTHER, NEXT)
    removal = RemoveTranslation(HOME, CARE_OF)
    assert net_effect([removal, InstallTranslation(translation), removal, DROP]) == [DROP, removal]
    assert difference([InstallTranslation(translation)], [InstallTranslation(following), DROP]) == [
        InstallTranslation(following), DROP, removal
    ]  # fmt: skip


def test_packets_are_released_after_the_changes_given_before() -> None:
    release, remove = ReleaseHeld(HOME), RemoveBinding(HOME)
    assert net_effect([DROP, remove, release, DROP]) == [remove, release, DROP]


def test_an_inward_permission_comes_last_and_goes_first() -> None:
    guard = InstallBinding(BindingEntry(HOME, Verdict.GUARD))
    taken, given = AcceptTunnel(inward(CARE_OF)), AcceptTunnel(inward(NEXT))
    assert difference([taken, DROP], [guard, given]) == [
        RefuseTunnel(inward(CARE_OF)), guard, RemoveBinding(HOME, Stage.HOME), given
    ]  # fmt: skip


def test_a_narrower_permission_of_the_same_source_comes_first() -> None:
    guard = InstallBinding(BindingEntry(HOME, Verdict.GUARD))
    whole, end = inward(CARE_OF), inward(CARE_OF, NEXT)
    assert difference([AcceptTunnel(whole), DROP], [guard, AcceptTunnel(end)]) == [
        AcceptTunnel(end), RefuseTunnel(whole), guard, RemoveBinding(HOME, Stage.HOME)
    ]  # fmt: skip


def test_visits_come_before_homes_and_local_ends_after_both() -> None:
    stages = (Stage.VISITED, Stage.HOME, Stage.LOCAL)
    entries = [InstallBinding(BindingEntry(HOME, Verdict.HOLD, at=stage)) for stage in stages]
    assert difference([], entries[::-1]) == entries
    assert difference(entries, []) == [RemoveBinding(HOME, stage) for stage in stages[::-1]]


def test_closed_entry_opens_when_the_local_end_is_there() -> None:
    guard = InstallBinding(BindingEntry(HOME, Verdict.GUARD))
    native = InstallBinding(BindingEntry(HOME, Verdict.NATIVE))
    assert difference([DROP], [native, guard]) == [guard, native]
    assert difference([native, guard], [DROP]) == [DROP, RemoveBinding(HOME, Stage.LOCAL)]


def test_a_local_translation_is_a_permission() -> None:
    guard = InstallBinding(BindingEntry(HOME, Verdict.GUARD))
    local = InstallTranslation(Translation(HOME, OTHER))
    assert difference([], [local, guard]) == [guard, local]
    assert difference([local, guard], []) == [RemoveTranslation(HOME), RemoveBinding(HOME, Stage.LOCAL)]


@given(home_entries(), home_entries())
def test_the_difference_at_a_home_agent_is_in_the_order_of_all(
    before: HomeEntries, after: HomeEntries
) -> None:
    assert home_difference(before, after) == difference(before.entries(), after.entries())


FLOW = Flow(6, HOME, 5, OTHER, 80)
BOTH = Translation(HOME, OTHER, CARE_OF), Translation(HOME, OTHER)
IN_ORDER: tuple[tuple[Install, Remove], ...] = (
    (LocalEndpoint(CARE_OF), RemoveLocalEndpoint(CARE_OF)),
    (InstallFilter(Filter(HOME, FilterPlace.EMISSION, ())), RemoveFilter(HOME, FilterPlace.EMISSION)),
    (AcceptTunnel(reverse()), RefuseTunnel(reverse())),
    (NeighbourEntry("lan0", HOME, b"abcdef"), RemoveNeighbour("lan0", HOME)),
    (InstallOutbound(OutboundEntry(HOME, None, Tunnel(CARE_OF, NEXT))), RemoveOutbound(HOME, None)),
    (ForwardGroup(OTHER, "lan0", ("lan1",)), ForwardGroup(OTHER, "lan0", ())),
    (OfferService(6, 80), WithdrawService(6, 80)),
    (WatchPort(HOME, 80), UnwatchPort(HOME, 80)),
    (SetFlow(FlowEntry(FLOW, FlowVerdict.SUSPEND)), ClearFlow(FLOW)),
    (InstallTranslation(BOTH[0]), RemoveTranslation(HOME, CARE_OF)),
    (InstallBinding(BindingEntry(HOME, Verdict.DROP, at=Stage.VISITED)), RemoveBinding(HOME, Stage.VISITED)),
    (DROP, RemoveBinding(HOME, Stage.HOME)),
    (InstallBinding(BindingEntry(HOME, Verdict.GUARD)), RemoveBinding(HOME, Stage.LOCAL)),
)  # fmt: skip


def shuffled(seed: int) -> list[Install]:
    """The installations of IN_ORDER, of a local translation and of an inward permission, in any order."""
    entries = [install for install, _ in IN_ORDER]
    entries += [InstallTranslation(BOTH[1]), AcceptTunnel(inward(NEXT))]
    return Random(seed).sample(entries, len(entries))


def test_installations_keep_the_order_of_the_tables() -> None:
    local, given = InstallTranslation(BOTH[1]), AcceptTunnel(inward(NEXT))
    for seed in range(5):
        assert difference([], shuffled(seed)) == [install for install, _ in IN_ORDER] + [local, given]


def test_removals_reverse_the_order_of_the_tables() -> None:
    local, taken = RemoveTranslation(HOME), RefuseTunnel(inward(NEXT))
    for seed in range(5):
        removals = [remove for _, remove in IN_ORDER[::-1]]
        removals.remove(ClearFlow(FLOW))
        removals.insert(1, ClearFlow(FLOW))  # behind the local end
        assert difference(shuffled(seed), []) == [taken, local, *removals]


def test_every_installation_precedes_every_removal() -> None:
    for (install, _), (other, removal) in [*pairwise(IN_ORDER), *pairwise(IN_ORDER[::-1])]:
        assert difference([other], [install]) == [install, removal]


def test_local_translations_change_around_replaced_permissions() -> None:
    whole, end = inward(CARE_OF), inward(CARE_OF, NEXT)
    local = InstallTranslation(BOTH[1])
    assert difference([AcceptTunnel(whole), DROP], [local, AcceptTunnel(end)]) == [
        AcceptTunnel(end), RefuseTunnel(whole), local, RemoveBinding(HOME, Stage.HOME)
    ]  # fmt: skip
    assert difference([AcceptTunnel(end), local], [DROP, AcceptTunnel(whole)]) == [
        DROP, RemoveTranslation(HOME), AcceptTunnel(whole), RefuseTunnel(end)
    ]  # fmt: skip
