"""The baseline's silence is read from acknowledgements of payload only."""

from ipaddress import IPv4Address

from bench.gaps import progress
from locum.lab.captures import pcap

CN, MN = IPv4Address("10.10.1.10"), IPv4Address("10.10.100.4")


def acknowledgement(time: float, number: int, port: int = 5000, flags: int = pcap.ACK) -> pcap.Segment:
    return pcap.Segment(time, False, MN, port, CN, 80, 1, number, flags, 0)


def test_handshakes_and_duplicate_acks_are_no_progress() -> None:
    heard = [
        acknowledgement(0.0, 0, flags=pcap.SYN),
        acknowledgement(1.0, 101),
        acknowledgement(2.0, 1101),
        acknowledgement(2.5, 1101),
        acknowledgement(8.0, 7001, port=5001),
        acknowledgement(8.5, 8001, port=5001),
        acknowledgement(8.6, 901),
    ]
    assert list(progress(heard)) == [2.0, 8.5]


def test_progress_goes_on_when_sequence_numbers_wrap() -> None:
    heard = [acknowledgement(1.0, 0xFFFFFF00), acknowledgement(2.0, 0x100), acknowledgement(3.0, 0xFFFFFF80)]
    assert list(progress(heard)) == [2.0]


def test_segments_of_the_server_are_no_progress() -> None:
    sent = pcap.Segment(1.0, True, CN, 80, MN, 5000, 1, 5, pcap.ACK, 100)
    assert list(progress([sent, sent])) == []
