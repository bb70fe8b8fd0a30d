"""Emission filters on real sockets: refused and counted in the kernel, inherited by accepted connections (R20)."""

import errno
import random
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.dataplane.emitting import emission as module
from locum.dataplane.emitting.control_group import own_directory
from locum.dataplane.emitting.emission import EmissionFilter
from locum.dataplane.kernel.libbpf import DataPlaneError
from locum.roles.action_values.emission import MAX_RULES, Permit, permits, permitted
from tests.dataplane.namespaces import Namespace

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM


@pytest.fixture
def here() -> Iterator[Namespace]:
    space = Namespace("emission")
    try:
        with space.inside():
            yield space
    finally:
        space.remove()


@pytest.fixture
def filters(here: Namespace) -> Iterator[EmissionFilter]:
    found = EmissionFilter()
    try:
        yield found
    finally:
        found.close()


def sends(by: socket.socket, host: str, port: int) -> bool:
    """Send a datagram; false if the kernel refuses it."""
    try:
        by.sendto(b"x", (host, port))
    except ConnectionRefusedError:  # an ICMP error of the one before
        return sends(by, host, port)
    except PermissionError:
        return False
    return True


def test_a_datagram_is_refused_and_counted(filters: EmissionFilter) -> None:
    number = filters.add(permits(["udp 127.0.0.2 7000-7002"]), local=True)
    with socket.socket(socket.AF_INET, UDP) as owned, socket.socket(socket.AF_INET, UDP) as other:
        filters.own(owned.fileno(), number)
        tried = [("127.0.0.2", 7000), ("127.0.0.2", 7002), ("127.0.0.2", 7003), ("127.0.0.3", 7001)]
        assert [sends(owned, *to) for to in tried] == [True, True, False, False]
        assert filters.counts(number) == (2, 2)
        assert all(sends(other, *to) for to in tried), "sockets of nobody send everything"
        filters.disown(owned.fileno())
        assert all(sends(owned, *to) for to in tried), "a connection that was handed over sends everything"
        assert filters.counts(number) == (2, 2)


def test_an_accepted_connection_is_limited_as_well(filters: EmissionFilter) -> None:
    """It answers a peer in the permitted network; another one does not even get a SYN-ACK."""
    number = filters.add(permits(["tcp 127.0.0.2"]), local=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        filters.own(listener.fileno(), number)
        here = listener.getsockname()
        with socket.create_connection(here, timeout=5, source_address=("127.0.0.2", 0)) as peer:
            accepted, _ = listener.accept()
            with accepted:
                accepted.sendall(b"welcome")
                assert peer.recv(100) == b"welcome"
        before = filters.counts(number)[1]
        with socket.socket() as stranger:
            stranger.bind(("127.0.0.3", 0))
            stranger.setblocking(False)
            assert stranger.connect_ex(here) == errno.EINPROGRESS
            assert filters.counts(number)[1] > before, "the answer to its SYN"


def test_a_connection_to_elsewhere_sends_no_syn(filters: EmissionFilter) -> None:
    number = filters.add(permits(["tcp ::1 80", "tcp 443"]), local=True)
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as server,
        socket.socket(socket.AF_INET6) as owned,
    ):
        filters.own(owned.fileno(), number)
        owned.setblocking(False)
        owned.connect_ex(server.getsockname()[:2])
        assert filters.counts(number) == (0, 1)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_policy_that_was_removed_lets_nothing_out(filters: EmissionFilter) -> None:
    first = filters.add(None, local=True)
    with socket.socket(socket.AF_INET, UDP) as owned:
        filters.own(owned.fileno(), first)
        assert sends(owned, "127.0.0.9", 1)
        filters.remove(first)
        assert not sends(owned, "127.0.0.9", 1)
        second = filters.add(None, local=True)
        assert second != first, "a number that was used comes last again"
        assert not sends(owned, "127.0.0.9", 1)


def test_there_is_an_end_of_policies(filters: EmissionFilter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLICIES", 3)
    numbers = [filters.add((), local=True) for _ in range(3)]
    with pytest.raises(DataPlaneError, match="there are 3 emission filters already"):
        filters.add((), local=True)
    filters.remove(numbers[1])
    assert filters.add(()) == numbers[1] and filters.counts(numbers[1]) == (0, 0)


def test_the_kernel_decides_as_the_rules_say(filters: EmissionFilter) -> None:
    """Random rules, random receivers, both families: `permitted` and the kernel agree."""
    chance = random.Random(20)
    networks = [
        "127.0.0.0/8",
        "127.0.0.0/30",
        "127.0.0.2/32",
        "::1/128",
        "::/0",
        "::/64",
        "0.0.0.0/0",
        "10.0.0.0/8",
    ]
    answers = set()
    for _ in range(60):
        rules = []
        for _ in range(chance.choice((0, 1, 2, 5, MAX_RULES))):
            low = chance.randrange(7000, 7008)
            ports = "" if chance.random() < 0.3 else f" {low}-{low + chance.randrange(3)}"
            network = f" {chance.choice(networks)}" if chance.random() < 0.7 else ""
            rules.append(f"{chance.choice(('udp', 'tcp', 'any'))}{network}{ports}")
        chosen = permits(rules)
        number = filters.add(chosen, local=True)
        for family, hosts in (
            (socket.AF_INET, ["127.0.0.1", "127.0.0.2", "127.0.0.7"]),
            (socket.AF_INET6, ["::1"]),
        ):
            with socket.socket(family, UDP) as owned:
                filters.own(owned.fileno(), number)
                for host in hosts:
                    port = chance.randrange(7000, 7010)
                    expected = permitted(chosen, 17, ip_address(host), port)
                    assert sends(owned, host, port) == expected, (rules, host, port)
                    answers.add((family, expected))
        filters.remove(number)
    assert len(answers) == 4


def test_services_of_the_own_host_are_out_of_reach(filters: EmissionFilter, here: Namespace) -> None:
    """Each is refused, whatever the rules permit."""
    here.run("ip addr add 192.0.2.1/24 dev lo")
    number = filters.add(None)
    with socket.socket(socket.AF_INET, UDP) as owned:
        filters.own(owned.fileno(), number)
        assert not sends(owned, "127.0.0.1", 22) and not sends(owned, "192.0.2.1", 22)
        assert filters.counts(number) == (0, 2)


def test_rules_read_as_they_are_written() -> None:
    texts = ["tcp 443", "udp 192.0.2.0/24 5060-5070", "any 2001:db8::/32", "any", "tcp 0-1", "udp ::1/128 53"]
    assert [str(rule) for rule in permits(texts)] == texts
    assert permits(["tcp 192.0.2.1"])[0] == Permit(6, permits(["any 192.0.2.1/32"])[0].network)


@pytest.mark.parametrize(
    "wrong",
    [
        "tcp",
        7,
        [7],
        ["icmp"],
        ["tcp 70000"],
        ["tcp 9-8"],
        ["tcp 1-2-3"],
        ["tcp 192.0.2.1/24"],
        ["udp x"],
        ["tcp 1 2"],
        ["tcp ::1 1 2"],
        [""],
        ["any"] * (MAX_RULES + 1),
    ],
)
def test_wrong_rules_are_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="is expected"):
        permits(wrong)


MOUNTS = """\
30 1 0:27 / /sys/fs/cgroup ro shared:1 - tmpfs tmpfs ro
31 30 0:28 /machine/one /sys/fs/cgroup/a\\040b rw - cgroup2 none rw
32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 none rw
"""


@pytest.mark.parametrize(
    ("inside", "found"),
    [
        ("/", "/sys/fs/cgroup/unified"),
        ("/machine/one", "/sys/fs/cgroup/a b"),
        ("/machine/one/x", "/sys/fs/cgroup/a b/x"),
        ("/machine/ones", "/sys/fs/cgroup/unified/machine/ones"),
        ("/system.slice/locum.service", "/sys/fs/cgroup/unified/system.slice/locum.service"),
    ],
)
def test_the_control_group_of_a_process(tmp_path: Path, inside: str, found: str) -> None:
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(MOUNTS)
    own.write_text(f"9:name=systemd:/x\n0::{inside}\n")
    assert own_directory(mounts, own) == Path(found)


def test_no_control_group_of_version_2(tmp_path: Path) -> None:
    mounts, own = tmp_path / "mountinfo", tmp_path / "cgroup"
    mounts.write_text(MOUNTS.splitlines()[0] + "\n")
    for words in ("0::/\n", "4:memory:/\n"):
        own.write_text(words)
        with pytest.raises(DataPlaneError, match="mount one with"):
            own_directory(mounts, own)
