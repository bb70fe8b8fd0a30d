"""SYNs to a port of a sleeping device: fields read, plain SYNs made of them, and refusals."""

import contextlib
from collections.abc import Sequence
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from locum.wire.errors import WireError
from locum.wire.flow import Flow
from locum.wire.ip.opening import Opening
from locum.wire.ip.packet import build_tcp
from locum.wire.ip.transport import TcpFlag

HOME, PEER = ip_address("10.9.0.5"), ip_address("10.1.0.2")
FLOW = Flow(6, HOME, 80, PEER, 40000)
USUAL = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)]


def syn(options: Sequence[object], flags: str = "S", payload: bytes = b"") -> bytes:
    header = IP(src=str(PEER), dst=str(HOME)) / TCP(
        sport=40000, dport=80, seq=0xFFFFFFFF, flags=flags, window=64240, options=options
    )
    return bytes(header / payload)


def test_a_usual_syn_becomes_plain() -> None:
    opening = Opening.parse(syn(USUAL, "SEC"))
    assert opening == Opening(FLOW, 0xFFFFFFFF, 64240, mss=1460, sack=True)
    plain = IP(opening.plain())
    assert str(plain[TCP].flags) == "S"
    assert [name for name, _ in plain[TCP].options] == ["MSS", "NOP", "NOP", "SAckOK"]
    assert (plain[TCP].seq, plain[TCP].window, plain.src, plain.dst) == (
        0xFFFFFFFF,
        64240,
        str(PEER),
        str(HOME),
    )
    assert Opening.parse(opening.plain()) == opening


def test_reset_acknowledges_the_syn() -> None:
    for payload in (b"", b"fast open"):
        reset = IP(Opening.parse(syn([], payload=payload)).refusal())
        assert str(reset[TCP].flags) == "RA"
        assert (reset[TCP].seq, reset[TCP].ack) == (0, len(payload))  # 2 ** 32 - 1 + 1 + payload
        assert (reset.src, reset.dst, reset[TCP].sport, reset[TCP].dport) == (str(HOME), str(PEER), 80, 40000)


def test_ipv6_and_a_syn_without_options() -> None:
    packet = IPv6(src="fd01::2", dst="fd09::5") / TCP(sport=1, dport=2, flags="S", seq=5)
    opening = Opening.parse(bytes(packet))
    assert (opening.mss, opening.sack) == (None, False)
    assert IPv6(opening.plain())[TCP].options == []
    assert IPv6(opening.refusal())[TCP].ack == 6


@pytest.mark.parametrize("flags", ["A", "SA", "R", "SR", "F"])
def test_only_a_syn_opens(flags: str) -> None:
    with pytest.raises(WireError):
        Opening.parse(syn(USUAL, flags))


@given(st.binary(max_size=40))
def test_options_of_any_bytes_are_read(data: bytes) -> None:
    padded = data + bytes(-len(data) % 4)
    opening = Opening.parse(build_tcp(FLOW, seq=1, ack=0, flags=TcpFlag.SYN, options=padded))
    assert Opening.parse(opening.plain()) == opening


@given(st.binary(max_size=100))
def test_anything_is_a_syn_or_an_error(data: bytes) -> None:
    with contextlib.suppress(WireError):
        Opening.parse(data)
