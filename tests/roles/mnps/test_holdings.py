"""Indexes of `Holdings` against a look at all handovers."""

from dataclasses import replace
from ipaddress import IPv4Address
from random import Random

import pytest

from locum.roles.action_values.forwarding import AcceptTunnel, InstallBinding, InstallOutbound
from locum.roles.action_values.forwarding_order import difference
from locum.roles.forwarding import forwarding
from locum.roles.mnps.handover import HeldFlow, Holding, Prepared, Releasing, TakenOver
from locum.roles.mnps.handovers import Holdings
from locum.wire.control import Flow, Status
from locum.wire.takes import Takes

OWN, AGENT = IPv4Address("192.0.2.130"), IPv4Address("198.51.100.2")
HOMES = [IPv4Address("203.0.113.1") + number for number in range(4)]
FLOWS = [Flow(6, home, 40_000 + number, AGENT, 7) for home in HOMES for number in range(3)]


def changed(chance: Random, taken: TakenOver | None, name: bytes) -> TakenOver:
    """A handover of that name, new or with something else in it."""
    if taken is None:
        homes = tuple(chance.sample(HOMES, chance.choice((1, 1, 2))))
        return TakenOver(name, homes, (), Prepared(9.0))
    own = [flow for flow in FLOWS if flow.local in taken.home_addresses]
    flows = tuple(chance.sample(own, chance.randint(0, 3)))
    sessions = tuple(
        HeldFlow(number, flow, chance.choice((Status.OK, Status.REFUSED)))
        for number, flow in enumerate(flows)
    )
    state = chance.choice((Prepared(9.0), Holding(), Releasing((1,), 9.0)))
    switch = chance.choice((None, Takes.ALL))
    return replace(taken, flows=flows, sessions=sessions, state=state, switch=switch)


@pytest.mark.parametrize("seed", range(8))
def test_indexes_agree_with_all_handovers(seed: int) -> None:
    chance = Random(seed)
    holdings = Holdings(OWN, lambda home: AGENT if home in HOMES[:2] else None)
    guarded: list[IPv4Address] = []
    holdings.also_guarded = lambda: guarded
    names = [bytes([number]) * 16 for number in range(6)]
    there: dict[object, object] = {}
    for _ in range(200):
        name = chance.choice(names)
        taken = holdings.get(name)
        guarded[:] = chance.sample(HOMES, chance.randint(0, 1))
        if taken is not None and chance.random() < 0.3:
            actions = holdings.end(taken)
        else:
            holdings.keep(changed(chance, taken, name))
            actions = holdings.settle()
        _look_at_all(holdings, names)
        for action in actions:
            _perform(there, action)
        assert there == _wanted(holdings, guarded)


def _look_at_all(holdings: Holdings, names: list[bytes]) -> None:
    found = list(holdings.all())
    for home in HOMES:
        assert holdings.of((home,)) == [one for one in found if home in one.home_addresses]
    for name in names:
        others = [one for one in found if one.identifier != name]
        assert holdings.numbers(besides=name) == (len(others), sum(len(one.flows) for one in others))
        for flow in FLOWS:
            held = any(flow == session.flow for one in others for session in one.held)
            assert holdings.is_owned(flow, besides=name) == held
            assert holdings.is_wanted(flow, besides=name) == any(flow in one.flows for one in others)
    wanted = {one.identifier for one in found if one.switch is not None or isinstance(one.state, Releasing)}
    assert {one.identifier for one in holdings.switching()} == wanted


def _perform(there: dict[object, object], action: object) -> None:
    """Carry out what concerns a home address in a table of entries."""
    match action:
        case InstallBinding(entry):
            there["binding", entry.home_address] = entry
        case AcceptTunnel(acceptance):
            there["tunnel", acceptance.home_address] = acceptance
        case InstallOutbound(entry):
            there["outbound", entry.home_address] = entry
        case _:
            kind = {"RemoveBinding": "binding", "RefuseTunnel": "tunnel", "RemoveOutbound": "outbound"}
            if (name := kind.get(type(action).__name__)) is not None:
                home = action.acceptance.home_address if name == "tunnel" else action.home_address  # type: ignore[attr-defined]
                del there[name, home]


def _wanted(holdings: Holdings, guarded: list[IPv4Address]) -> dict[object, object]:
    """The same table, made anew."""
    homes = {home for taken in holdings.all() for home in taken.home_addresses} | set(guarded)
    there: dict[object, object] = {}
    for home in homes:
        for action in difference(forwarding().entries(), holdings._wanted(home).entries()):
            _perform(there, action)
    return there
