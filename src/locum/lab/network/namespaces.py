"""Makes a topology real: namespaces, veth links, addresses, routes and token buckets, by iproute2.

Commands go to `ip -batch` one namespace at a time, which builds the whole of Fig. 5 in well under a second.
"""

import json
import subprocess
from collections.abc import Iterable, Sequence

from locum.lab.errors import LabError
from locum.lab.network import machines
from locum.lab.network.place import LabPlace
from locum.lab.network.radio import Frames, Listening, SleepyRadio
from locum.lab.network.topology import HOME_NETWORK4, HOME_NETWORK6, MTU, Link, Node, Place, Topology

BURST = 16_000
"""Bytes of a token bucket's burst: small enough that a segmentation-offload packet is cut to link size first."""
QUEUE = 2_000_000
"""Bytes that wait before a token bucket drops: above any window that the ten downloads of fig06-many open."""

RECEIVE_BUFFER = "4096 131072 6291456"
"""Bytes of a TCP receive buffer, least, default and most, as Debian 12's kernel has them. Kernels with a larger limit
take back in one round data for which a user's device needs several."""

UNKNOWN_PORTS = "61000 65535"
"""Ephemeral ports for which tshark 4.0 knows no protocol: from port 54328 a datagram of a test stream was taken for
Elasticsearch, and for a broken one."""

_ARRIVED = 100
"""Number of the routing table for packets that arrive at the home agent's host."""


def run(command: Sequence[str], stdin: str | None = None) -> str:
    """Run a tool to its end and return its output. Raises LabError with its error message."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
    except FileNotFoundError:
        raise LabError(
            f"{command[0]} is not installed; `make setup` installs the lab's requirements"
        ) from None
    if done.returncode:
        complaint = (done.stderr or done.stdout).strip()
        raise LabError(f"{' '.join(command)} failed: {complaint}" + (f"\n{stdin}" if stdin else ""))
    return done.stdout


def inside(place: LabPlace, node: str) -> list[str]:
    """The prefix that runs a command in a node's network namespace and nothing else of it: /sys stays.

    A node that is a machine of its own (`machines.py`) has its files too.
    """
    return machines.enter(place, node) or ["nsenter", f"--net={place.namespace_path(node)}", "--"]


class Network:
    """The real network of one lab."""

    def __init__(self, place: LabPlace, topology: Topology) -> None:
        self.place = place
        self.topology = topology
        self._radios: dict[str, SleepyRadio] = {}

    def build(self) -> None:
        """Everything up; raises LabError on the first refusal (the caller removes the place)."""
        for node in self.topology.nodes:
            run(["ip", "netns", "add", self.place.namespace(node.name)])
            self._batch(node.name, ["link set lo up"])
            self._sysctls(node)
        self._ip_batch(None, (self._veth(link) for link in self.topology.links))
        for node in self.topology.nodes:
            self._batch(node.name, self._interface_commands(node))
            self._batch(node.name, self._route_commands(node))
        for link in self.topology.links:
            self._shape(link)

    def _veth(self, link: Link) -> str:
        near, far = link.near, link.far
        return (
            f"link add name {near.interface} mtu {MTU} netns {self.place.namespace(near.node)} type veth "
            f"peer name {far.interface} mtu {MTU} netns {self.place.namespace(far.node)}"
        )

    def _sysctls(self, node: Node) -> None:
        forwards = int(node.forwards)
        settings: dict[str, int | str] = {
            "net.ipv4.ip_forward": forwards,
            "net.ipv6.conf.all.forwarding": forwards,
            "net.ipv6.conf.default.forwarding": forwards,
            "net.ipv6.conf.default.accept_dad": 0,
            "net.ipv6.conf.default.accept_ra": 0,
            "net.ipv6.conf.default.router_solicitations": 0,
            "net.ipv4.conf.all.rp_filter": 0,
            "net.ipv4.conf.default.rp_filter": 0,
            "net.ipv4.tcp_rmem": RECEIVE_BUFFER,
        }
        if node.place is not Place.STRANGER:  # which opens thousands of connections, to ports that are known
            settings["net.ipv4.ip_local_port_range"] = UNKNOWN_PORTS
        run(
            [*inside(self.place, node.name), "sysctl", "-q", "-e"]
            + [f"{key}={value}" for key, value in settings.items()]
        )

    def _interface_commands(self, node: Node) -> Iterable[str]:
        for link, own, _opposite in self.topology.links_of(node.name):
            if own.host:
                yield f"addr add {link.address4(own)} dev {own.interface}"
                yield f"addr add {link.address6(own)} dev {own.interface} nodad"
                if node.place is Place.STRANGER:  # the kernel chooses neither for what does not ask for it
                    yield f"addr add {self.topology.broken4(node.name)}/32 dev {own.interface}"
                    six = self.topology.broken6(node.name)
                    yield f"addr add {six}/128 dev {own.interface} nodad preferred_lft 0"
            yield f"link set {own.interface} up"

    def _route_commands(self, node: Node) -> Iterable[str]:
        for route in self.topology.routes(node.name):
            yield f"route add {route.prefix or 'default'} via {route.via}"
        if node.name == self.topology.home:
            # A packet to an unbound home address must not circle between HA and router. Answers of the daemon have a route.
            yield f"route add unreachable {HOME_NETWORK6}"
            yield f"route add unreachable {HOME_NETWORK4} table {_ARRIVED}"
            for _link, own, _opposite in self.topology.links_of(node.name):
                yield f"rule add to {HOME_NETWORK4} iif {own.interface} lookup {_ARRIVED}"

    def _shape(self, link: Link) -> None:
        if link.rate is None:
            return
        for own, _opposite in link.ends if link.radio else link.ends[:1]:
            command = [
                "tc",
                "qdisc",
                "replace",
                "dev",
                own.interface,
                "root",
                "tbf",
                "rate",
                f"{link.rate}bit",
            ]
            run([*inside(self.place, own.node), *command, "burst", str(BURST), "limit", str(QUEUE)])

    def set_radio(self, access_node: str, up: bool) -> None:
        """Cut or restore a radio link for real: both interfaces go down, or come up."""
        link = self.topology.radio(access_node)
        for own, _opposite in link.ends:
            self._batch(own.node, [f"link set {own.interface} {'up' if up else 'down'}"])

    def fade(self, access_node: str, silent: bool) -> None:
        """Let a radio link lose everything in both directions with its carrier unchanged, or restore it."""
        link = self.topology.radio(access_node)
        if not silent:
            self._shape(link)
            return
        for own, _opposite in link.ends:
            run(
                [
                    *inside(self.place, own.node),
                    "tc",
                    "qdisc",
                    "replace",
                    "dev",
                    own.interface,
                    "root",
                    "blackhole",
                ]
            )

    def listen(self, access_node: str, listening: Listening | None) -> None:
        """Let the device's end of a radio link listen in slots, or lose frames by chance; None: as it was."""
        radio = self._radios.get(access_node)
        if listening is None:
            if radio is not None:
                self._radios.pop(access_node).close()
            return
        if radio is None:
            far = self.topology.radio(access_node).far
            pins = self.place.bpf_root / f"radio-{far.interface}"
            radio = self._radios[access_node] = SleepyRadio(inside(self.place, far.node), far.interface, pins)
        radio.listen(listening)

    def heard(self, access_node: str) -> Frames:
        """Frames of a radio that `listen` has changed."""
        return self._radios[access_node].frames()

    def lose(self, access_node: str, percent: int) -> None:
        """Let a radio link lose so many of 100 frames in each direction, at random, from now on. Stock nftables."""
        for own, _opposite in self.topology.radio(access_node).ends:
            chain = f'type filter hook egress device "{own.interface}" priority 0'
            rules = "table netdev loss\ndelete table netdev loss\n"
            if percent:
                rules += (
                    f"table netdev loss {{\n chain out {{\n  {chain}; policy accept;\n"
                    f"  numgen random mod 100 < {percent} counter drop\n }}\n}}\n"
                )
            run([*inside(self.place, own.node), "nft", "-f", "-"], stdin=rules)

    def radio_frames(self, access_node: str) -> int:
        """Frames both ends of a radio link have sent and received so far, by the interfaces' own counters."""
        total = 0
        for own, _opposite in self.topology.radio(access_node).ends:
            base = f"/sys/class/net/{own.interface}/statistics"
            total += sum(self._counter(own.node, f"{base}/{name}") for name in ("rx_packets", "tx_packets"))
        return total

    def _counter(self, node: str, path: str) -> int:
        """Read one sysfs counter; sysfs shows the interfaces of the namespace it was mounted in."""
        shell = f"mount -t sysfs none /sys && cat {path}"
        return int(run([*inside(self.place, node), "unshare", "--mount", "sh", "-c", shell]))

    def index(self, node: str, interface: str) -> int:
        """The number of an interface in its namespace, as captures have it."""
        links = json.loads(
            run(["ip", "-n", self.place.namespace(node), "-j", "link", "show", "dev", interface])
        )
        return int(links[0]["ifindex"])

    def _batch(self, node: str, commands: Iterable[str]) -> None:
        self._ip_batch(self.place.namespace(node), commands)

    @staticmethod
    def _ip_batch(namespace: str | None, commands: Iterable[str]) -> None:
        lines = "".join(f"{command}\n" for command in commands)
        if lines:
            run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], stdin=lines)
