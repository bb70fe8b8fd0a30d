"""A classic BPF program that lets a packet socket see UDP datagrams to some ports alone (SO_ATTACH_FILTER). It decides nothing."""

import struct
from collections.abc import Collection

from locum.wire.ip.headers import IPV4_IN_IP, IPV6_IN_IP, UDP
from locum.wire.ip.transport import UDP_HEADER_BYTES
from locum.wire.mobile_ip.registration import UDP_PORT
from locum.wire.mobile_ip.tunnel_data import TUNNEL_DATA_HEADER_BYTES

_OUTGOING = 4  # PACKET_OUTGOING
_AD_PROTOCOL, _AD_PACKET_TYPE = 0xFFFFF000, 0xFFFFF004  # SKF_AD_OFF + ...
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _LOAD_HEADER = (
    0x20,
    0x28,
    0x30,
    0xB1,
)  # absolute; the last sets X to 4 * (byte & 15)
_LOAD_HALF_X, _LOAD_BYTE_X, _ADD, _SHIFT_RIGHT, _TO_X, _FROM_X, _SET_X = (
    0x48,
    0x50,
    0x04,
    0x74,
    0x07,
    0x87,
    0x01,
)
_JUMP_EQUAL, _JUMP_MASK, _JUMP, _RETURN = 0x15, 0x45, 0x05, 0x06


class _Program:
    """Assembles classic BPF: instructions with jumps to names. All jumps go forward, within 255 instructions."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def put(self, code: int, value: int = 0, yes: str = "", no: str = "") -> None:
        self._lines.append((code, yes, no, value))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._lines)

    def assemble(self) -> bytes:
        made = b""
        for place, (code, yes, no, value) in enumerate(self._lines):
            to_yes, to_no = (self._labels[label] - place - 1 if label else 0 for label in (yes, no))
            if code == _JUMP:  # its distance is the value
                value, to_yes = to_yes, 0
            made += struct.pack("=HBBI", code, to_yes, to_no, value)
        return made


def outgoing_udp(ports: Collection[int]) -> bytes:
    """Takes outgoing UDP packets to these ports (at most 64), bare, or tunnelled in IP or in UDP to port 434.

    For a packet socket without link-layer headers (SOCK_DGRAM), as struct sock_filter after struct sock_filter.
    """
    program = _Program()
    put, label = program.put, program.label
    put(_LOAD_WORD, _AD_PACKET_TYPE)
    put(_JUMP_EQUAL, _OUTGOING, "outgoing", "reject")
    label("outgoing")
    put(_LOAD_HALF, _AD_PROTOCOL)
    put(_JUMP_EQUAL, 0x0800, "v4", "not4")
    label("not4")
    put(_JUMP_EQUAL, 0x86DD, "v6", "reject")
    label("v6")
    put(_LOAD_BYTE, 6)
    put(_SET_X, 40)
    put(_JUMP_EQUAL, UDP, "udp", "inner?")
    label("v4")
    put(_LOAD_HALF, 6)
    put(_JUMP_MASK, 0x1FFF, "reject", "first")  # a later fragment has no ports
    label("first")
    put(_LOAD_HEADER, 0)
    put(_LOAD_BYTE, 9)
    put(_JUMP_EQUAL, UDP, "udp", "inner?")
    label("udp")
    put(_LOAD_HALF_X, 2)
    for port in ports:
        put(_JUMP_EQUAL, port, "accept")
    put(_JUMP_EQUAL, UDP_PORT, "in-udp", "reject")
    label("in-udp")
    put(_FROM_X)
    put(_ADD, UDP_HEADER_BYTES + TUNNEL_DATA_HEADER_BYTES)
    put(_TO_X)
    put(_JUMP, yes="inner")
    label("inner?")
    put(_JUMP_EQUAL, IPV4_IN_IP, "inner", "inner6?")
    label("inner6?")
    put(_JUMP_EQUAL, IPV6_IN_IP, "inner", "reject")
    label("inner")
    put(_LOAD_BYTE_X, 0)
    put(_SHIFT_RIGHT, 4)  # the version
    put(_JUMP_EQUAL, 6, "inner-v6", "inner-v4")
    label("inner-v6")
    put(_LOAD_BYTE_X, 6)
    put(_JUMP_EQUAL, UDP, "ports-v6", "reject")
    label("ports-v6")
    put(_LOAD_HALF_X, 42)
    for port in ports:
        put(_JUMP_EQUAL, port, "accept")
    put(_RETURN, 0)
    label("inner-v4")
    put(_LOAD_BYTE_X, 9)
    put(_JUMP_EQUAL, UDP, "ports-v4", "reject")
    label("ports-v4")
    put(_LOAD_HALF_X, 22)  # a program's packet has no IP options worth looking past
    for port in ports:
        put(_JUMP_EQUAL, port, "accept")
    label("reject")
    put(_RETURN, 0)
    label("accept")
    put(_RETURN, 0xFFFF)
    return program.assemble()
