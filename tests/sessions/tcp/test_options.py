"""Options of a program's socket: the stand-in serves the connection with them, and the program finds its own again."""

import socket
from dataclasses import replace
from pathlib import Path

import pycddl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from locum.sessions import record as record_module
from locum.sessions.carried import CarriedOptions
from locum.sessions.tcp import carrying, drop, repair, restore
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.parked import Intent
from locum.wire import cbor, control
from locum.wire.errors import WireError
from tests.sessions.ends import Program, connect
from tests.sessions.lodging import lodging
from tests.sessions.program import payload
from tests.sessions.sleepworld import Network, World

both = pytest.mark.parametrize("version", [4, 6])
TCP = socket.IPPROTO_TCP
NAMES = {4: (socket.SOL_IP, 1, 2), 6: (socket.IPPROTO_IPV6, 67, 16)}
schema = pycddl.Schema("start = socket-options\n" + record_module.cddl() + control.cddl())

options = st.builds(
    CarriedOptions,
    traffic_class=st.integers(0, 255),
    hop_limit=st.none() | st.integers(1, 255),
    no_delay=st.booleans(),
    congestion=st.none() | st.sampled_from(["cubic", "bbr", "x-y_z"]),
    user_timeout=st.integers(0, 0x7FFFFFFF),
)


def set_option(program: Program, level: int, name: int, value: int | str) -> None:
    assert program.ask("option", level, name, value) == "done"


@both
def test_the_stand_in_serves_as_the_program_would(world: World, version: int) -> None:
    level, traffic_class, hop_limit = NAMES[version]
    program, peer = connect(world, version)
    for where, name, value in (
        (level, traffic_class, 0xB8),
        (level, hop_limit, 33),
        (TCP, socket.TCP_NODELAY, 1),
        (TCP, socket.TCP_CONGESTION, "reno"),
    ):
        set_option(program, where, name, value)
    (record,) = world.sleep()
    assert record.options == CarriedOptions(0xB8, 33, True, "reno", 77000)
    there = world.away[0].socket
    assert there.getsockopt(level, traffic_class) & 0xFC == 0xB8
    assert there.getsockopt(level, hop_limit) == 33
    assert there.getsockopt(TCP, socket.TCP_NODELAY) == 1
    assert there.getsockopt(TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0") == b"reno"
    assert there.getsockopt(TCP, socket.TCP_USER_TIMEOUT) == 77000
    assert peer.send(payload(1, 100))
    world.until(lambda: world.away[0].spool.total == 100)
    world.wake()
    assert program.ask("receive", 100).startswith("100 ")
    assert program.ask("options") == "1 77000"


def test_congestion_control_missing_at_the_stand_in(world: World) -> None:
    program, peer = connect(world, 4)
    (record,) = world.sleep()
    away = world.away[0]
    drop(away.socket)
    told: list[str] = []
    with world.network.inside("standin"):
        unknown = replace(record, options=replace(record.options, congestion="nobody-has-it"))
        away.socket = restore(unknown, lacking=told.append)
    assert told == ["congestion control nobody-has-it"]
    assert peer.send(payload(1, 100))
    world.until(lambda: away.spool.total == 100)
    world.wake()
    assert program.ask("receive", 100).startswith("100 ")


@given(options)
def test_round_trip_and_cddl(value: CarriedOptions) -> None:
    encoded = cbor.encode(value.to_cbor())
    assert CarriedOptions.from_cbor(cbor.decode(encoded, limit=100, field="o"), "o") == value
    schema.validate_cbor(encoded)


@given(st.dictionaries(st.integers(0, 7), st.none() | st.integers(-9, 1 << 40) | st.text(max_size=20)))
def test_other_options_are_a_wire_error(body: dict[int, object]) -> None:
    try:
        CarriedOptions.from_cbor(body, "session-record.options")
    except WireError as error:
        assert error.field.startswith("session-record")


def test_capture_is_undone_from_a_read_state(world: World) -> None:
    """The daemon was killed in the capture: only the state read before it is stored."""
    program, peer = connect(world, 4)
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    stored = live.look().to_json()
    assert program.ask("options") == "1 77000" and not repair.in_repair(live.socket)
    world.freezer.freeze(candidate.processes)
    live.capture()
    assert live.socket.getsockopt(TCP, socket.TCP_USER_TIMEOUT) != 77000
    live.close()
    live = LiveSocket.open(candidate, Intent.from_json(stored))
    live.resume()
    reuse = live.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    live.close()
    world.freezer.thaw(candidate.processes)
    assert (program.ask("options"), reuse) == ("1 77000", 0)
    assert peer.send(payload(1, 100))
    assert program.ask("receive", 100).startswith("100 ")


def test_a_multipath_connection_is_refused_by_name(world: World) -> None:
    _, _peer = connect(world, 4)
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    live.socket.close()
    live.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    with pytest.raises(SessionError, match=r"Multipath TCP|CLOSE"):
        live.look()
    live.close()


def test_a_signed_connection_is_refused_by_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some kernels refuse such keys; others report them."""
    _, _peer = connect(world, 4)
    (candidate,) = world.candidates()
    live = LiveSocket.open(candidate)
    assert not repair.has_authentication(live.socket)
    monkeypatch.setattr(repair, "TCP_AO_INFO", socket.TCP_NODELAY)  # one that this kernel answers
    with pytest.raises(SessionError, match="TCP-AO"):
        live.look()
    live.close()


async def test_stand_in_names_an_option_missing_in_its_kernel(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lodging(network, tmp_path) as here:
        (one,) = here.connect()
        (tmp_path / "has").write_text("reno")
        one.device.setsockopt(TCP, socket.TCP_CONGESTION, b"cubic")
        monkeypatch.setattr(carrying, "_LOADED", tmp_path / "has")
        restored = await here.take_over([one])
        assert not restored.failures
        (told,) = [event for event in here.told if event.kind == "session-differs"]
        assert (told.flow, told.detail) == (one.flow, {"lacks": "congestion control cubic"})


def test_keep_alive_settings_beyond_the_socket_options(world: World) -> None:
    """A record says as much as a program could ask for."""
    names = ("time", "intvl", "probes")
    usual = dict(zip(names, (7200, 75, 9), strict=True))
    try:
        for name, value in zip(names, (86400, 40000, 200), strict=True):
            world.network.sysctl("device", f"net.ipv4.tcp_keepalive_{name}={value}")
        connect(world, 4)
        (record,) = world.sleep()
        assert record.keepalive == (32767, 32767, 127)
        world.wake()
    finally:
        for name, value in usual.items():
            world.network.sysctl("device", f"net.ipv4.tcp_keepalive_{name}={value}")
