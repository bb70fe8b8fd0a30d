"""The mobile node deregisters, as its daemon does when it is stopped for good: the default CoA takes over (R2)."""

import struct

from locum.lab.captures import pcap
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06_crash import start_stream
from locum.lab.scenarios.sleep.fig06_expiry import accepted
from locum.lab.world import Lab

PORT = 7003
RATE = 100


class Fig06Deregistration(Scenario):
    """A stream of packets runs while the mobile node registers with lifetime 0."""

    name = "fig06-deregistration"
    title = "the mobile node deregisters; the default CoA takes over"

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        probes = start_stream(lab, PORT, RATE)
        lab.pause(1.0)
        lab.daemons["mn"].stop(20)
        self.gone = lab.timeline.mark("stopped", daemon="mn")
        lab.pause(1.5)
        probes.stop()

    def judge(self, lab: Lab, checks: Checks) -> None:
        files = lab.captures.files
        replies = [
            datagram.time
            for datagram in pcap.datagrams(files["ha"])
            if datagram.outgoing
            and accepted(datagram)
            and struct.unpack_from("!H", datagram.transport, 10)[0] == 0
        ]
        checks.equal("replies_with_lifetime_0", len(replies), 1, "messages")
        if not replies:
            return
        at_mobile = stream.arrivals(files["mn"], PORT)
        at_stand_in = stream.arrivals(files["mnps"], PORT)
        sent = stream.arrivals(files["cn"], PORT, outgoing=True)
        checks.more_than("probes_before", len(at_mobile), RATE // 2, "packets")
        checks.at_most("default_coa_after_reply_s", min(at_stand_in.values()) - replies[0], 1.0, "s")
        lost = [number for number in sent if number not in at_mobile and number not in at_stand_in]
        checks.equal("probes_lost", len(lost), 0, "packets")
        twice = [number for number in at_mobile if number in at_stand_in]
        checks.equal("probes_at_both", len(twice), 0, "packets")
        checks.more_than("probes_after", len(at_stand_in), RATE // 2, "packets")
