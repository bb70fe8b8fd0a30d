"""Connections of a home address that are not captured: each is named with its program and the reason, or has ended."""

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from locum.sessions.programs.exclusions import DEFAULT_PROGRAMS, NOTHING_EXCLUDED, Exclusions
from locum.sessions.programs.freezer import unified_root
from locum.sessions.record import TcpState
from locum.sessions.search.diag import Socket
from locum.sessions.search.find import LeftAlone, find, find_elsewhere, why_left
from locum.sessions.search.translated import REASON
from locum.wire.control import Flow
from tests.sessions.sleepworld import HOME4, HOME6, PEER4, Network, World, run

PORT = 7200
CONNECT = f"import socket, time; s = socket.create_connection(('{PEER4}', {PORT})); "
WAIT = "print('ok', flush=True); time.sleep(1000)"
MPTCP = 262
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def listener(world: World) -> Iterator[socket.socket]:
    with world.network.inside("peer"), socket.create_server((PEER4, PORT)) as made:
        made.settimeout(20)
        yield made


@pytest.fixture
def start(world: World, tmp_path: Path) -> Iterator[Start]:
    """A Python program on the device, under a name; it has printed its first line when this returns."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(name: str, code: str, namespace: str = "device") -> subprocess.Popen[bytes]:
        file = tmp_path / name
        if not file.exists():
            file.symlink_to(Path(sys.executable).resolve())
        process = world.network.start(
            namespace, str(file), "-S", "-c", code, stdout=subprocess.PIPE, stdin=subprocess.PIPE
        )
        started.append(process)
        assert process.stdout and process.stdout.readline() == b"ok\n"
        return process

    yield begin
    for popen in started:
        popen.kill()
        popen.wait()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    """Of these tests alone: connections that other tests leave behind may take minutes to end."""
    made = Network()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def quiet(world: World) -> None:
    """The connections of the test before have ended."""
    world.until(lambda: look(world) == ([], []))


def look(
    world: World, exclusions: Exclusions = NOTHING_EXCLUDED
) -> tuple[list[tuple[str, ...]], list[LeftAlone]]:
    """Programs of capturable connections, and connections left alone."""
    with world.network.inside("device"):
        candidates, left = find((HOME4, HOME6), {os.getpid()}, exclusions)
        return [candidate.programs for candidate in candidates], left + find_elsewhere((HOME4, HOME6))


def accept(listener: socket.socket) -> socket.socket:
    accepted, _ = listener.accept()
    return accepted


def test_sockets_of_the_daemon_are_not_reported(world: World, listener: socket.socket) -> None:
    with world.network.inside("device"):
        ours = socket.create_connection((PEER4, PORT))
        own = socket.create_server((str(HOME4), 7300))
    assert look(world) == ([], [])
    for sock in (own, ours, accept(listener)):
        sock.close()


def test_a_connection_that_is_being_opened(world: World, start: Start) -> None:
    world.network.block("device", "out")
    connect = f"s = socket.socket(); s.setblocking(False); s.connect_ex(('{PEER4}', {PORT})); "
    program = start("browser", "import socket, time; " + connect + WAIT)
    candidates, (left,) = look(world)
    assert not candidates and left.state is TcpState.SYN_SENT
    assert left.programs == ("browser",) and left.pids == (program.pid,)
    assert "still being opened" in left.reason and "repeats its SYN" in left.reason
    world.network.unblock("device", "out")


def test_connections_in_the_queue_of_a_listening_program(world: World, start: Start) -> None:
    for address in (str(HOME4), "::"):
        version = socket.AF_INET6 if address == "::" else socket.AF_INET
        code = f"import socket, time; s = socket.create_server(('{address}', 7300), family={version:d}, dualstack_ipv6={address == '::'}); "
        server = start("webserver", code + WAIT)
        with world.network.inside("peer"), socket.create_connection((str(HOME4), 7300)):
            candidates, (left,) = look(world)
        assert not candidates
        assert (left.programs, left.pids) == (("webserver",), (server.pid,))
        assert left.reason == "its program has not accepted it yet"
        server.kill()
        server.wait()


def test_closed_connection_without_unsent_data_is_not_reported(
    world: World, start: Start, listener: socket.socket
) -> None:
    start("quick", CONNECT + "s.close(); " + WAIT)
    accepted = accept(listener)
    assert accepted.recv(1) == b"", "its FIN is here"
    world.until(lambda: look(world) == ([], []))
    accepted.close()


def test_unacknowledged_data_of_a_closed_connection(
    world: World, start: Start, listener: socket.socket
) -> None:
    writes = (
        "print('ok', flush=True); input(); s.send(b'x'); s.close(); print('ok', flush=True); time.sleep(1000)"
    )
    program = start("hasty", CONNECT + writes)
    accepted = accept(listener)
    world.network.block("device", "out")
    assert program.stdin and program.stdout
    program.stdin.write(b"\n")
    program.stdin.flush()
    assert program.stdout.readline() == b"ok\n"
    candidates, (left,) = look(world)
    assert not candidates and left.state is TcpState.FIN_WAIT1
    assert "closed it" in left.reason and not left.pids
    world.network.unblock("device", "out")
    accepted.close()


def test_every_upper_protocol_is_a_reason() -> None:
    """kTLS is a kernel module that not every machine has, so the decision alone is looked at."""
    flow = Flow(6, HOME4, 40000, ip_address(PEER4), PORT)
    for upper, words in (("tls", "kTLS"), ("mptcp", "Multipath TCP"), ("smc", "smc")):
        assert words in (why_left(Socket(flow, TcpState.ESTABLISHED, 7, upper)) or "")
    assert why_left(Socket(flow, TcpState.ESTABLISHED, 7)) is None


def test_a_connection_with_md5_keys_stays(world: World, start: Start) -> None:
    """RFC 2385, as routers use it for BGP: both ends need the key before the handshake."""
    key = "import struct; s.setsockopt(6, 14, struct.pack('=HH4s120xHHI80s', 2, 0, socket.inet_aton('{}'), 0, 3, 0, b'key')); "
    with world.network.inside("peer"), socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(6, 14, struct.pack("=HH4s120xHHI80s", 2, 0, HOME4.packed, 0, 3, 0, b"key"))
        listener.bind((PEER4, PORT))
        listener.listen()
        connect = (
            f"import socket, time; s = socket.socket(); {key.format(PEER4)}s.connect(('{PEER4}', {PORT})); "
        )
        program = start("bird", connect + WAIT)
        accepted, _ = listener.accept()
    candidates, (left,) = look(world)
    assert not candidates and (left.programs, left.pids) == (("bird",), (program.pid,))
    assert "TCP-MD5" in left.reason
    accepted.close()


def test_multipath_tcp_is_named_with_its_program(world: World, start: Start) -> None:
    with world.network.inside("peer"), socket.socket(proto=MPTCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((PEER4, PORT))
        listener.listen()
        connect = f"import socket, time; s = socket.socket(proto={MPTCP}); s.connect(('{PEER4}', {PORT})); "
        program = start("phone", connect + WAIT)
        accepted, _ = listener.accept()
    candidates, (left,) = look(world)
    assert not candidates and (left.programs, left.pids) == (("phone",), (program.pid,))
    assert "Multipath TCP" in left.reason
    accepted.close()


@pytest.mark.parametrize("name", ["NetworkManager", "systemd-resolved", "gnome-session-binary", "openvpn"])
def test_programs_that_get_a_device_online_are_excluded(
    world: World, start: Start, listener: socket.socket, name: str
) -> None:
    start(name, CONNECT + WAIT)
    start("ssh", CONNECT + WAIT)
    candidates, (left,) = look(world, Exclusions())
    assert candidates == [("ssh",)]
    assert left.reason.startswith("program ") and left.reason.endswith(" is excluded")
    assert left.programs == (name[:15],)


def test_exclusions_by_port_program_user_and_unit(
    world: World, start: Start, listener: socket.socket
) -> None:
    program = start("mail", CONNECT + "import os; os.setuid(65534); " + WAIT)
    root = unified_root()
    assert root is not None
    unit = root / f"mail-{os.getpid()}.service"
    unit.mkdir()
    (unit / "cgroup.procs").write_text(str(program.pid))
    for exclusions, reason in (
        (Exclusions(ports=frozenset({PORT})), f"port {PORT} is excluded"),
        (Exclusions(programs=("m?il",)), "program mail is excluded"),
        (Exclusions(users=frozenset({65534})), "user 65534 is excluded"),
        (Exclusions(units=("mail-*.service",)), f"unit {unit.name} is excluded"),
        (Exclusions(units=(unit.stem,)), f"unit {unit.name} is excluded"),
    ):
        candidates, (left,) = look(world, exclusions)
        assert not candidates and left.reason == reason
    others = Exclusions(("mai", "mail-x"), frozenset({1}), ("x.service",), frozenset({PORT + 1}))
    assert look(world, others) == ([("mail",)], [])
    program.kill()
    program.wait()
    unit.rmdir()


def test_program_behind_address_translation_is_named(
    world: World, start: Start, listener: socket.socket
) -> None:
    """A container on a bridge: its connection leaves under the home address, and no socket here has that."""
    network = world.network
    inner = f"{network.prefix}-inner"
    network.names["inner"] = inner
    try:
        run("ip", "netns", "add", inner)
        network.ip("device", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", inner)
        network.ip("device", "address", "add", "172.31.9.1/24", "dev", "c0")
        network.ip("device", "link", "set", "c0", "up")
        network.ip("inner", "address", "add", "172.31.9.2/24", "dev", "eth0")
        network.ip("inner", "link", "set", "eth0", "up")
        network.ip("inner", "route", "add", "default", "via", "172.31.9.1")
        network.sysctl("device", "net.ipv4.ip_forward=1")
        network.nft("device", "add table ip nat")
        network.nft("device", "add chain ip nat out { type nat hook postrouting priority 100; }")
        network.nft("device", f"add rule ip nat out ip saddr 172.31.9.0/24 snat to {HOME4}")
        program = start("containerised", CONNECT + WAIT, "inner")
        accepted = accept(listener)
        candidates, (left,) = look(world)
        assert not candidates and left.reason == REASON
        assert (left.programs, left.pids) == (("containerised",), (program.pid,))
        assert (left.flow.local, left.flow.local_port) == (HOME4, accepted.getpeername()[1])
        assert left.flow.peer_port == PORT
        accepted.close()
        program.kill()
        program.wait()
    finally:
        network.nft("device", "delete table ip nat")
        run("ip", "netns", "del", inner)
        del network.names["inner"]


def test_a_connection_of_the_home_address_with_itself(world: World, start: Start) -> None:
    code = f"s = socket.create_server(('{HOME4}', 7300)); c = socket.create_connection(('{HOME4}', 7300)); a = s.accept(); "
    program = start("selfish", "import socket, time; " + code + WAIT)
    candidates, left = look(world)
    assert not candidates and {session.reason for session in left} == {"both of its ends are on this host"}
    assert {(session.programs, session.pids) for session in left} == {(("selfish",), (program.pid,))}
    program.kill()
    program.wait()


def test_default_exclusions_spare_common_programs() -> None:
    for name in (
        "ssh",
        "sshd",
        "firefox",
        "curl",
        "python3",
        "node",
        "rsync",
        "psql",
        "code",
        "git",
        "mosh-client",
        "mount",
        "rpcclient",
    ):
        assert not Exclusions().excludes(name, name)
    assert all(
        Exclusions().excludes(default_program[:15], default_program) for default_program in DEFAULT_PROGRAMS
    )
