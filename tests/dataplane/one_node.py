"""One node's loaded programs, packet by packet (BPF_PROG_TEST_RUN): links out0 and lan0, and a route to everywhere."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path

from scapy.packet import Packet

from locum.dataplane import DataPlane, Limits
from locum.dataplane.kernel.libbpf import ProgramRun
from locum.dataplane.layout.maps import Outcome, Reason
from locum.roles.action_values.addresses import Addr
from tests.dataplane.namespaces import Namespace, bpffs, join

HEADER = bytes.fromhex("020000000001020000000002")


@dataclass(frozen=True, slots=True)
class Run:
    """The result for a packet. `packet` is without its Ethernet header; empty if it was dropped or held."""

    outcome: Outcome
    reason: Reason
    packet: bytes
    mark: int

    @property
    def way(self) -> Addr | Outcome | Reason:
        """The end of the tunnel that it went into, the reason if it was dropped, else the outcome."""
        if self.outcome is Outcome.DROPPED:
            return self.reason
        if self.outcome is not Outcome.ENCAPSULATED:
            return self.outcome
        return IPv4Address(self.packet[16:20]) if self.packet[0] >> 4 == 4 else ip_address(self.packet[24:40])


class OneNode:
    """The node `space` with its plane."""

    def __init__(self, space: Namespace, plane: DataPlane) -> None:
        self.space, self.plane = space, plane
        self.links = {name: plane._attachments.find(name) or 0 for name in ("out0", "lan0")}
        self.links["tap"] = plane._device.ifindex
        names = {"out0": "out0", "lan0": "lan0", "tap": plane._device.name}
        self._hardware = {
            link: bytes.fromhex(
                space.run(f"ip -o link show {name}").split("link/ether ")[1].split()[0].replace(":", "")
            )
            for link, name in names.items()
        }
        self._runs = {
            hook: ProgramRun(plane._object.program(f"locum_{hook}")) for hook in ("ingress", "egress")
        }

    def run(
        self,
        packet: Packet | bytes,
        link: str = "out0",
        hook: str = "ingress",
        *,
        entered: str | None = None,
        mark: int = 0,
        source: bytes = HEADER[6:],
        receiver: bytes | None = None,
    ) -> Run:
        """Run a packet (from its IP header on) through the program at `hook` of `link`."""
        data = bytes(packet)
        ethertype = b"\x08\x00" if data[0] >> 4 == 4 else b"\x86\xdd"
        _, out, context, _ = self._runs[hook].run(
            (receiver or self._hardware[link]) + source + ethertype + data,
            ifindex=self.links[link],
            ingress_ifindex=self.links[entered] if entered else 0,
            mark=mark,
        )
        outcome, reason = struct.unpack_from("II", context, 48)
        gone = Outcome(outcome) in (Outcome.DROPPED, Outcome.HELD)
        (marked,) = struct.unpack_from("I", context, 8)
        return Run(Outcome(outcome), Reason(reason), b"" if gone else out[14:], marked)


@contextmanager
def one_node(directory: Path, limits: Limits | None = None) -> Iterator[OneNode]:
    """The namespace, wired; everything is removed afterwards."""
    with ExitStack() as stack:
        root = stack.enter_context(bpffs(directory / "bpf"))
        space, other = Namespace("one"), Namespace("one-other")
        stack.callback(space.remove)
        stack.callback(other.remove)
        join(space, "out0", other, "out1")
        join(space, "lan0", other, "lan1")
        space.run("ip addr add 10.2.0.200/24 dev out0")
        space.run("ip addr add fd02::200/64 dev out0 nodad")
        space.run("ip addr add 10.3.0.1/24 dev lan0")
        space.run("ip addr add fd03::1/64 dev lan0 nodad")
        space.run("ip route add default via 10.2.0.254")
        space.run("ip -6 route add default via fd02::254")
        stack.enter_context(space.inside())
        plane = DataPlane.open(
            "one",
            ["out0", "lan0"],
            bpf_root=root,
            limits=limits or Limits(bindings=1024, flows=1024),
        )
        stack.callback(plane.remove)
        yield OneNode(space, plane)
