"""Attacks by strangers from outside and from an access link, and by a member that asks for too much.

The nodes' state is compared before and after, and their events in between are searched. Nothing genuine is
to happen meanwhile.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, OTHER_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.forging import forgery, single_shots
from locum.lab.forging.forgery import Aim, Port
from locum.lab.forging.message_batches import kinds, message_batch
from locum.lab.forging.open_ports import open_ports
from locum.lab.processes import Program, wait_until
from locum.lab.steps.state import differences, everything
from locum.lab.timeline import Event
from locum.lab.world import Lab

Shares = Mapping[str, Mapping[str, int]]
"""By stranger and target, messages to each port of it."""
PATIENCE = 60.0
SETTLING = 1.0
"""Seconds after the last message in which it may still have an effect."""
_AGREED = frozenset(
    (
        ("sent", "603"),
        ("sent", "603''"),
        ("sent", "604"),
        ("sent", "604''"),
        ("sent", "632"),
        ("notified", "618"),
        ("sent", "624"),
    )
)
_ACCEPTED = (0, 1)
"""Codes of RFC 5944 section 3.4."""


def agrees(event: Event) -> bool:
    """True if an event shows that a node has accepted something; a relayed denial (604) does not."""
    if (event.kind, event.message) not in _AGREED:
        return False
    return "code" not in event.detail or event.detail["code"] in _ACCEPTED


@dataclass(frozen=True, slots=True)
class Stranger:
    """A host that attacks: its node, how many messages a second it sends, and the nodes it aims at."""

    node: str
    rate: int
    targets: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """Messages sent in several attacks, and their results."""

    sent: Counter[str] = field(default_factory=Counter)
    """By stranger, kind and open port, as "evil: KIND > PORT"."""
    failed: Counter[str] = field(default_factory=Counter)
    """Messages that could not be sent, with the reason."""
    changes: list[str] = field(default_factory=list)
    agreed: list[Event] = field(default_factory=list)
    relayed: int = 0
    """Requests that a foreign agent passed on to the home agent (602)."""
    demands: Counter[str] = field(default_factory=Counter)
    """Answers to the member, as "PEER PATH: STATUS"."""
    singles: list[single_shots.Answer] = field(default_factory=list)
    ports: set[Port] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Heard:
    """Captured so far: the mobile node's registrations, replies, and CoAP requests of non-members."""

    requests: list[bytes]
    replies: list[bytes]
    controls: list[forgery.Overheard]

    @classmethod
    def of(cls, lab: Lab, attacks: Sequence[tuple[float, float]]) -> "Heard":
        """Read the captures of home agent, stand-in and an access node, without messages of attacks."""
        files = lab.captures.files
        registrations = forgery.overheard(files["ha"], forgery.REGISTRATION, (1, 3), attacks)
        controls = [
            overheard
            for node in ("mnps", "an1")
            for overheard in forgery.overheard(files[node], forgery.COAP, range(0x40, 0x4F), attacks)
            if OTHER_ADDRESS4 not in (overheard.source, overheard.target)
        ]
        genuine = [
            registration.message
            for registration in registrations
            if HOME_ADDRESS4.packed in registration.message
        ]
        return cls(
            [message for message in genuine if message[0] == 1],
            [message for message in genuine if message[0] == 3],
            list(dict.fromkeys(controls)),
        )


class Attack:
    """Attacks of one lab. `nodes` are compared; messages that were overheard are those of the captures so far."""

    def __init__(self, lab: Lab, strangers: Sequence[Stranger], nodes: Sequence[str], seed: int) -> None:
        self.found = Findings()
        self._lab, self._strangers, self._nodes = lab, strangers, nodes
        self._random = Random(seed)
        self._windows: list[tuple[float, float]] = []
        self._first_port = dict.fromkeys((stranger.node for stranger in strangers), 10_000)
        self._impersonator = lab.processes.start(
            "evil",
            "impersonator",
            [sys.executable, "-m", "locum.lab.forging.impersonator", str(self._member())],
            stdin=subprocess.PIPE,
        )

    # Knowledge -------------------------------------------------------------------------------------------------------

    def _member(self) -> Path:
        """The configuration of the other mobile node's own associations."""
        lab = self._lab
        configuration = lab.configuration
        peers = {
            "mnps": ("02", lab.topology.address4("mnps")),
            "an1": ("06", configuration.care_of("an1")),
            "mn": ("07", HOME_ADDRESS4),
        }
        self._peers = {node: str(address) for node, (_number, address) in peers.items()}
        associations = [
            {
                "peer": str(address),
                "sender_id": f"{number}01",
                "recipient_id": f"{number}02",
                "secret_file": str(configuration.key(f"other-{node}")),
            }
            for node, (number, address) in peers.items()
        ]
        given = {
            "address": str(OTHER_ADDRESS4),
            "victim": str(HOME_ADDRESS4),
            "correspondent": str(lab.topology.address4("cn")),
            "store": str(lab.place.path / "state" / "impersonator.db"),
            "associations": associations,
        }
        file = lab.place.path / "impersonator.json"
        file.write_text(json.dumps(given))
        return file

    def _aim(self, stranger: str, heard: Heard) -> Aim:
        lab = self._lab
        care_of = [lab.configuration.care_of(node) for node in ("an1", "an2", "an3")]
        own = lab.topology.address4(stranger)
        broken = (lab.topology.broken4(stranger), lab.topology.broken6(stranger))
        return Aim(
            home_address=HOME_ADDRESS4,
            home_agent=lab.topology.address4("ha"),
            agents=care_of,
            stranger=own,
            broken={address.version: str(address) for address in broken},
            correspondent=lab.topology.address4("cn"),
            other_key=bytes.fromhex(lab.configuration.key("other-ha").read_text().strip()),
            care_of=(own, *care_of[:1] * 3),  # the agent relays its own
            requests=heard.requests,
            replies=heard.replies,
            controls=heard.controls,
            now=lab.timeline.mark("composing", stranger=stranger),
        )

    def _ports(self, stranger: Stranger) -> list[Port]:
        """Open ports at the nodes under attack, and the addresses at which a stranger reaches them."""
        found: list[Port] = []
        topology, care_of = self._lab.topology, self._lab.configuration.care_of
        for node in stranger.targets:
            six = HOME_ADDRESS6 if node == "mn" else topology.address6(node)
            if node == "mn":
                four = HOME_ADDRESS4
            elif stranger.node == "guest":  # on its own link
                four, six = topology.address4(node, "radio1"), topology.address6(node, "radio1")
            else:
                four = care_of(node) if node in ("an1", "an2", "an3") else topology.address4(node)
            found += open_ports(self._lab, node, four, six)
        return found

    # Actions ---------------------------------------------------------------------------------------------------------

    def run(self, name: str, shots: Shares, *, demands: int, of: Iterable[str], singles: int) -> None:
        """One attack: `singles` messages of every kind one at a time, then so many shots at every port.

        Meanwhile the member makes `demands` of each of the nodes `of`.
        """
        lab = self._lab
        heard = Heard.of(lab, self._windows)
        prepared = [
            (stranger, *self._prepare(name, stranger, heard, shots, singles)) for stranger in self._strangers
        ]
        before = {node: everything(lab, node, OTHER_ADDRESS4) for node in self._nodes}
        begin = lab.timeline.mark("attack-begins", attack=name)
        peers = [self._peers[node] for node in of]
        assert self._impersonator.process.stdin is not None
        answered = len(self._impersonator.log.read_text().splitlines())
        self._impersonator.process.stdin.write(json.dumps([peers, demands]).encode() + b"\n")
        self._impersonator.process.stdin.flush()
        if singles:
            asking = [self._single(name, stranger, one) for stranger, one, _many in prepared]
            for program in asking:
                self.found.singles += single_shots.read(_output(program))
        shooting = [(shot_plan, self._shoot(name, shot_plan, many)) for shot_plan, _one, many in prepared]
        for stranger, program in shooting:
            sent = json.loads(_output(program).splitlines()[-1])
            for total, part in ((self.found.sent, "sent"), (self.found.failed, "failed")):
                total.update({f"{stranger.node}: {kind}": number for kind, number in sent[part].items()})
        self.found.demands.update(self._answers(answered))
        lab.pause(SETTLING)
        end = lab.timeline.mark("attack-ended", attack=name)
        for node in self._nodes:
            after = everything(lab, node, OTHER_ADDRESS4)
            self.found.changes += [f"{node}: {change}" for change in differences(before[node], after)]
        self._windows.append((begin, end))
        self._look_through(begin, end)

    def _prepare(
        self, name: str, stranger: Stranger, heard: Heard, shots: Shares, singles: int
    ) -> tuple[Path, Path]:
        """Files of single shots and of a message batch."""
        aim, ports = self._aim(stranger.node, heard), self._ports(stranger)
        self.found.ports |= set(ports)
        one = [
            make()
            for port in ports
            for make in kinds(aim, self._random, port).values()
            for _ in range(singles)
        ]
        many = [
            shot
            for node in stranger.targets
            for shot in message_batch(
                aim, self._random, [p for p in ports if p.node == node], shots[stranger.node][node]
            )
        ]
        self._random.shuffle(many)
        folder = self._lab.place.path
        return (
            forgery.write(one, folder / f"singles-{name}-{stranger.node}"),
            forgery.write(many, folder / f"shots-{name}-{stranger.node}"),
        )

    def _single(self, name: str, stranger: Stranger, file: Path) -> Program:
        return self._start("single_shots", name, stranger, file, [])

    def _shoot(self, name: str, stranger: Stranger, file: Path) -> Program:
        return self._start("stranger", name, stranger, file, [str(stranger.rate)])

    def _start(self, module: str, name: str, stranger: Stranger, file: Path, options: list[str]) -> Program:
        """Every message of a run leaves from a port that no other one had."""
        first = self._first_port[stranger.node]
        self._first_port[stranger.node] += sum(
            1 for line in file.open() if '"udp"' in line or '"tcp"' in line
        )
        address = str(self._lab.topology.address4(stranger.node))
        command = [
            sys.executable,
            "-m",
            f"locum.lab.forging.{module}",
            str(file),
            *options,
            address,
            str(first),
        ]
        return self._lab.processes.start(stranger.node, f"{module}-{name}-{stranger.node}", command)

    def _answers(self, so_far: int) -> dict[str, int]:
        """The member's next line of answers."""

        def lines() -> list[str]:
            return self._impersonator.log.read_text().splitlines()

        def there() -> bool:
            if not self._impersonator.running:
                raise LabError(f"the impersonator ended; {self._impersonator.complaint()}")
            return len(lines()) > so_far

        wait_until("the answers to the member's demands", there, PATIENCE)
        found: dict[str, int] = json.loads(lines()[-1])
        return found

    def _look_through(self, begin: float, end: float) -> None:
        """Events of the window that show acceptance by a node, and relayed messages."""
        for node in self._nodes:
            for event in self._lab.timeline.of(node):
                if begin <= event.time <= end:
                    self.found.relayed += (event.kind, event.message) == ("sent", "602")
                    if agrees(event):
                        self.found.agreed.append(event)

    def end(self) -> None:
        """The member has had enough."""
        if self._impersonator.process.stdin is not None:
            self._impersonator.process.stdin.close()
        self._impersonator.stop()


def _output(program: Program) -> str:
    """Output of a program until its end. Raises LabError if it failed."""
    if program.wait(PATIENCE):
        raise LabError(f"{program.name} failed; {program.complaint()}")
    return program.log.read_text()
