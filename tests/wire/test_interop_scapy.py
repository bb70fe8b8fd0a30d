"""Packets that scapy's Mobile IP and ICMP layers build are understood, and it understands ours."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.mobileip import MobileIP, MobileIPRRP, MobileIPRRQ, MobileIPTunnelData
from scapy.packet import Raw

from locum.wire.ip.headers import decode_ip
from locum.wire.ip.transport import UdpDatagram
from locum.wire.mobile_ip.discovery import AgentAdvertisement, AgentFlag, AgentSolicitation
from locum.wire.mobile_ip.extensions import Authentication, AuthKind, InnerEncapsulation, Nai
from locum.wire.mobile_ip.registration import (
    Code,
    Flag,
    RegistrationReply,
    RegistrationRequest,
)
from locum.wire.mobile_ip.tunnel_data import TunnelData, keepalive
from tests.wire.strategies import replies, requests

HOME, AGENT, CARE_OF = "192.0.2.10", "192.0.2.1", "203.0.113.5"
IDENTIFICATION = 0xE8A1B2C300000001


def payload_of(packet: IP) -> bytes:
    """The UDP payload of a packet that scapy built, taken out by our own parsers."""
    _, datagram = decode_ip(bytes(packet))
    return UdpDatagram.decode(datagram).payload


def test_scapy_request_is_understood() -> None:
    extension = bytes.fromhex("2014 00000100") + bytes(16)
    packet = IP(src=HOME, dst=AGENT) / UDP(sport=434, dport=434) / MobileIP(type=1)
    packet /= MobileIPRRQ(
        flags=0x82, lifetime=300, homeaddr=HOME, haaddr=AGENT, coaddr=CARE_OF, id=IDENTIFICATION
    )
    packet /= Raw(extension)
    assert RegistrationRequest.decode(payload_of(packet)) == RegistrationRequest(
        lifetime=300,
        home_address=IPv4Address(HOME),
        home_agent=IPv4Address(AGENT),
        care_of_address=IPv4Address(CARE_OF),
        identification=IDENTIFICATION,
        flags=Flag.S | Flag.T,
        extensions=(Authentication(AuthKind.MN_HA, 256, bytes(16)),),
    )


@pytest.mark.parametrize("code", [0, 1, 64, 133, 136])
def test_scapy_reply_is_understood(code: int) -> None:
    packet = IP(src=AGENT, dst=HOME) / UDP(sport=434, dport=5000) / MobileIP(type=3)
    packet /= MobileIPRRP(code=code, lifetime=60, homeaddr=HOME, haaddr=AGENT, id=IDENTIFICATION)
    expected = RegistrationReply(Code(code), 60, IPv4Address(HOME), IPv4Address(AGENT), IDENTIFICATION)
    assert RegistrationReply.decode(payload_of(packet)) == expected


@given(requests)
def test_scapy_reads_our_request(request: RegistrationRequest) -> None:
    seen = MobileIP(request.encode())[MobileIPRRQ]
    assert (seen.flags, seen.lifetime, seen.id) == (request.flags, request.lifetime, request.identification)
    addresses = [IPv4Address(field) for field in (seen.homeaddr, seen.haaddr, seen.coaddr)]
    assert addresses == [request.home_address, request.home_agent, request.care_of_address]
    assert bytes(seen.payload) == b"".join(extension.encode() for extension in request.extensions)


@given(replies)
def test_scapy_reads_our_reply(reply: RegistrationReply) -> None:
    seen = MobileIP(reply.encode())[MobileIPRRP]
    assert (seen.code, seen.lifetime, seen.id) == (reply.code, reply.lifetime, reply.identification)
    assert [IPv4Address(seen.homeaddr), IPv4Address(seen.haaddr)] == [reply.home_address, reply.home_agent]


def test_tunnel_data_is_no_registration() -> None:
    packet = IP() / UDP(sport=434, dport=434) / MobileIP(type=4) / MobileIPTunnelData() / IP()
    with pytest.raises(ValueError, match="unknown-message"):
        RegistrationRequest.decode(payload_of(packet))


def test_scapy_tunnel_data_is_understood() -> None:
    inner = IP(src=HOME, dst=AGENT) / UDP(sport=1, dport=2) / Raw(b"x")
    packet = IP() / UDP(sport=434, dport=434) / MobileIP(type=4) / MobileIPTunnelData(nexthdr=4) / inner
    assert TunnelData.decode(payload_of(packet)) == TunnelData(InnerEncapsulation.IP, bytes(inner))


def test_scapy_reads_our_keepalive() -> None:
    message = keepalive(IPv4Address(HOME), IPv4Address(AGENT), 0x1234, 7).encode()
    seen = MobileIP(message)
    assert seen[MobileIPTunnelData].nexthdr == 4
    assert (seen[IP].src, seen[IP].dst) == (HOME, AGENT)
    echo = seen[ICMP]
    assert (echo.type, echo.code, echo.id, echo.seq) == (8, 0, 0x1234, 7)


def test_scapy_solicitation_is_understood() -> None:
    packet = IP(dst="224.0.0.2", ttl=1) / ICMP(type=10, code=0)
    _, message = decode_ip(bytes(packet))
    assert AgentSolicitation.decode(message) == AgentSolicitation()


def test_scapy_advertisement_is_understood() -> None:
    address = IPv4Address(CARE_OF)
    body = address.packed + bytes(4)  # router address, preference 0
    body += bytes.fromhex("100a 0007 0708 9100") + address.packed + bytes.fromhex("130118")
    packet = IP(dst="224.0.0.1", ttl=1) / ICMP(type=9, code=16, unused=0x01020708) / Raw(body)
    _, message = decode_ip(bytes(packet))
    assert AgentAdvertisement.decode(message) == AgentAdvertisement(
        lifetime=1800,
        addresses=((address, 0),),
        sequence=7,
        registration_lifetime=1800,
        flags=AgentFlag.R | AgentFlag.F | AgentFlag.T,
        care_of_addresses=(address,),
        prefix_lengths=(24,),
        routes_common_traffic=False,
    )


def test_scapy_agrees_with_our_icmp_checksums() -> None:
    address = IPv4Address(CARE_OF)
    advertisement = AgentAdvertisement(
        3, ((address, 5),), 1, 600, AgentFlag.F, (address,), (24,), b"\xcc" * 5
    )
    for message in (advertisement.encode(), AgentSolicitation().encode()):
        seen = ICMP(message)
        assert seen.type in (9, 10)
        given_sum = seen.chksum
        del seen.chksum
        assert ICMP(bytes(seen)).chksum == given_sum


def test_nai_after_scapy_header() -> None:
    packet = MobileIP(type=1) / MobileIPRRQ(homeaddr="0.0.0.0", haaddr=AGENT, coaddr=CARE_OF, id=1)
    message = RegistrationRequest.decode(bytes(packet) + Nai("mn@home.example").encode())
    assert message.find(Nai) == Nai("mn@home.example")
