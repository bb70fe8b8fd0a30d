"""Steps of a person with one rented server and a laptop: commands on both, networks that the laptop comes into.

No configuration is written here: the hosts are fresh machines (`lab/network/machines.py`), and `locum` alone changes them.
"""

import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from locum.lab.captures import pcap
from locum.lab.errors import LabError
from locum.lab.network.namespaces import inside, run
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab, locum

PORT = 51820
"""Of WireGuard (UDP) and of enrolment (TCP)."""
UDP_TIMEOUT = 30
"""Seconds after which a router forgets a UDP mapping that is quiet."""
_CODE = re.compile(r"\b[0-9A-Z]{4}(?:-[0-9A-Z]{2,4}){3,}\b")


@dataclass(slots=True)
class Person:
    """Types commands on the hosts of a lab; each one that sets something up is counted."""

    lab: Lab
    commands: list[str] = field(default_factory=list)
    watching: list[Program] = field(default_factory=list)

    def does(self, node: str, *arguments: str, patience: float = 60.0) -> str:
        """A command that sets something up. Raises LabError with its complaint when it fails."""
        self.commands.append(f"{node}: locum {' '.join(arguments)}")
        return self.asks(node, *arguments, patience=patience)

    def asks(self, node: str, *arguments: str, patience: float = 60.0) -> str:
        """Any other command."""
        done = self.lab.processes.run(node, [*locum(), *arguments], patience)
        if done.returncode:
            complaint = (done.stderr or done.stdout).strip()
            raise LabError(f"locum {' '.join(arguments)} at {node} ended with {done.returncode}: {complaint}")
        return done.stdout

    def invites(self, name: str) -> str:
        """`locum server invite`; returns the code that it prints."""
        found = _CODE.search(text := self.does("srv", "server", "invite", name))
        if found is None:
            raise LabError(f"locum server invite printed no code: {text.strip()}")
        return found[0]

    def status(self, node: str) -> dict[str, Any]:
        """`locum status -j`."""
        value: dict[str, Any] = json.loads(self.asks(node, "-j", "status"))
        return value

    def watches(self, *nodes: str) -> None:
        """Write the events of these nodes, as `locum monitor -j` prints them, into the run's records from now on."""
        for node in nodes:
            file = self.lab.output / "events" / f"{node}.jsonl"
            with file.open("ab") as sink:
                command = [*locum(), "-j", "monitor"]
                program = self.lab.processes.start(node, f"monitor-{node}", command, stdout=sink.fileno())
            self.watching.append(program)

    def home_addresses(self, node: str) -> list[IPv4Address | IPv6Address]:
        """The home addresses of a device, as its status has them."""
        mobile = self.status(node)["mobile_node"]
        return [ip_address(text) for text in (mobile["home_address"], mobile.get("home_address_v6")) if text]


def translates(lab: Lab, router: str, ports: str = "") -> None:
    """Let a router translate to its own address, as routers of homes and cafés do; `ports` are those that it takes."""
    to = f" to :{ports}" if ports else ""
    chain = "type nat hook postrouting priority srcnat; policy accept;"
    which = "meta l4proto { tcp, udp } " if ports else ""
    rules = f"table ip nat\ndelete table ip nat\ntable ip nat {{\n chain out {{\n  {chain}\n"
    rules += f"  oifname wan0 {which}masquerade{to}\n }}\n}}\n"
    prefix = inside(lab.place, router)
    run([*prefix, "nft", "-f", "-"], rules)
    names = ("nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream")
    run([*prefix, "sysctl", "-q", *(f"net.netfilter.{name}={UDP_TIMEOUT}" for name in names)])


def restarts(lab: Lab, router: str) -> float:
    """A router starts anew: other mappings on another address of its provider. Returns the time."""
    namespace = lab.place.namespace(router)
    own = lab.topology.address4(router, "wan0")
    translates(lab, router, "20000-20999")
    at = lab.timeline.mark("router-restarts", router=router)
    gateway = IPv4Address(int(own) - 1)
    run(["ip", "-n", namespace, "addr", "add", f"{own + 1}/24", "dev", "wan0"])
    run(["ip", "-n", namespace, "addr", "del", f"{own}/24", "dev", "wan0"])
    run(["ip", "-n", namespace, "route", "replace", "default", "via", str(gateway), "dev", "wan0"])
    return at


def comes(lab: Lab, node: str, router: str, *, metric: int = 100) -> float:
    """A device comes into a router's network: link, address and default route, as by DHCP. Returns when they are there."""
    link = next(link for link, own, _far in lab.topology.links_of(router) if _far.node == node)
    namespace, interface = lab.place.namespace(node), link.far.interface
    for end, name in ((router, link.near.interface), (node, interface)):
        run(["ip", "-n", lab.place.namespace(end), "link", "set", name, "up"])
    address = link.network4.network_address + 4
    run(["ip", "-n", namespace, "addr", "replace", f"{address}/24", "dev", interface])
    gateway = str(link.address4(link.near).ip)
    way = ["default", "via", gateway, "dev", interface, "metric", str(metric)]
    run(["ip", "-n", namespace, "route", "replace", *way])
    return lab.timeline.mark("comes-into-network", node=node, router=router)


def leaves(lab: Lab, node: str, router: str) -> float:
    """The device's link to a router goes down. Returns the time."""
    link = next(link for link, _own, far in lab.topology.links_of(router) if far.node == node)
    run(["ip", "-n", lab.place.namespace(node), "link", "set", link.far.interface, "down"])
    run(["ip", "-n", lab.place.namespace(node), "addr", "flush", "dev", link.far.interface])
    return lab.timeline.mark("leaves-network", node=node, router=router)


def daemon_of(lab: Lab, node: str) -> list[int]:
    """The processes of `locum node run` on a node."""
    found = []
    for pid in lab.place.processes_of(node):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if b"node" in words and b"run" in words:
            found.append(pid)
    return found


def in_the_clear(lab: Lab, nodes: tuple[str, ...]) -> Counter[str]:
    """Packets at these routers that are neither WireGuard nor enrolment nor of the links themselves, by kind.

    Each router forwards between a device and the server only.
    """
    seen: Counter[str] = Counter()
    for node in nodes:
        for one in pcap.datagrams(lab.captures.files[node]):
            if one.protocol in (pcap.TCP, pcap.UDP) and PORT in one.ports:
                continue
            if one.source.is_link_local or one.destination.is_multicast or one.source.is_loopback:
                continue
            if one.protocol == pcap.ICMP and one.transport[:1] == b"\x03":
                continue  # a router that has just started anew knows no mapping
            seen[f"{node}: {one.source} -> {one.destination} protocol {one.protocol}"] += 1
    return seen


def wait_registered(person: Person, node: str, since: float, patience: float = 20.0) -> float:
    """Until a device says that it is registered; returns the seconds since then."""

    def registered() -> bool:
        try:
            return bool(person.status(node)["mobile_node"]["care_of"])
        except LabError:
            return False

    wait_until(f"{node} to be registered", registered, patience)
    return time.time() - since
