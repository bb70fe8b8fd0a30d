"""A numbered stream of UDP datagrams, to find out which packets a crash or a move loses, and whether they stay in order.

Run inside a node's namespace: `python -m locum.lab.programs.stream ADDRESS PORT RATE SECONDS [SIZE [INTERFACE_ADDRESS [FLOWS]]]`:
an interface's address is for a multicast group, else it is "-". The numbers that arrive are read from the capture of the
node where they should, so that no program has to listen there.
"""

import errno
import math
import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

from locum.lab.captures import pcap

MAGIC = b"LOCUM-N"
PAYLOAD = 64


def send(
    address: str,
    port: int,
    rate: int,
    seconds: float,
    size: int = PAYLOAD,
    via: str | None = None,
    flows: int = 1,
) -> int:
    """Send `rate` datagrams a second of `size` bytes, evenly spaced. Returns their number.

    One that the host has no route for is lost at once.

    A multicast group is sent to by the interface that has the address `via`. Several `flows` have source ports of their
    own and take turns.
    """
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    begin = time.monotonic()
    number = 0
    with ExitStack() as stack:
        senders = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(flows)]
        for sender in senders if via is not None else ():
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(str(via)))
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
        while (ahead := number / rate) < seconds:
            pause = begin + ahead - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            datagram = (MAGIC + struct.pack("!I", number)).ljust(size, b".")
            try:
                senders[number % flows].sendto(datagram, (address, port))
            except OSError as error:
                if error.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH):  # lost like others
                    raise
            number += 1
    return number


def arrivals(file: Path, port: int, *, outgoing: bool = False) -> dict[int, float]:
    """Time at which each number of the stream to `port` first passed a node, by its capture."""
    return first_times(pcap.datagrams(file), port, outgoing=outgoing)


def first_times(datagrams: Iterable[pcap.Datagram], port: int, *, outgoing: bool = False) -> dict[int, float]:
    """Time at which each number of the stream to `port` is first among these datagrams."""
    first: dict[int, float] = {}
    for time_, number in _numbers(datagrams, port, outgoing):
        first.setdefault(number, time_)
    return first


def longest_overtaken(times: Mapping[int, float]) -> float:
    """The longest time, in seconds, between a datagram and a later one that came before it; 0: all came in their order.

    `times` has the time of arrival of each number.
    """
    longest, earliest_later = 0.0, math.inf
    for number in sorted(times, reverse=True):
        longest = max(longest, times[number] - earliest_later)
        earliest_later = min(earliest_later, times[number])
    return longest


def numbers(file: Path, port: int, *, outgoing: bool) -> set[int]:
    """The numbers of the stream to `port` that left a node, or arrived at it, by its capture."""
    return set(arrivals(file, port, outgoing=outgoing))


def order(file: Path, port: int) -> list[int]:
    """The numbers of the stream to `port` as they arrived at a node, repetitions included, by its capture."""
    return [number for _, number in _numbers(pcap.datagrams(file), port, False)]


def _numbers(datagrams: Iterable[pcap.Datagram], port: int, outgoing: bool) -> Iterator[tuple[float, int]]:
    for datagram in datagrams:
        if datagram.protocol != pcap.UDP or datagram.outgoing != outgoing or len(datagram.transport) < 19:
            continue
        if datagram.ports[1] == port and datagram.transport[8:15] == MAGIC:
            yield datagram.time, int.from_bytes(datagram.transport[15:19], "big")


if __name__ == "__main__":
    to, number, pace, duration, *rest = sys.argv[1:]
    length, interface, many = (*rest, *(str(PAYLOAD), "-", "1")[len(rest) :])
    print(
        send(
            to,
            int(number),
            int(pace),
            float(duration),
            int(length),
            None if interface == "-" else interface,
            int(many),
        )
    )
