"""The compact maps of a home agent's entries behave like dictionaries."""

from ipaddress import ip_address
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from locum.dataplane.compact import CompactAcceptances, CompactBindings, compact_state, share
from locum.dataplane.state import ForwardingState, Noted, bringing_back, difference
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    RefuseTunnel,
    RemoveBinding,
    Side,
    TunnelAcceptance,
    Verdict,
)
from tests.dataplane.model.grammar import Grammar

HOME = ip_address("10.9.0.1")


@given(st.integers(0, 2**32))
@settings(max_examples=15)
def test_compact_state_is_the_same_state(seed: int) -> None:
    """Through states one after the other, with entries added, replaced and removed one at a time."""
    plain, compact = ForwardingState(), compact_state()
    for number in range(4):
        for change in difference(plain, Grammar(seed + number).state()):
            assert compact.entry(change) == plain.entry(change)
            for state in (plain, compact):
                state.perform(change)
        assert compact == plain and plain == compact
        assert difference(compact, plain) == difference(plain, compact) == []
        other, compact_other = Grammar(seed - number).state(), compact_state()
        for entry in other.entries():
            compact_other.perform(entry)
        changes = difference(plain, other)
        for before, after in ((compact, compact_other), (compact, other), (plain, compact_other)):
            assert sorted(map(repr, difference(before, after))) == sorted(map(repr, changes))
        assert len(compact.bindings) == len(plain.bindings)
        assert len(compact.acceptances) == len(plain.acceptances)
        for home_address, binding in plain.bindings.items():
            assert compact.bindings[home_address] == binding
            assert home_address in compact.bindings
    for key in Random(seed).sample([*plain.acceptances], len(plain.acceptances)):
        assert compact.acceptances.pop(key) == plain.acceptances.pop(key)
        assert key not in compact.acceptances
    assert not compact.acceptances


def test_device_that_moves_takes_no_more_memory() -> None:
    """Nor one whose permission comes before its binding, or alone."""
    state = compact_state()
    for place in (ip_address("10.1.0.1"), ip_address("10.1.0.2"), ip_address("10.1.0.3")):
        state.perform(AcceptTunnel(TunnelAcceptance(place, HOME, Side.FROM_HOME_ADDRESS)))
        tunnel = Tunnel(ip_address("10.5.0.1"), place)
        state.perform(InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, (tunnel,))))
        for acceptance in [*state.acceptances.values()]:
            if acceptance.outer_source != place:
                state.perform(RefuseTunnel(acceptance))
        assert isinstance(state.acceptances, CompactAcceptances)
        assert not state.acceptances._others
        assert state.acceptances._devices.held == {int(HOME): tunnel}
    state.perform(RemoveBinding(HOME))
    assert len(state.acceptances) == 1 and not state.bindings
    state.perform(RefuseTunnel(TunnelAcceptance(place, HOME, Side.FROM_HOME_ADDRESS)))
    assert isinstance(state.acceptances, CompactAcceptances)
    assert not state.acceptances._devices.held


def test_equal_entries_are_shared() -> None:
    """Also where another entry differs; and entries stay as they are."""
    for more in (False, True):
        kept, wanted, expected = compact_state(), compact_state(), compact_state()
        for number in range(9):
            for state in (kept, wanted, expected):
                home, place = ip_address(f"10.9.0.{number}"), ip_address("10.1.0.1")
                if more and number == 4 and state is not wanted:
                    place = ip_address("10.1.0.9")
                tunnel = Tunnel(ip_address("10.5.0.1"), place)
                state.perform(InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (tunnel,))))
                state.perform(AcceptTunnel(TunnelAcceptance(place, home, Side.FROM_HOME_ADDRESS)))
        share(kept, wanted)
        assert kept == expected
        assert isinstance(kept.bindings, CompactBindings) and isinstance(wanted.bindings, CompactBindings)
        theirs = [*wanted.bindings._devices.held]
        shared = sum(any(one is other for other in theirs) for one in kept.bindings._devices.held)
        assert shared == 9 - more


def test_noted_changes_are_undone_from_the_last_to_the_first() -> None:
    """An entry that changed twice becomes again what it was before the first change."""
    ends = [ip_address("10.0.0.1"), ip_address("10.0.0.2")]
    first, second = (
        BindingEntry(HOME, Verdict.ENCAPSULATE, (Tunnel(ip_address("10.8.0.1"), end),)) for end in ends
    )
    old, new = (TunnelAcceptance(end, HOME, Side.FROM_HOME_ADDRESS) for end in ends)
    noted: list[Noted] = [(None, new), (first, second), (second, first), (old, old), (None, old)]
    assert bringing_back(noted) == [AcceptTunnel(old), InstallBinding(first), RefuseTunnel(new)]
