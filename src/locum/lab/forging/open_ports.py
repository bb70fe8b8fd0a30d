"""Listening sockets of a node by the kernel's tables (`ss`): the targets of an attack.

Sockets on the loopback interface only are left out, as no other host can reach them.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from locum.lab.errors import LabError
from locum.lab.forging.forgery import ICMP, Port
from locum.lab.world import Lab

_FRAMES = "[2048]"  # a packet socket for IPv4 frames of one interface: agent discovery listens there


def open_ports(lab: Lab, node: str, four: IPv4Address, six: IPv6Address) -> list[Port]:
    """Every open port of a node; one that listens everywhere is attacked at these addresses.

    A raw socket for IPv4 frames of an interface counts as ICMP, the packets that it gets.
    """
    found = [*_listening(lab, node, four, six), *_raw(lab, node, four, six), *_discovery(lab, node, four)]
    return sorted(set(found), key=lambda port: port.label)


def _rows(lab: Lab, node: str, *options: str) -> list[list[str]]:
    done = lab.processes.run(node, ["ss", "--listening", "--numeric", "--no-header", *options])
    if done.returncode:
        raise LabError(f"ss at {node}: {done.stderr.strip()}")
    return [line.split() for line in done.stdout.splitlines() if line.strip()]


def _listening(lab: Lab, node: str, four: IPv4Address, six: IPv6Address) -> Iterator[Port]:
    for row in _rows(lab, node, "--tcp", "--udp"):
        for address, number in _reachable(row[4], four, six):
            yield Port(node, row[0], address, number)


def _raw(lab: Lab, node: str, four: IPv4Address, six: IPv6Address) -> Iterator[Port]:
    for row in _rows(lab, node, "--raw"):
        for address, number in _reachable(row[3], four, six):
            if not (
                row[3].startswith("*") and ip_address(address).version == 4
            ):  # an IPv6 raw socket has no IPv4
                yield Port(node, "ip", address, number)


def _discovery(lab: Lab, node: str, four: IPv4Address) -> Iterator[Port]:
    if any(row[4].startswith(_FRAMES) for row in _rows(lab, node, "--packet")):
        yield Port(node, "ip", str(four), ICMP)


def _reachable(local: str, four: IPv4Address, six: IPv6Address) -> Iterator[tuple[str, int]]:
    """The addresses and the port of a column such as "0.0.0.0:434", "*:47" or "[::ffff:10.10.21.1]:5683"."""
    host, _, number = local.rpartition(":")
    if not number.isdigit():
        raise LabError(f"ss shows a socket that is not understood: {local}")
    host = host.strip("[]").partition("%")[0]
    if host == "*":
        yield str(four), int(number)
        yield str(six), int(number)
        return
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_unspecified:
        address = four if address.version == 4 else six
    if not address.is_loopback:
        yield str(address), int(number)
