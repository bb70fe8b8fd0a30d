"""Changes of many home addresses at once: few system calls, and a bound for one call where the tables have no room."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.entries import Changes
from locum.dataplane.layout import entries as layout
from locum.dataplane.performer import MOST_UNDONE, Performer
from locum.roles.action_values.flows import Tunnel
from locum.roles.action_values.forwarding import (
    AcceptTunnel,
    BindingEntry,
    InstallBinding,
    LocalEndpoint,
    RefuseTunnel,
    RemoveBinding,
    RemoveLocalEndpoint,
    Side,
    TunnelAcceptance,
    Verdict,
)
from locum.roles.actions import Action
from tests.dataplane.namespaces import Namespace, bpffs

HERE, THERE, OTHER = (ip_address(f"10.2.0.{number}") for number in (1, 2, 3))
ROOM = 1024
HOMES = [ip_address("10.9.0.0") + number for number in range(4 * ROOM)]


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    with bpffs(tmp_path / "bpf") as root:
        space = Namespace("many")
        try:
            with space.inside():
                made = DataPlane.open("many", [], bpf_root=root, limits=Limits(bindings=ROOM, flows=1024))
                try:
                    yield made
                finally:
                    made.remove()
        finally:
            space.remove()


def bound(number: int, *tunnels: Tunnel) -> list[Action]:
    home = HOMES[number]
    return [
        AcceptTunnel(TunnelAcceptance(THERE, home, Side.FROM_HOME_ADDRESS)),
        InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, tunnels or (Tunnel(HERE, THERE),))),
    ]


def test_many_are_removed_in_few_calls(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those with a second tunnel too; and nothing of them is left."""
    number = ROOM // 2
    installed = [bound(device) for device in range(number)]
    installed[5] = bound(5, Tunnel(HERE, THERE), Tunnel(HERE, OTHER))
    plane.apply([action for actions in installed for action in reversed(actions)])
    assert len(plane._entries["binding_more"].items()) == 1
    runs = 0
    start = Changes._start

    def counted(self: Changes, table: int, changes: int) -> None:
        nonlocal runs
        runs += 1
        start(self, table, changes)

    monkeypatch.setattr(Changes, "_start", counted)
    plane.apply(
        [
            *[RemoveBinding(home) for home in HOMES[:number]],
            *[RefuseTunnel(TunnelAcceptance(THERE, home, Side.FROM_HOME_ADDRESS)) for home in HOMES[:number]],
        ]
    )
    assert runs <= 2 * -(-number // layout.CHANGES) + 1
    assert not plane.snapshot().bindings and not plane.snapshot().acceptances
    assert not plane._entries["binding_more"].items()
    assert plane.snapshot() == plane.state


def test_one_call_tries_no_more_when_many_are_refused(
    plane: DataPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untried changes leave all as it was, and are performed as soon as there is room."""
    plane.apply([action for number in range(ROOM) for action in bound(number)])
    late = LocalEndpoint(ip_address("10.2.0.77"))
    plane.apply([late])
    more = [action for number in range(ROOM, len(HOMES)) for action in bound(number)]
    undone = 0
    bring_back = Performer._bring_back

    def counted(self: Performer, actions: Sequence[Action]) -> None:
        nonlocal undone
        undone += len(actions)
        bring_back(self, actions)

    monkeypatch.setattr(Performer, "_bring_back", counted)
    refused = plane.apply_each([*more, RemoveLocalEndpoint(late.address)])
    assert undone <= 1.5 * MOST_UNDONE
    assert {one.tried for one in refused} == {True, False}
    assert sorted(str(one.home_address) for one in refused if one.home_address) == sorted(
        map(str, HOMES[ROOM:])
    )
    assert refused[-1].home_address is None and late.address in plane.state.endpoints
    assert plane.snapshot() == plane.state and len(plane.state.bindings) == ROOM
    plane.apply([RemoveBinding(home) for home in HOMES[:ROOM]])
    plane.apply(
        [RefuseTunnel(TunnelAcceptance(THERE, home, Side.FROM_HOME_ADDRESS)) for home in HOMES[:ROOM]]
    )
    waiting = [action for one in refused[:ROOM] for action in one.actions]
    assert plane.apply_each(waiting) == []
    assert plane.snapshot() == plane.state and len(plane.state.bindings) == ROOM


def test_reconciliation_tries_all(plane: DataPlane) -> None:
    changes = plane.reconcile([action for number in range(len(HOMES)) for action in bound(number)])
    assert len(plane.state.bindings) == ROOM
    assert all(one.tried for one in changes.refused) and len(changes.refused) == len(HOMES) - ROOM
