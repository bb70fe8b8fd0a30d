"""The exchange that fast paging saves is that of the full registration, read from packets at the device's radio."""

import struct

from bench.fast_paging import BRIEF, Heard, Page, registration, remarks

UDP, TCP, REQUEST, REPLY, CALL, FULL = 17, 6, 1, 3, 255, 300


def heard(
    time: float, outgoing: bool, kind: int, lifetime: int = FULL, port: int = 434, protocol: int = UDP
) -> Heard:
    ports = (5000, port) if outgoing else (port, 5000)
    header = bytes((0x45, *[0] * 8, protocol, *[0] * 10))
    return Heard(time, outgoing, header + struct.pack("!HHHHBBH", *ports, 12, 0, kind, 0, lifetime))


def test_full_registration_is_found_among_others() -> None:
    packets = [
        heard(0.1, False, CALL),
        heard(0.2, True, REQUEST, BRIEF),
        heard(0.3, False, REPLY, BRIEF),
        heard(0.4, False, REPLY),
        heard(0.5, True, REQUEST, port=9000),
        heard(0.6, True, REQUEST, protocol=TCP),
        heard(1.0, True, REQUEST),
        heard(2.0, True, REQUEST),
        heard(2.5, False, REPLY, BRIEF),
        heard(3.0, False, REPLY),
    ]
    assert registration(packets) == (1.0, 3.0)


def test_registration_without_reply_is_none() -> None:
    assert registration([heard(1.0, True, REQUEST)]) is None
    assert registration([heard(1.0, False, REPLY)]) is None
    assert registration([Heard(1.0, True, heard(1.0, True, REQUEST).packet[:29])]) is None


def test_remarks_count_the_exchanges_that_are_won() -> None:
    fast, plain = [Page(10, 12, 20), Page(11, 12, 20)], [Page(31, 12, 20), Page(34, 12, 20)]
    told = remarks(fast, plain)
    assert "fast wins 22.00 ms" in told and "takes 8.00 ms (2.75 exchanges)" in told, told
    assert "2 of 2 packets came before the reply" in told and "2 of 2 of the baseline after" in told, told
