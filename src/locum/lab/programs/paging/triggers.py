"""One datagram to each of many addresses: `python -m locum.lab.programs.paging.triggers PORT RATE`, with the addresses as input."""

import socket
import sys
import time
from collections.abc import Iterable

PAYLOAD = b"trigger"


def send(addresses: Iterable[str], port: int, rate: int) -> None:
    """Send `rate` datagrams a second, one to each address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        begin = time.monotonic()
        for number, address in enumerate(addresses):
            time.sleep(max(0.0, begin + number / rate - time.monotonic()))
            sender.sendto(PAYLOAD, (address, port))


if __name__ == "__main__":
    send(sys.stdin.read().split(), int(sys.argv[1]), int(sys.argv[2]))
