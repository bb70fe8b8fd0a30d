"""RFC 3543: registrations ended from either side, at once; and forged endings that end nothing (R14)."""

import json
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from random import Random
from typing import Any

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, Plan
from locum.lab.errors import LabError
from locum.lab.forging import forgery
from locum.lab.forging.forgery import Shot
from locum.lab.network.topology import figure_5
from locum.lab.processes import wait_until
from locum.lab.programs import stream
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06_crash import start_stream
from locum.lab.steps.flow_checks import judge_flows, standing_rule
from locum.lab.world import Lab
from locum.wire.mobile_ip.extensions.authentication import AuthKind
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment

PORT, RATE = 7004, 100
REVOCATION, ACKNOWLEDGMENT = b"\x07", b"\x0f"
SHOTS = 200
"""Of each kind and target."""
SEED = 3543


@dataclass(frozen=True, slots=True)
class Ends:
    """The two nodes that may revoke, and the stranger that may not."""

    home_agent: IPv4Address
    agent: IPv4Address
    stranger: IPv4Address
    broken: IPv4Address
    """The stranger's address for malformed messages."""


class Revoke(Scenario):
    """The home agent revokes, the access node revokes, the access node is shut down; a stranger tries in between."""

    name = "revoke"
    title = "either side, and no stranger, can end a registration at once"
    plan = Plan(tables={"ha": standing_rule(PORT)})
    broken_from = (str(figure_5().broken4("evil")),)

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.ends = Ends(
            lab.topology.address4("ha"),
            lab.configuration.care_of("an1"),
            lab.topology.address4("evil"),
            lab.topology.broken4("evil"),
        )
        self.changes = 0
        self.sent: dict[str, int] = {}
        probes = start_stream(lab, PORT, RATE)
        self._attack(lab, "forged", forged(self.ends, Random(SEED)))

        self.by_home = lab.timeline.mark("home-agent-revokes")
        lab.command("ha", "binding", "revoke", str(HOME_ADDRESS4), "--reason", "lab")
        self.dropped = lab.timeline.wait("an1", "visitor-revoked", self.by_home)
        self.acknowledged = lab.timeline.wait("ha", "revocation-acknowledged", self.by_home)
        self.again = lab.timeline.wait("mn", "registered", self.by_home)
        lab.wait_registered()
        lab.pause(1.2)  # whatever the stranger has overheard is older than the new registration
        self._attack(lab, "replayed", replayed(lab, self.by_home))

        self.by_agent = lab.timeline.mark("access-node-revokes")
        lab.command("an1", "binding", "revoke", str(HOME_ADDRESS4))
        self.revoked = lab.timeline.wait("ha", "revoked", self.by_agent)
        self.and_again = lab.timeline.wait("mn", "registered", self.by_agent)
        lab.wait_registered()

        self.shutdown = lab.timeline.mark("access-node-ends")
        self.exit = lab.daemons["an1"].stop(10)
        self.left = lab.timeline.wait("ha", "revoked", self.shutdown)
        wait_until("the stand-in to have the packets", lambda: self._in_force(lab) == [self._default(lab)])
        self.moved = lab.timeline.mark("default-in-force")
        lab.pause(0.5)
        probes.stop()

    def judge(self, lab: Lab, checks: Checks) -> None:
        default = self._default(lab)
        checks.more_than("forged_messages", sum(self.sent.values()), 10 * SHOTS, "messages")
        checks.equal("state_changes", self.changes, 0, "rows")
        for reason, least in (("not-authentic", 2 * SHOTS), ("replayed", SHOTS), ("reflected", 1)):
            both = sum(counts.get(f"revocation-{reason}", 0) for counts in self.refused.values())
            checks.at_least(f"counted_{reason}", both, least, "messages")
        checks.at_most("visitor_dropped_s", self.dropped.time - self.by_home, 1.0, "s")
        checks.at_most("acknowledged_s", self.acknowledged.time - self.by_home, 1.0, "s")
        checks.at_most("registered_anew_s", self.again.time - self.by_home, 5.0, "s")
        checks.at_most("binding_dropped_s", self.revoked.time - self.by_agent, 1.0, "s")
        checks.equal("default_coa_at_once", self.revoked.detail["in_force"] == [default], True)
        checks.at_most("registered_anew_again_s", self.and_again.time - self.by_agent, 5.0, "s")
        checks.equal("access_node_exit", self.exit, 0)
        checks.at_most("left_s", self.left.time - self.shutdown, 3.0, "s")
        checks.equal("default_coa_after_shutdown", self.left.detail["in_force"] == [default], True)
        at_stand_in = stream.arrivals(lab.captures.files["mnps"], PORT)
        late = sum(at > self.left.time for at in at_stand_in.values())
        checks.more_than("stream_at_default_coa", late, RATE // 4, "packets")
        checks.equal("unanswered", lab.timeline.count("ha", "revocation-unanswered"), 0, "events")
        judge_flows(lab, checks)

    def _default(self, lab: Lab) -> str:
        return str(lab.configuration.care_of("an3"))

    @staticmethod
    def _in_force(lab: Lab) -> list[str]:
        row = next(binding for binding in lab.bindings() if binding["home_address"] == str(HOME_ADDRESS4))
        found: list[str] = row["in_force"]
        return found

    def _attack(self, lab: Lab, kind: str, shots: Iterator[Shot]) -> None:
        file = forgery.write(shots, lab.place.path / f"shots-{kind}")
        before = self._state(lab)
        command = [
            sys.executable,
            "-m",
            "locum.lab.forging.stranger",
            str(file),
            "2000",
            str(self.ends.stranger),
        ]
        stranger = lab.processes.start("evil", f"stranger-{kind}", command)
        if stranger.wait(30):
            raise LabError(f"the stranger failed; {stranger.complaint()}")
        sent = json.loads(stranger.log.read_text().splitlines()[-1])["sent"]
        self.sent |= sent
        lab.pause(0.5)
        self.changes += sum(one != other for one, other in zip(before, self._state(lab), strict=True))
        self.refused = {node: refused(lab, node) for node in ("ha", "an1")}

    @staticmethod
    def _state(lab: Lab) -> list[Any]:
        """Bindings and visitors, without fields that change with time."""
        return [
            [(row["home_address"], row.get("in_force"), row.get("link")) for row in lab.bindings(node)]
            for node in ("ha", "an1")
        ]


def refused(lab: Lab, node: str) -> dict[str, int]:
    """Counted refusals of a node by reason."""
    found: dict[str, int] = {}

    def walk(tree: Any) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(value)
            elif isinstance(value, int):
                found[key.rpartition(".")[2]] = value

    walk(lab.counters(node))
    return found


def spoofed(kind: str, source: IPv4Address, target: IPv4Address, message: bytes) -> Shot:
    """A datagram to port 434, from port 434 of a false source."""
    header = struct.pack("!HHHH", forgery.REGISTRATION, forgery.REGISTRATION, 8 + len(message), 0)
    return Shot(kind, "ip", str(target), forgery.UDP, header + message, str(source))


def forged(ends: Ends, random: Random) -> Iterator[Shot]:
    """Revocations and acknowledgments unsigned, with a wrong key, or cut; in both directions."""
    for number in range(SHOTS):
        for by_home, source, target in (
            (True, ends.home_agent, ends.agent),
            (False, ends.agent, ends.home_agent),
        ):
            addresses = (HOME_ADDRESS4, ends.home_agent, ends.agent)
            plain = RegistrationRevocation(*addresses, random.getrandbits(32), by_home, True).encode()
            answer = RevocationAcknowledgment(HOME_ADDRESS4, random.getrandbits(32), True).encode()
            wrong = forgery.signed(plain, AuthKind.FA_HA, 2000, random.randbytes(16))
            yield spoofed("revocation-unsigned", source, target, plain)
            yield spoofed("revocation-wrong-key", source, target, wrong)
            short = wrong[: 1 + number % (len(wrong) - 1)]
            yield Shot(
                "revocation-truncated", "udp", str(target), forgery.REGISTRATION, short, str(ends.broken)
            )
            yield spoofed("acknowledgment-forged", source, target, answer)
            yield Shot("revocation-of-a-stranger", "udp", str(target), forgery.REGISTRATION, wrong)


def replayed(lab: Lab, since: float) -> Iterator[Shot]:
    """Real messages since then, repeated, and reflected to their sender."""
    overheard = {
        (datagram.source, datagram.destination, datagram.transport[8:])
        for datagram in pcap.datagrams(lab.captures.files["ha"])
        if datagram.time >= since and datagram.transport[8:9] in (REVOCATION, ACKNOWLEDGMENT)
    }
    if not any(message[:1] == REVOCATION for _, _, message in overheard):
        raise LabError("no revocation was overheard")
    for _ in range(SHOTS):
        for source, target, message in overheard:
            assert isinstance(source, IPv4Address) and isinstance(target, IPv4Address)
            yield spoofed("revocation-replayed", source, target, message)
            yield spoofed("revocation-reflected", target, source, message)
