"""Entries change, come and go while packets use them: every packet meets a whole entry of its own address."""

import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.entries import Entries
from locum.dataplane.kernel.grace import GRACE, PORTION
from locum.dataplane.kernel.libbpf import DataPlaneError, ProgramRun
from locum.dataplane.layout import entries as layout
from locum.dataplane.layout import maps
from locum.dataplane.layout.rules import FEW
from locum.dataplane.measure import udp_frame
from locum.dataplane.stress import Changing, stress
from locum.roles.action_values.flows import InstallTranslation, Translation, Tunnel
from locum.roles.action_values.forwarding import BindingEntry, InstallBinding, RemoveBinding, Verdict
from tests.dataplane.namespaces import Namespace, bpffs, join

HOME, AGENT = IPv4Address("10.9.0.5"), ip_address("10.2.0.1")
RIGHT = tuple(Tunnel(AGENT, ip_address(f"10.2.0.{number}")) for number in range(2, 6))
WRONG = tuple(Tunnel(AGENT, ip_address(f"10.2.0.{number}")) for number in range(102, 106))
ROOM = 1024


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[DataPlane]:
    """The data plane of a namespace with a route to the far ends of all tunnels."""
    with bpffs(tmp_path / "bpf") as root:
        space, other = Namespace("updates"), Namespace("updates-other")
        try:
            join(space, "out0", other, "out1")
            space.run("ip addr add 10.2.0.200/24 dev out0")
            with space.inside():
                made = DataPlane.open("updates", [], bpf_root=root, limits=Limits(bindings=ROOM, flows=1024))
                try:
                    yield made
                finally:
                    made.remove()
        finally:
            space.remove()
            other.remove()


@pytest.mark.parametrize(("rules", "packets"), [(0, 400_000), (FEW, 200_000)])
def test_no_packet_meets_another_address_entry(rules: int, packets: int) -> None:
    """Many packets to one address, while its entry, and those of others, are replaced and removed."""
    found = stress(packets, rules=rules)
    assert (found.wrong, found.missed) == (0, 0)
    assert found.packets >= packets and found.changes > 100


def test_copies_and_packet_follow_one_entry(plane: DataPlane) -> None:
    """A program that sends copies runs long enough to meet several changes: the packet itself still goes its own way."""
    plane.apply([InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT))])
    right = maps.binding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT))
    wrong = [maps.binding(BindingEntry(HOME, Verdict.ENCAPSULATE, (tunnel,))) for tunnel in WRONG]
    run = ProgramRun(plane._object.program("locum_ingress"))
    frame, went = udp_frame(HOME), Counter[str]()
    with Changing(plane._entries["bindings"], HOME, [right], wrong):
        for _ in range(3000):
            _, sent, context, _ = run.run(frame)
            outcome, reason = struct.unpack_from("II", context, 48)
            went[f"{outcome} {reason} {ip_address(sent[30:34])}"] += 1
    assert dict(went) == {f"4 0 {RIGHT[0].destination}": 3000}


def far_end(plane: DataPlane, number: int) -> Tunnel:
    return Tunnel(AGENT, ip_address("10.3.0.0") + number)


def numbers(table: Entries) -> set[int]:
    """Identifiers of the values that the kernel has for a table, in use or not."""
    return {int.from_bytes(key, "little") for key, _ in table.values[0].table.items()}


def bind(plane: DataPlane, home: int, tunnel: Tunnel) -> None:
    address = ip_address("10.9.0.0") + home
    plane.apply([InstallBinding(BindingEntry(address, Verdict.ENCAPSULATE, (tunnel,)))])


def test_values_and_elements_outlive_programs(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replaced value and a removed entry stay in the kernel for the grace period, whatever is written meanwhile."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    table = plane._entries["bindings"]
    bind(plane, 1, RIGHT[0])
    bind(plane, 2, RIGHT[0])
    assert len(numbers(table)) == 1, "equal values are stored once"
    (first,) = numbers(table)
    bind(plane, 1, RIGHT[1])
    bind(plane, 2, RIGHT[1])
    second = max(numbers(table))
    assert numbers(table) == {first, second}
    plane.apply([RemoveBinding(ip_address("10.9.0.2"))])
    assert table.items() == [
        (
            maps.address(ip_address("10.9.0.1")),
            maps.binding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT[1:2])),
        )
    ]
    assert len(table.table.items()) == 2
    now[0] += GRACE / 2
    bind(plane, 3, RIGHT[2])
    assert numbers(table) == {first, second, second + 1} and len(table.table.items()) == 3
    bind(plane, 2, RIGHT[2])  # again, before its element goes
    now[0] += GRACE
    bind(plane, 1, RIGHT[2])
    assert numbers(table) == {second, second + 1} and len(table.items()) == len(table.table.items()) == 3
    now[0] += 2 * GRACE
    plane.apply([RemoveBinding(ip_address("10.9.0.3"))])
    assert numbers(table) == {second + 1}


def test_grace_begins_with_the_last_removal(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry that was removed, there again and removed once more has all of the grace period."""
    now = [2000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    table = plane._entries["bindings"]
    bind(plane, 1, RIGHT[0])
    before = len(table.table.items())
    bind(plane, 7, RIGHT[0])
    plane.apply([RemoveBinding(ip_address("10.9.0.7"))])
    now[0] += 0.9 * GRACE
    bind(plane, 7, RIGHT[0])
    now[0] += 0.05 * GRACE
    plane.apply([RemoveBinding(ip_address("10.9.0.7"))])
    now[0] += 0.5 * GRACE
    bind(plane, 1, RIGHT[1])
    assert len(table.table.items()) == before + 1
    now[0] += GRACE
    bind(plane, 1, RIGHT[0])
    assert len(table.table.items()) == before


def test_removed_entries_go_in_portions(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any change, and never many at once, whatever asks for it."""
    now = [3000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    table = plane._entries["bindings"].table
    bind(plane, 1, RIGHT[0])
    while plane.tidy() is not None:
        now[0] += GRACE
    before, number = len(table.items()), 3 * PORTION
    many = [ip_address("10.10.0.0") + home for home in range(number)]
    plane.apply([InstallBinding(BindingEntry(home, Verdict.ENCAPSULATE, (RIGHT[0],))) for home in many])
    plane.apply([RemoveBinding(home) for home in many])
    assert plane.tidy() == pytest.approx(GRACE) and len(table.items()) == before + number
    now[0] += 1.5 * GRACE
    bind(plane, 1, RIGHT[1])
    left = len(table.items())
    assert before + number - 2 * PORTION <= left < before + number
    while (wait := plane.tidy()) == 0:
        assert left - PORTION <= (left := len(table.items()))
    assert wait == pytest.approx(GRACE)  # the value that was replaced
    assert left == len(table.items()) + 0 == before
    now[0] += 1.5 * GRACE
    plane.tidy()
    assert plane.tidy() is None


def test_counters_follow_their_entry(plane: DataPlane) -> None:
    """A changed entry goes on counting; one that was removed begins at 0 again."""
    run, frame = ProgramRun(plane._object.program("locum_ingress")), udp_frame(HOME)
    plane.apply([InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT[:1]))])
    run.run(frame)
    plane.apply([InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT[1:2]))])
    run.run(frame)
    assert plane.binding_counters(HOME).packets == 2
    plane.apply([RemoveBinding(HOME)])
    assert plane.binding_counters(HOME).packets == 0
    plane.apply([InstallBinding(BindingEntry(HOME, Verdict.ENCAPSULATE, RIGHT[:1]))])
    run.run(frame)
    assert plane.binding_counters(HOME).packets == 1


def test_full_table_of_different_values_still_changes(plane: DataPlane) -> None:
    """Every binding has a tunnel of its own and the table is full: each can be replaced, and one more is refused."""
    for turn in (0, 5000):
        for home in range(ROOM):
            bind(plane, home, far_end(plane, turn + home))
    assert len(plane.snapshot().bindings) == ROOM
    for home in range(ROOM):
        plane.apply([RemoveBinding(ip_address("10.9.0.0") + home)])
    for home in range(ROOM):
        bind(plane, 2000 + home, far_end(plane, home))  # at once: places that wait are given back early
    with pytest.raises(DataPlaneError, match="the table bindings is full \\(1024 entries\\)"):
        bind(plane, 5000, RIGHT[0])
    assert len(plane.snapshot().bindings) == ROOM


def test_identifiers_begin_again_behind_the_last(plane: DataPlane) -> None:
    """After four billion values, an identifier that is still in use is left out."""
    bind(plane, 1, far_end(plane, 1))
    table = plane._entries["bindings"]
    (used,) = numbers(table)
    table.values[0]._last = layout.LAST_NUMBER
    for home in range(2, 5):
        bind(plane, home, far_end(plane, home))
    assert numbers(table) == {used, used + 1, used + 2, used + 3} and used == 1


def test_half_written_flow_is_not_translated_back(plane: DataPlane) -> None:
    """The kernel may give the element of a remembered flow away while it is copied: the seal of such a copy does not fit."""
    local, other = ip_address("10.2.0.200"), IPv4Address("10.9.0.6")
    plane._tables.set_own({local})
    plane.apply([InstallTranslation(Translation(home, local, None)) for home in (HOME, other)])
    program = plane._object.program
    towards = udp_frame(HOME)
    _, sent, _, _ = ProgramRun(program("locum_ingress")).run(towards)
    assert sent[30:34] == local.packed
    answer = towards[:26] + local.packed + towards[26:30] + towards[34:]
    back, flows = ProgramRun(program("locum_egress")), plane._object.maps["translated"]

    def source() -> bytes:
        return back.run(answer)[1][26:30]

    assert source() == HOME.packed
    ((key, value),) = flows.items()
    of_another = udp_frame(other)
    of_another = of_another[:34] + b"\x13\x89" + of_another[36:]  # from another port of the peer
    ProgramRun(program("locum_ingress")).run(of_another)
    (given_away,) = [found for known, found in flows.items() if known != key]
    flows.put(key, given_away)
    assert source() == local.packed
    flows.put(key, value)
    assert source() == HOME.packed
