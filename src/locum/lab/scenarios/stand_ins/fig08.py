"""Fig. 8: a stand-in with a co-located care-of address, no foreign agent on its side (R4, R9).

The access node of Fig. 7 is an ordinary router here: no daemon runs on it, and no context goes there.
"""

from collections import Counter
from ipaddress import IPv4Address
from typing import ClassVar

from locum.lab.captures import pcap
from locum.lab.configuration import Plan, merged
from locum.lab.report.checks import Checks
from locum.lab.scenarios.stand_ins.fig07 import Fig07, told
from locum.lab.steps.flow_checks import IPIP
from locum.lab.steps.stand_ins import Registering, registering
from locum.lab.world import Lab, Sleep

ASLEEP = 5.2
ADVERTISEMENT = b"\x09"
"""ICMP type: router advertisement (RFC 5944 section 2.1)."""


class Fig08(Fig07):
    """Fig. 7 with a tunnel of the stand-in's registration that ends in the stand-in itself."""

    name = "fig08"
    title = "the stand-in registers with a care-of address of its own"
    stand_in: ClassVar[Registering] = Registering("mnps", bid=1, colocated=True)
    plan: ClassVar[Plan] = Plan(
        default_coa=False,
        tables={
            **registering(stand_in),
            "mnps": merged(registering(stand_in)["mnps"], {"mnps": {"access_node": stand_in.address}}),
        },
        routers=("an3",),
    )

    def _look(self, lab: Lab) -> None:
        """There is no context here."""

    def _settle(self, lab: Lab) -> None:
        """No tunnel 620 has to end."""

    def _end(self, lab: Lab) -> IPv4Address:
        return lab.topology.address4("mnps")

    def _sleep(self, lab: Lab) -> Sleep:
        return lab.sleep(ASLEEP, [self.download.program])

    def _judge_context(self, lab: Lab, checks: Checks) -> None:
        """The home agent's tunnels pass the router and end at the stand-in; there is no foreign agent."""
        agent, own = lab.topology.address4("ha"), lab.topology.address4("mnps")
        there = [lab.topology.address4("an3", link) for link in lab.topology.interfaces("an3")]
        left = [datagram for datagram in pcap.datagrams(lab.captures.files["ha"]) if datagram.outgoing]
        tunnels = Counter(datagram.destination for datagram in left if datagram.protocol == IPIP)
        came = [datagram for datagram in pcap.datagrams(lab.captures.files["mnps"]) if not datagram.outgoing]
        arrived = sum(
            (datagram.protocol, datagram.source, datagram.destination) == (IPIP, agent, own)
            for datagram in came
        )
        checks.more_than("tunnel_packets_at_stand_in", arrived, 0, "packets")
        checks.equal("tunnel_packets_arrived", arrived, tunnels[own], "packets")
        checks.equal("tunnel_packets_to_router", sum(tunnels[tunnel] for tunnel in there), 0, "packets")
        advertised = sum(
            datagram.protocol == pcap.ICMP and datagram.transport[:1] == ADVERTISEMENT for datagram in came
        )
        checks.equal("agents_advertised_to_stand_in", advertised, 0, "messages")
        at_router = (
            datagram for datagram in pcap.datagrams(lab.captures.files["an3"]) if not datagram.outgoing
        )
        checks.equal(
            "packets_for_router_itself",
            sum(datagram.destination in there for datagram in at_router),
            0,
            "packets",
        )
        checks.equal("stand_in_told_618", told(lab, "notified", "618", "mnps"), 0, "messages")
