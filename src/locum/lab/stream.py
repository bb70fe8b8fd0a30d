"""A numbered stream of UDP datagrams, to find out which packets a crash loses.

Run inside a node's namespace: `python -m locum.lab.stream ADDRESS PORT RATE SECONDS`. The numbers that arrive are
read from the capture of the node where they should, so that no program has to listen there.
"""

import socket
import struct
import sys
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

from locum.lab import pcap

MAGIC = b"LOCUM-N"
PAYLOAD = 64


def send(address: str, port: int, rate: int, seconds: float) -> int:
    """Send `rate` datagrams a second, evenly spaced. Returns how many went out."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    begin = time.monotonic()
    number = 0
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        while (ahead := number / rate) < seconds:
            pause = begin + ahead - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            sender.sendto((MAGIC + struct.pack("!I", number)).ljust(PAYLOAD, b"."), (address, port))
            number += 1
    return number


def arrivals(file: Path, port: int, *, outgoing: bool = False) -> dict[int, float]:
    """When each number of the stream to `port` first arrived at a node (or left it), by its capture."""
    first: dict[int, float] = {}
    for time_, number in _numbers(pcap.datagrams(file), port, outgoing):
        first.setdefault(number, time_)
    return first


def numbers(file: Path, port: int, *, outgoing: bool) -> set[int]:
    """The numbers of the stream to `port` that left a node, or arrived at it, by its capture."""
    return set(arrivals(file, port, outgoing=outgoing))


def _numbers(datagrams: Iterable[pcap.Datagram], port: int, outgoing: bool) -> Iterator[tuple[float, int]]:
    for datagram in datagrams:
        if datagram.protocol != pcap.UDP or datagram.outgoing != outgoing or len(datagram.transport) < 19:
            continue
        if datagram.ports[1] == port and datagram.transport[8:15] == MAGIC:
            yield datagram.time, int.from_bytes(datagram.transport[15:19], "big")


if __name__ == "__main__":
    print(send(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
