"""Background noise of a network for a device, in fast motion: `python -m locum.lab.programs.paging.noise WHERE ADDRESS HOURS FACTOR`.

WHERE is "outside": port scans, keep-alives and a chatty server, from the correspondent; or "link INTERFACE": ARP requests and
mDNS on the access link. One hour takes 3600 / FACTOR seconds. Prints the number of packets of each kind as JSON.
"""

import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from ipaddress import IPv4Address
from random import Random

SERVER_PORT = 1883
"""Source port of the chatty server."""
DEVICE_PORT = 40_007
"""Destination port of its datagrams."""
ALIVE_PORT = 4500
NEWS, ALERT = b"news ", b"alert "
_SCANS, _PORTS = 6, 25  # scans in an hour, and ports of each
_CHATTER, _ALERTS = 20, 3  # datagrams of the server in an hour, and those of them that matter
_ALIVE = 180
_ARP, _MDNS = 240, 60
_MDNS_GROUP = ("224.0.0.251", 5353)
_BROADCAST = b"\xff" * 6

Act = tuple[float, str, int]  # seconds of the hour, kind, number


def schedule(where: str, hours: float, seed: int = 7) -> list[Act]:
    """Acts of these hours in their order. The alerts are spread evenly, for each of them is looked for."""
    random = Random(seed)
    length = 3600 * hours
    acts: list[Act] = []

    def spread(kind: str, in_an_hour: int) -> None:
        for number in range(max(1, round(in_an_hour * hours))):
            acts.append((random.random() * length, kind, number))

    if where == "outside":
        for number in range(max(1, round(_SCANS * hours))):
            begin = random.random() * length
            acts += [(begin + port / 5, "scan", number * _PORTS + port) for port in range(_PORTS)]
        spread("alive", _ALIVE)
        spread("news", _CHATTER - _ALERTS)
        alerts = max(1, round(_ALERTS * hours))
        acts += [((number + 0.5) * length / alerts, "alert", number) for number in range(alerts)]
    else:
        spread("arp", _ARP)
        spread("mdns", _MDNS)
    return sorted(act for act in acts if act[0] <= length)


def play(acts: list[Act], factor: float, perform: Callable[[str, int], None]) -> Counter[str]:
    """Perform the acts in fast motion. Returns how many of each kind."""
    begin = time.monotonic()
    done: Counter[str] = Counter()
    for at, kind, number in acts:
        time.sleep(max(0.0, begin + at / factor - time.monotonic()))
        perform(kind, number)
        done[kind] += 1
    return done


def outside(address: str, stack: ExitStack) -> Callable[[str, int], None]:
    """Performer of acts from outside."""
    server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("", SERVER_PORT))
    peer = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def perform(kind: str, number: int) -> None:
        match kind:
            case "scan":
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
                    probe.setblocking(False)
                    probe.connect_ex((address, 1 + 40 * number % 20_000))
            case "alive":
                peer.sendto(b"\xff", (address, ALIVE_PORT))
            case "news" | "alert":
                word = ALERT if kind == "alert" else NEWS
                server.sendto(word + str(number).encode(), (address, DEVICE_PORT))

    return perform


def on_link(address: str, interface: str, stack: ExitStack) -> Callable[[str, int], None]:
    """Performer of acts on an access link."""
    raw = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    raw.bind((interface, 0x0806))
    own = raw.getsockname()[4]
    group = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    group.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())

    def perform(kind: str, number: int) -> None:
        if kind == "arp":
            asked = IPv4Address(address) + 1 + number % 50
            request = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, own, bytes(4), bytes(6), asked.packed)
            raw.send(_BROADCAST + own + b"\x08\x06" + request)
        else:
            query = (
                struct.pack("!HHHHHH", 0, 0, 1, 0, 0, 0) + b"\x05_http\x04_tcp\x05local\x00\x00\x0c\x00\x01"
            )
            group.sendto(query, _MDNS_GROUP)

    return perform


def main(arguments: Iterator[str]) -> None:
    """Play, and print the counts."""
    where = next(arguments)
    interface = next(arguments) if where == "link" else ""
    address, hours, factor = next(arguments), float(next(arguments)), float(next(arguments))
    with ExitStack() as stack:
        perform = on_link(address, interface, stack) if interface else outside(address, stack)
        print(json.dumps(play(schedule(where, hours), factor, perform)), flush=True)


if __name__ == "__main__":
    main(iter(sys.argv[1:]))
