"""The mobile node vanishes: at the end of its lifetime its packets go to the default CoA (R2)."""

import struct

from locum.lab.captures import pcap
from locum.lab.configuration import Plan
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06_crash import start_stream
from locum.lab.world import Lab

LIFETIME = 6
SHORT = 2
PORT = 7003
RATE = 100
REGISTRATION_PORT = 434
REPLY = 3


class Fig06Expiry(Scenario):
    """The radio is cut while the mobile node is registered, without a deregistration."""

    name = "fig06-expiry"
    title = "the mobile node vanishes; at the end of its lifetime the default CoA takes over"
    plan = Plan(lifetime=LIFETIME, short_lifetime=SHORT)

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        probes = start_stream(lab, PORT, RATE)
        lab.pause(1.0)
        self.vanished = lab.cut()
        lab.pause(LIFETIME + 3.0)
        probes.stop()

    def judge(self, lab: Lab, checks: Checks) -> None:
        files = lab.captures.files
        granted, lifetime = max(
            (datagram.time, struct.unpack_from("!H", datagram.transport, 10)[0])
            for datagram in pcap.datagrams(files["ha"])
            if datagram.outgoing and accepted(datagram)
        )
        end = granted + lifetime
        at_mobile = stream.arrivals(files["mn"], PORT)
        at_stand_in = stream.arrivals(files["mnps"], PORT)
        first = min(at_stand_in.values(), default=float("inf"))
        checks.more_than("probes_before", len(at_mobile), RATE // 2, "packets")
        checks.equal("lifetime_granted", lifetime, LIFETIME, "s")
        checks.at_most("vanished_before_expiry_s", self.vanished - end, 0.0, "s")
        checks.at_least("not_before_expiry_s", first - end, -0.1, "s")
        checks.at_most("default_coa_after_expiry_s", first - end, 1.0, "s")
        late = [
            number
            for number, time in stream.arrivals(files["cn"], PORT, outgoing=True).items()
            if time > end + 1
        ]
        checks.equal(
            "probes_lost_after", len([number for number in late if number not in at_stand_in]), 0, "packets"
        )
        checks.more_than("probes_after", len(at_stand_in), RATE, "packets")


def accepted(datagram: pcap.Datagram) -> bool:
    """True for a Registration Reply with code 0 or 1 (RFC 5944 section 3.4)."""
    if datagram.protocol != pcap.UDP or datagram.ports[0] != REGISTRATION_PORT:
        return False
    message = datagram.transport[8:]
    return len(message) >= 20 and message[0] == REPLY and message[1] in (0, 1)
