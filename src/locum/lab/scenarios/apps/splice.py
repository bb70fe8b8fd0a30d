"""A proxy leaves out and replaces lines in five sleeps: program and correspondent go on, each with its own bytes (A1, C12)."""

import hashlib
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.captures import pcap
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Plan
from locum.lab.processes import Program, is_frozen, wait_until
from locum.lab.report.checks import Checks
from locum.lab.scenario import Scenario
from locum.lab.scenarios.sleep.fig06 import handovers
from locum.lab.steps.resets import no_resets
from locum.lab.steps.waking import judge_wakes
from locum.lab.world import Lab, locum

SLEEPS: tuple[tuple[bytes, ...], ...] = (
    (b"- all of it is left out",) * 50,
    (b"= these words become a number", b"? a question", b"- left out", b"as it is"),
    (b"+ longer", b"= and shorter", b"+ longer"),
    (b"as it is",),
    (b"- left out", b"+ again longer and longer", b"- left out"),
)
"""Lines of the correspondent in each sleep; the first character says what the proxy does."""
PATIENCE = 20.0
PORT = 7010
ANSWER = b"not here\n"
"""Of the proxy, to a line that begins with a question mark."""
KIND = {"editor": "locum.apps.editor:Editor"}


def edited(line: bytes) -> bytes:
    """The line as the program gets it."""
    match line[:1]:
        case b"-" | b"?":
            return b""
        case b"=":
            return b"%d\n" % len(line)
        case b"+":
            return line * 40
    return line


@dataclass(slots=True)
class Pair:
    """socat at both ends of one connection, with what was said at each end and what each should hear."""

    lab: Lab
    name: str
    version: int
    server: Program = field(init=False)
    client: Program = field(init=False)
    said: bytes = b""
    expected: bytes = b""
    received: int = 0

    def start(self) -> None:
        """Returns when the connection stands."""
        lab, six = self.lab, self.version == 6
        address = f"[{lab.topology.address6('cn')}]" if six else str(lab.topology.address4("cn"))
        home = f"[{HOME_ADDRESS6}]" if six else str(HOME_ADDRESS4)
        listen = f"TCP{self.version}-LISTEN:{PORT},reuseaddr" + (",ipv6only" if six else "")
        self.server = self._run("cn", f"server-{self.name}", listen)
        wait_until("the server to listen", lambda: f":{PORT}" in self._listeners())
        self.client = self._run(
            "mn", f"client-{self.name}", f"TCP{self.version}:{address}:{PORT},bind={home}"
        )
        self.client_says(b"hello\n")

    def _listeners(self) -> str:
        return self.lab.processes.run("cn", ["ss", "-Hltn", f"-{self.version}"]).stdout

    def _run(self, node: str, name: str, end: str) -> Program:
        with self.output(name).open("wb") as sink:
            return self.lab.processes.start(
                node, name, ["socat", "-", end], stdin=subprocess.PIPE, stdout=sink.fileno()
            )

    def output(self, name: str) -> Path:
        """The file with the text that a program has printed."""
        return self.lab.output / f"{name}.out"

    @property
    def at_client(self) -> bytes:
        """Bytes that the device's program has printed."""
        return self.output(self.client.name).read_bytes()

    @property
    def at_server(self) -> bytes:
        """Bytes that the correspondent has printed."""
        return self.output(self.server.name).read_bytes()

    def client_writes(self, text: bytes) -> None:
        """The device's program sends."""
        _write(self.client, text)
        self.said += text

    def client_says(self, text: bytes) -> None:
        """The device's program sends; returns when the correspondent has it."""
        self.client_writes(text)
        self.server_has_all()

    def server_has_all(self) -> None:
        """Wait for everything that the correspondent should have."""
        wait_until("the correspondent's text", lambda: len(self.at_server) >= len(self.said), PATIENCE)

    def server_says(self, text: bytes, *, asleep: bool) -> None:
        """The correspondent sends, to the device or to its proxy."""
        _write(self.server, text)
        self.received += len(text)
        if asleep:
            self.said += ANSWER * sum(line.startswith(b"?") for line in text.splitlines())
        self.expected += b"".join(map(edited, text.splitlines(keepends=True))) if asleep else text

    def client_has_all(self) -> None:
        """Wait for everything that it should have."""
        wait_until("the program's text", lambda: len(self.at_client) >= len(self.expected), PATIENCE)

    def close(self) -> None:
        """The device's program ends its side, and both end."""
        assert self.client.process.stdin is not None
        self.client.process.stdin.close()
        wait_until("both ends", lambda: not self.client.running and not self.server.running, PATIENCE)


def _is_awake(lab: Lab) -> bool:
    state: str = lab.ask("mn", "status")["mobile_node"]["state"]
    return state == "awake"


def _write(program: Program, text: bytes) -> None:
    assert program.process.stdin is not None
    program.process.stdin.write(text)
    program.process.stdin.flush()


class AppSplice(Scenario):
    """Two connections. In one sleep each the proxy, the stand-in's daemon and the device's daemon are killed."""

    exhaustive = True
    sleeps: tuple[tuple[bytes, ...], ...] = SLEEPS
    kills: Mapping[int, str] = {1: "proxy", 2: "mnps", 4: "mn"}
    without_stand_in = True

    name = "app-splice"
    title = (
        "a program gets other bytes than its correspondent sent, more or fewer, and the connection goes on"
    )
    plan = Plan(
        kinds=KIND,
        tables={
            "mn": {
                "mobile_node": {"stranded_seconds": 2.0, "app": [{"kind": "editor", "consume": "replace"}]}
            }
        },
    )

    def play(self, lab: Lab) -> None:
        lab.wait_registered()
        self.pairs = [Pair(lab, "ipv4", 4), Pair(lab, "ipv6", 6)]
        for pair in self.pairs:
            pair.start()
        pids = [pair.client.pid for pair in self.pairs]
        self.replaced = 0
        for number, lines in enumerate(self.sleeps):
            for pair in self.pairs:
                pair.server_says(b"- awake, so it is not touched %d\n" % number, asleep=False)
                pair.client_has_all()
            lab.close_lid("an1")
            self._talk(lab, lines[:1])
            self._kill(lab, number)
            self._talk(lab, lines[1:])
            self.replaced += sum(app["replaced"] for app in self._attended(lab))
            lab.open_lid("an1")
            for pair in self.pairs:
                pair.client_has_all()
                pair.client_says(b"awake %d\n" % number)
        if self.without_stand_in:
            self._wake_without_stand_in(lab)
        self.same = pids == [pair.client.pid for pair in self.pairs if pair.client.running]
        for pair in self.pairs:
            pair.close()

    def _talk(self, lab: Lab, lines: tuple[bytes, ...]) -> None:
        """To the sleeping device; returns when its proxy has been shown everything."""
        text = b"".join(line + b"\n" for line in lines)
        before = {pair.version: self._shown(lab)[pair.version] for pair in self.pairs}
        for pair in self.pairs:
            pair.server_says(text, asleep=True)

        def shown() -> bool:
            now = self._shown(lab)
            return all(now.get(version, 0) == count + len(text) for version, count in before.items())

        wait_until("the proxy to see everything", shown, PATIENCE)
        for pair in self.pairs:
            pair.server_has_all()

    def _wake_without_stand_in(self, lab: Lab) -> None:
        """The programs run after a while, and write: behind the words of the proxy, of which they do not know."""
        lab.close_lid("an1")
        self._talk(lab, (b"? anybody there", b"+ longer", b"- left out"))
        lab.crash("mnps")
        lab.restore("an1")
        command = [*locum(), "--socket", str(lab.configuration.socket("mn")), "wake"]
        waking = lab.processes.start("mn", "wake", command)
        programs = [pair.client for pair in self.pairs]
        wait_until("the programs to run", lambda: not any(is_frozen(one.pid) for one in programs), PATIENCE)
        for pair in self.pairs:
            pair.client_writes(b"written without the stand-in\n")
        lab.pause(1.0)
        lab.restart("mnps")
        wait_until("the device to be awake", lambda: _is_awake(lab), 2 * PATIENCE)
        waking.wait(PATIENCE)
        for pair in self.pairs:
            pair.client_has_all()
            pair.server_has_all()

    def _attended(self, lab: Lab) -> list[dict[str, int]]:
        found: list[dict[str, int]] = lab.ask("mnps", "app show", app="editor")["attends"]
        return found

    def _shown(self, lab: Lab) -> dict[int, int]:
        """Bytes that the proxy has answered, by IP version."""
        return {
            6 if str(HOME_ADDRESS6) in str(one["flow"]) else 4: one["answered"] for one in self._attended(lab)
        }

    def _kill(self, lab: Lab, number: int) -> None:
        match self.kills.get(number):
            case "proxy":
                (app,) = lab.ask("mnps", "app list")
                os.kill(app["pid"], signal.SIGKILL)
            case str(node):
                lab.crash(node)
                lab.restart(node)

    def judge(self, lab: Lab, checks: Checks) -> None:
        for pair in self.pairs:
            checks.equal(f"program_got_{pair.name}", _hash(pair.at_client), _hash(pair.expected))
            checks.equal(f"correspondent_got_{pair.name}", _hash(pair.at_server), _hash(pair.said))
            checks.equal(f"status_{pair.name}", pair.client.process.returncode, 0)
            surplus = len(pair.expected) - pair.received
            checks.holds(f"numbers_differ_{pair.name}", surplus != 0)
        checks.more_than("replaced", self.replaced, 1000, "bytes")
        checks.holds("same_processes", self.same)
        checks.equal("handovers", handovers(lab), len(self.sleeps) + self.without_stand_in)
        no_resets(checks, "cn_resets", pcap.segments(lab.captures.files["cn"]))
        judge_wakes(lab, checks, (), most=0)


class AppSpliceBrief(AppSplice):
    """Three sleeps, in one of which the proxy is killed."""

    name = "app-splice-brief"
    title = "a program gets other bytes than its correspondent sent, in three sleeps"
    exhaustive = False
    sleeps = SLEEPS[:3]
    kills: Mapping[int, str] = {1: "proxy"}
    without_stand_in = False


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
