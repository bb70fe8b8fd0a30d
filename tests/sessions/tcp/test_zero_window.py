"""A peer whose connection has no kernel for a while gets answers with a zero window, and stays alive (C3)."""

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address

import pytest

from locum.dataplane.layout.maps import MARK_ANSWER
from locum.node.sessions.peer_answers import PeerAnswers, Take
from locum.sessions.tcp.final_state import FinalTcp
from locum.sessions.tcp.live import LiveSocket
from locum.sessions.tcp.zero_window import Silence, answer
from locum.wire.flow import Flow
from locum.wire.ip import TcpFlag, TcpSegment, build_tcp, decode_ip
from tests.sessions.ends import connect, digest
from tests.sessions.program import payload
from tests.sessions.sleepworld import HOME4, HOME6, World

_ETH_P_ALL = 3
_PACKET_OUTGOING = 4
FLOWS = [
    Flow(6, IPv4Address("10.0.0.9"), 40000, IPv4Address("10.9.0.1"), 80),
    Flow(6, IPv6Address("2001:db8::9"), 40000, IPv6Address("2001:db8:9::1"), 80),
]
HERE = 5000  # the peer's next sequence number


def segment(packet: bytes | Silence) -> TcpSegment:
    assert isinstance(packet, bytes)
    return TcpSegment.decode(decode_ip(packet)[1])


@pytest.mark.parametrize("flow", FLOWS, ids=["4", "6"])
def test_data_and_probes_are_answered_with_no_room(flow: Flow) -> None:
    data = build_tcp(flow, seq=HERE, ack=777, flags=TcpFlag.ACK, tsval=41, tsecr=12, payload=b"x" * 100)
    probe = build_tcp(flow, seq=HERE - 1, ack=778, flags=TcpFlag.ACK, tsval=42, tsecr=12)
    for packet, sequence, echo in ((data, 777, 41), (probe, 778, 42)):
        said = segment(answer(flow, packet, HERE, 9000))
        assert (said.source_port, said.destination_port) == (flow.local_port, flow.peer_port)
        assert (said.sequence, said.acknowledgement, said.window) == (sequence, HERE, 0)
        assert said.timestamps == (9000, echo) and said.flags == TcpFlag.ACK and not said.payload


def test_a_connection_without_timestamps_gets_none() -> None:
    packet = build_tcp(FLOWS[0], seq=HERE - 1, ack=1, flags=TcpFlag.ACK)
    assert segment(answer(FLOWS[0], packet, HERE, None)).timestamps is None
    assert segment(answer(FLOWS[0], packet, HERE, 5)).timestamps is None


def test_segments_that_get_no_answer() -> None:
    flow = FLOWS[0]
    bare = build_tcp(flow, seq=HERE, ack=1, flags=TcpFlag.ACK)
    assert answer(flow, bare, HERE, None) == Silence()  # else two such ends would answer each other for ever
    assert answer(flow, bare[:30], HERE, None) == Silence()
    reset = build_tcp(flow, seq=HERE, ack=1, flags=TcpFlag.RST)
    assert answer(flow, reset, HERE, None) == Silence(ended=True)
    assert answer(flow, reset, HERE + 1, None) == Silence()  # a forged one has to guess the number
    fin = build_tcp(flow, seq=HERE, ack=1, flags=TcpFlag.FIN | TcpFlag.ACK)
    assert segment(answer(flow, fin, HERE, None)).acknowledgement == HERE
    wrapped = build_tcp(flow, seq=0xFFFFFFFF, ack=1, flags=TcpFlag.ACK)
    assert segment(answer(flow, wrapped, 0, None)).acknowledgement == 0


class Wire:
    """The device's data plane: it holds packets of one flow, which no socket gets."""

    def __init__(self, world: World) -> None:
        with world.network.inside("device"):
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._tap.bind(("e0", 0))
        self._take: Take | None = None

    def divert(self, _flow: Flow, take: Take | None) -> None:
        self._take = take

    def run(self, world: World, seconds: float) -> int:
        """So much time passes; how many packets were answered or ignored."""
        until, count = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            if not select.select([self._tap], [], [], left)[0]:
                break
            packet, (_, _, kind, *_) = self._tap.recvfrom(1 << 16)
            if kind != _PACKET_OUTGOING and self._take is not None and _is_tcp(packet):
                with world.network.inside("device"):
                    self._take(packet)
                count += 1
        return count

    def close(self) -> None:
        self._tap.close()


def _is_tcp(packet: bytes) -> bool:
    return (packet[9] if packet[0] >> 4 == 4 else packet[6]) == socket.IPPROTO_TCP


@contextmanager
def held(world: World) -> Iterator[tuple[LiveSocket, Wire]]:
    """The program's only connection, captured, with its flow suspended but for marked answers."""
    net = world.network
    (found,) = world.candidates()
    assert not world.freezer.freeze(found.processes)
    net.nft("device", "add chain inet hold unmarked { type filter hook output priority 1; }")
    for family, home in (("ip", HOME4), ("ip6", HOME6)):
        unmarked = f"{family} saddr {home} meta l4proto tcp meta mark != {MARK_ANSWER:#x}"
        net.nft("device", f"add rule inet hold unmarked {unmarked} drop")
    net.block("device", "in")
    live, wire = LiveSocket.open(found), Wire(world)
    try:
        live.capture()
        yield live, wire
    finally:
        net.nft("device", "flush chain inet hold unmarked")
        wire.close()
        live.close()


@pytest.mark.parametrize("version", [4, 6])
def test_real_peer_survives_longer_than_its_unanswered_probes(world: World, version: int) -> None:
    program, peer = connect(world, version)
    world.network.sysctl("peer", "net.ipv4.tcp_retries2=3")
    data = payload(1, 300_000)
    try:
        with held(world) as (live, wire):
            answers = PeerAnswers(wire.divert, MARK_ANSWER)
            answers.begin(live, live.expected(0, peer_closed=False))
            peer.send(data)
            assert wire.run(world, 6.0) >= 4
            assert peer.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            state, probes = peer.info()[0], struct.unpack_from("=B", peer.info(), 3)[0]
            assert state == 1 and probes <= 1, "the peer is about to give up"
            answers.end(live.flow)
            _give_back(world, live)
            program.begin("receive", len(data))
            world.until(lambda: peer.send(data) or program.answered())
            assert program.answer() == f"{len(data)} {digest((1, len(data)))} more"
    finally:
        world.network.sysctl("peer", "net.ipv4.tcp_retries2=15")


def _give_back(world: World, live: LiveSocket) -> None:
    """Without the nudge the peer would learn of the room with its next probe only."""
    net = world.network
    net.nft("device", "flush chain inet hold unmarked")
    with net.inside("device"):
        net.deliver(live.finish(FinalTcp(received=0)))
    net.unblock("device", "in")
    net.deliver(live.nudge())
    world.freezer.thaw(world.freezer.frozen)
