"""One packet as an event, with information left by the device (P15)."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from locum.roles.action_values.event_tables import PACKETS_A_SECOND, PacketsSeen, SeenPacket, WatchPackets
from locum.roles.mnps.paging.packets import MAX_TEXT, packet_event
from locum.wire.control import Flow
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import Condition, Entry, Operator, Pattern
from locum.wire.errors import WireError
from locum.wire.ip.headers import Ipv4Header
from locum.wire.ip.packet import build_ip, build_udp, fragment
from tests.roles.mnps.paging.table_bench import HOA, HOA6, PAGE, Bench, entry, table

PEER, PEER6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8:9::1")


def udp(payload: bytes, port: int = 5000, source: object = PEER, home: object = HOA) -> bytes:
    return build_udp(Flow(17, home, port, source, 4000), payload)  # type: ignore[arg-type]


def fragments(payload: bytes) -> list[bytes]:
    """The two parts of a datagram that was too large."""
    whole = Ipv4Header(PEER, HOA, 17, identification=7).encode(udp(payload)[20:])
    return fragment(whole, 1000)


def seen(*packets: bytes, left_out: int = 0) -> PacketsSeen:
    return PacketsSeen((HOA,), tuple(SeenPacket(packet[:128], len(packet)) for packet in packets), left_out)


def test_datagram_has_its_fields() -> None:
    packet = udp(b"ALARM cellar 7")
    assert packet_event(SeenPacket(packet, len(packet))) == ApplicationEvent(
        "packet",
        "udp",
        {
            "source": "192.0.2.1",
            "destination": str(HOA),
            "length": 42,
            "source_port": 4000,
            "destination_port": 5000,
            "text": "ALARM cellar 7",
        },
    )


@pytest.mark.parametrize("size", [0, 1, 86, 87, 100, 101, 1400])
def test_cut_packet_has_the_text_that_is_there(size: int) -> None:
    packet = udp(b"x" * size)
    event = packet_event(SeenPacket(packet[:128], len(packet)))
    assert event.detail["length"] == len(packet)
    assert event.detail.get("text", "") == "x" * min(size, MAX_TEXT, 100)


def test_text_ends_where_it_is_not_printable() -> None:
    packet = udp("Grüße\n\x00tail".encode())
    assert packet_event(SeenPacket(packet, len(packet))).detail["text"] == "Grüße\n"
    packet = udp(b"\x00\x01")
    assert "text" not in packet_event(SeenPacket(packet, len(packet))).detail


def test_tcp_icmp_and_ipv6_packets_are_events() -> None:
    syn = build_ip(PEER, HOA, 6, bytes((15, 160, 0, 22)) + bytes(8) + b"\x50\x02" + bytes(6))
    event = packet_event(SeenPacket(syn, len(syn)))
    assert (event.kind, event.detail["destination_port"]) == ("tcp", 22)
    echo = build_ip(PEER, HOA, 1, b"\x08\x00" + bytes(6))
    assert packet_event(SeenPacket(echo, len(echo))).detail["type"] == 8
    six = udp(b"hello", source=PEER6, home=HOA6)
    event = packet_event(SeenPacket(six, len(six)))
    assert (event.kind, event.detail["source"], event.detail["text"]) == ("udp", str(PEER6), "hello")
    other = build_ip(PEER, HOA, 89, b"ospf")
    assert packet_event(SeenPacket(other, len(other))).kind == "89"


def test_later_fragment_has_no_ports() -> None:
    first, later = fragments(b"y" * 1400)
    assert packet_event(SeenPacket(first, len(first))).detail["destination_port"] == 5000
    detail = packet_event(SeenPacket(later, len(later))).detail
    assert detail["fragment"] is True and "destination_port" not in detail and "text" not in detail


@pytest.mark.parametrize("size", range(0, 60))
def test_cut_anywhere_it_is_an_event_or_an_error(size: int) -> None:
    packet = udp(b"z" * 30)
    try:
        event = packet_event(SeenPacket(packet[:size], len(packet)))
    except WireError:
        assert size < 20
    else:
        assert event.app == "packet"


def test_table_that_names_packets_has_them_reported() -> None:
    bench = Bench()
    bench.changed(table(5, entry()))
    assert bench.watched == []
    bench.changed(table(6, entry(app="packet", kind="udp")))
    assert bench.watched == [WatchPackets((HOA,), PACKETS_A_SECOND)]
    bench.watched.clear()
    bench.restart()
    assert bench.watched == [WatchPackets((HOA,), PACKETS_A_SECOND)]
    bench.changed(table(7, entry()))
    assert bench.watched[-1] == WatchPackets((HOA,), 0)


def test_packet_with_the_left_word_pages_the_device() -> None:
    word = Condition("text", Operator.CONTAINS, "word", left=True)
    port = Condition("destination_port", Operator.EQUAL, 5000)
    wanted = Entry(1, (Pattern("packet", "udp", (word, port)),), (PAGE,))
    bench = Bench()
    bench.changed(table(5, wanted, information={"word": "ALARM"}))
    bench.tell(seen(udp(b"ALARM")))
    assert not bench.pages and bench.counts == {"event-awake": 1}
    bench.sleep()
    bench.tell(seen(udp(b"all is well"), udp(b"ALARM", 5001)))
    assert not bench.pages
    bench.tell(seen(udp(b"ALARM cellar"), left_out=3))
    assert len(bench.pages) == 1 and bench.pages[0].event.detail["text"] == "ALARM cellar"
    assert bench.counts["packet-events-limited"] == 3


def test_unreadable_packet_is_counted() -> None:
    bench = Bench()
    bench.changed(table(5, entry(app="packet", kind="*")))
    bench.sleep()
    bench.tell(PacketsSeen((HOA,), (SeenPacket(b"", 0), SeenPacket(b"\x45" + bytes(10), 11))))
    assert (
        not bench.pages
        and sum(n for name, n in bench.counts.items() if name.startswith("packet-event-")) == 2
    )
    bench.tell(PacketsSeen((ip_address("10.50.0.77"),), (SeenPacket(udp(b"x"), 29),)))
    assert not bench.pages
