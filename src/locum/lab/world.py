"""One running lab: network, captures, daemons, and the user's commands at the mobile node.

`with Lab(...) as lab:` leaves nothing behind however the block is left: by its end, by an exception, by Ctrl-C or by
SIGTERM. It treats a node as an operator would: by the command line, or by a signal.
"""

import contextlib
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from locum.lab.captures import measure
from locum.lab.captures.capture import Captures
from locum.lab.configuration import HOME_ADDRESS4, HOME_ADDRESS6, Configuration, Plan
from locum.lab.errors import Interrupted, LabError
from locum.lab.network import machines
from locum.lab.network.namespaces import Network, run
from locum.lab.network.place import LabPlace
from locum.lab.network.radio import Listening
from locum.lab.network.topology import RENTED, Topology, figure_5, rented
from locum.lab.processes import Processes, Program, is_frozen, wait_until
from locum.lab.timeline import Event, Timeline
from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable

PRIORITY = ("nice", "-n", "-10")
"""Priority as in the systemd units: while a session changes hands a peer waits, captures do not."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
REMINDER = 2.0
"""Seconds after which a signal that has not ended the run is raised again."""


def locum() -> list[str]:
    """The `locum` command that belongs to the Python that runs the lab."""
    script = Path(sys.executable).with_name("locum")
    if script.exists():
        return [str(script)]
    return [sys.executable, "-c", "from locum.cli.main import main; main()"]


@dataclass(frozen=True, slots=True)
class Sleep:
    """One sleep of the mobile node, as times (seconds since the epoch) and observations in between."""

    closing: float
    asleep: float
    cut: float
    restored: float
    opening: float
    awake: float
    frames: int
    """Frames on all radio links, both ends and both directions, while they were down."""
    frozen: bool
    """Every program that was asked about could not run, at every look from `asleep` to `opening`."""


class Lab:
    """A lab from its build to its removal. `keep` leaves it standing at the end of a good run."""

    def __init__(
        self,
        scenario: str,
        output: Path,
        plan: Plan | None = None,
        *,
        keep: bool = False,
        captures: bool = True,
        listener: Callable[[Event], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.output = output.absolute()
        self.plan = plan or Plan()
        self.keep = keep
        self.topology: Topology = (
            rented() if self.plan.network == RENTED else figure_5(self.plan.extras, self.plan.domains)
        )
        self.timeline = Timeline(self.output / "events", listener)
        self.daemons: dict[str, Program] = {}
        self._capture = captures
        self._handlers: dict[int, Any] = {}
        self._signal = int(signal.SIGTERM)

    # Up and down ----------------------------------------------------------------------------------------------------

    def __enter__(self) -> "Lab":
        self._catch_signals()
        self.place = LabPlace.claim(self.scenario)
        try:
            self._build()
        except BaseException:
            self._take_down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.keep and kind is None:
            self.place.release_ownership()
            self._restore_signals()
        else:
            self._take_down()

    def _build(self) -> None:
        self.network = Network(self.place, self.topology)
        self.processes = Processes(self.place, self.output / "logs")
        self.captures = Captures(self.processes, self.topology, self.output / "pcap")
        self.configuration = Configuration(self.place, self.topology, self.plan, self.output)
        self.place.mount_bpf()
        self.network.build()
        for node in self.plan.machines:
            machines.make(self.place, node)
        if self.plan.network != RENTED:
            self.network.set_radio("an2", up=False)
        self.configuration.write()
        if self.plan.mode == "colocated":
            self.give_care_of_address("an1")
        if self._capture:
            self.captures.start()
        for name in self.plan.daemons:
            if self.configuration.has_stand_in(name):
                self.start_holder(name)
        for node in self.plan.daemons:
            self.launch(node)
        for node in self.plan.daemons:
            self.wait_ready(node)

    def _take_down(self) -> None:
        self._remind(0)
        for number in SIGNALS:
            if number in self._handlers:
                signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half a lab
        try:
            if hasattr(self, "processes"):
                self.processes.stop_all()
        finally:
            self.place.remove()
            self._restore_signals()

    def _catch_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._handlers[number] = signal.signal(number, self._interrupted)
            self._handlers[signal.SIGALRM] = signal.signal(signal.SIGALRM, self._interrupted)

    def _restore_signals(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()

    def _interrupted(self, number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            self._signal = number
        self._remind(REMINDER)
        raise Interrupted(signal.Signals(self._signal).name)

    def _remind(self, seconds: float) -> None:
        """Be interrupted once more after so long (0: never): Python drops an exception that meets a finaliser."""
        if signal.SIGALRM in self._handlers:
            signal.setitimer(signal.ITIMER_REAL, seconds)

    # Daemons --------------------------------------------------------------------------------------------------------

    def start_holder(self, node: str) -> Program:
        """The minimal process that keeps a stand-in's connections while its daemon is dead."""
        socket = self.configuration.holder(node)
        program = self.processes.start(
            node, f"holder-{node}", [sys.executable, "-m", "locum.sessions.holder", str(socket)]
        )
        wait_until("the holder's socket", lambda: socket.exists() or not program.running)
        if not program.running:
            raise LabError(f"the holder did not start; {program.complaint()}")
        return program

    def launch(self, node: str) -> Program:
        """Start a node's daemon, without waiting for it."""
        command = [*PRIORITY, *self._boot(node), *locum(), "node", "run", str(self.configuration.file(node))]
        environment = self.configuration.environment()
        self.daemons[node] = self.processes.start(node, f"locum-{node}", command, environment=environment)
        return self.daemons[node]

    def _boot(self, node: str) -> list[str]:
        """The prefix for a node that has another boot id than this machine: a mount that its daemon alone sees."""
        boot = self.place.path / "boot" / node
        if not boot.exists():
            return []
        bind = 'mount --bind "$0" /proc/sys/kernel/random/boot_id && exec "$@"'
        return ["unshare", "--mount", "sh", "-c", bind, str(boot)]

    def lose_power(self, node: str, programs: Iterable[Program]) -> float:
        """The node's machine goes off: its daemon, these programs and its eBPF programs are gone. Returns when.

        Its next daemon finds another boot id. Its store is on a disk and stays, and so do the lab's links.
        """
        for program in (self.daemons[node], *programs):
            program.kill()
        shutil.rmtree(self.place.bpf_root / "locum" / node, ignore_errors=True)
        boot = self.place.path / "boot" / node
        boot.parent.mkdir(exist_ok=True)
        boot.write_text(f"{uuid.uuid4()}\n")
        return self.timeline.mark("power-lost", node=node)

    def wait_ready(self, node: str, patience: float = 20.0) -> None:
        """Until the daemon answers on its control socket."""
        program = self.daemons[node]

        def answers() -> bool:
            if not program.running:
                raise LabError(f"the daemon of {node} ended by itself; {program.complaint()}")
            try:
                self.ask(node, "status")
            except (NodeUnreachable, LabError):
                return False
            return True

        wait_until(f"the daemon of {node} to answer; {program.log}", answers, patience, pause=0.05)

    def crash(self, node: str) -> float:
        """SIGKILL a daemon; returns when."""
        self.daemons[node].kill()
        return self.timeline.mark("daemon-killed", daemon=node)

    def restart(self, node: str) -> float:
        """Start a daemon again and wait until it answers; returns when."""
        self.launch(node)
        self.wait_ready(node)
        return self.timeline.mark("daemon-restarted", daemon=node)

    # Questions ------------------------------------------------------------------------------------------------------

    def ask(self, node: str, request: str, **arguments: Any) -> Any:
        """One request over the control socket of a node. Raises LabError when it refuses, NodeUnreachable."""
        try:
            with NodeClient(self.configuration.socket(node)) as client:
                return client.request(request, **arguments)
        except NodeRefused as refusal:
            raise LabError(f"{node} refused {request}: {refusal}") from None

    def command(self, node: str, *arguments: str, patience: float = 60.0) -> str:
        """The `locum` command line, for a node. Raises LabError with its complaint when it fails."""
        done = self.processes.run(
            node, [*locum(), "--socket", str(self.configuration.socket(node)), *arguments], patience
        )
        if done.returncode:
            complaint = (done.stderr or done.stdout).strip()
            raise LabError(f"locum {' '.join(arguments)} at {node} ended with {done.returncode}: {complaint}")
        return done.stdout

    def bindings(self, node: str = "ha") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ask(node, "binding list")
        return rows

    def sessions(self, node: str = "mnps") -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ask(node, "session list")
        return rows

    def flow_rules(self, node: str = "ha") -> list[dict[str, Any]]:
        """The flow rules of a node, as `locum flow list -j` prints them."""
        rows: list[dict[str, Any]] = self.ask(node, "flow list")
        return rows

    def counters(self, node: str) -> dict[str, Any]:
        values: dict[str, Any] = self.ask(node, "counters")
        return values

    def tcp_counters(self, node: str) -> dict[str, int]:
        """The kernel's own TCP counters of a node."""
        text = self.processes.run(node, ["cat", "/proc/net/snmp", "/proc/net/netstat"]).stdout
        return measure.tcp_counters(text)

    def owner(self, address: str) -> str | None:
        """The node that an address belongs to; the home addresses are the mobile node's."""
        return "mn" if address in (str(HOME_ADDRESS4), str(HOME_ADDRESS6)) else self.topology.owner(address)

    def registered_at(self, care_of: str) -> bool:
        """True if the home agent lists this care-of address for the mobile node."""
        return any(care_of in str(row) for row in self.bindings() if str(HOME_ADDRESS4) in str(row))

    def can_send(self, care_of: str) -> bool:
        """True if the mobile node is registered there, and its kernel has a route for its programs."""
        if self.ask("mn", "status")["mobile_node"]["care_of"] != care_of:
            return False
        way = ["ip", "route", "get", str(self.topology.address4("cn")), "from", str(HOME_ADDRESS4)]
        return self.processes.run("mn", way).returncode == 0

    def wait_registered(self, access_node: str = "an1", patience: float = 15.0) -> None:
        """Until home agent and mobile node agree on a registration. Raises LabError when patience (seconds) ends."""
        care_of = (
            "10.10.21.4" if self.plan.mode == "colocated" else str(self.configuration.care_of(access_node))
        )
        wait_until(
            f"the home agent to bind the mobile node to {care_of}",
            lambda: self.registered_at(care_of),
            patience,
        )
        wait_until(
            f"the mobile node to use its registration at {care_of}", lambda: self.can_send(care_of), patience
        )

    # The mobile node ------------------------------------------------------------------------------------------------

    def give_care_of_address(self, access_node: str) -> None:
        """Configure a co-located care-of address, as DHCP would, on the radio link to an access node."""
        link = self.topology.radio(access_node)
        prefix = f"{link.network4.network_address + 4}/24"
        namespace = self.place.namespace("mn")
        run(["ip", "-n", namespace, "addr", "replace", prefix, "dev", link.far.interface])
        gateway = str(link.address4(link.near).ip)
        run(["ip", "-n", namespace, "route", "replace", "default", "via", gateway, "dev", link.far.interface])

    def cut(self, access_node: str = "an1") -> float:
        self.network.set_radio(access_node, up=False)
        return self.timeline.mark("radio-cut", link=f"{access_node}-mn")

    def restore(self, access_node: str = "an1") -> float:
        """The time is that before the link comes up: everything that is seen until then was seen while it was down."""
        before = time.time()
        self.network.set_radio(access_node, up=True)
        if self.plan.mode == "colocated":
            self.give_care_of_address(access_node)
        self.timeline.mark("radio-restored", link=f"{access_node}-mn")
        return before

    def fade(self, access_node: str = "an1", *, silent: bool = True) -> float:
        """Let the radio fail silently, without link down, or restore it. Returns the time."""
        before = time.time()
        self.network.fade(access_node, silent)
        after = self.timeline.mark("radio-faded" if silent else "radio-back", link=f"{access_node}-mn")
        return before if not silent else after

    def listen(self, listening: Listening | None, access_node: str = "an1") -> None:
        """Let the device's radio listen in slots, or lose frames by chance; None: hear everything again."""
        self.network.listen(access_node, listening)
        detail = {} if listening is None else {"cycle": listening.cycle, "loss": listening.loss}
        self.timeline.mark("radio-listens", link=f"{access_node}-mn", **detail)

    def lose(self, percent: int, access_node: str = "an1") -> float:
        """Let the radio lose so many of 100 frames in each direction from now on. Returns the time."""
        self.network.lose(access_node, percent)
        return self.timeline.mark("radio-loses", link=f"{access_node}-mn", percent=percent)

    def close_lid(self, access_node: str = "an1") -> tuple[float, float, float]:
        """`locum sleep`, then the radio goes off: (when it began, when the command was done, when the link was cut)."""
        closing = self.timeline.mark("lid-closes")
        self.command("mn", "sleep")
        asleep = self.timeline.mark("asleep")
        return closing, asleep, self.cut(access_node)

    def open_lid(self, access_node: str = "an1") -> tuple[float, float, float]:
        """The radio comes on, then `locum wake`: (when the link was back, when the command began and was done)."""
        restored = self.restore(access_node)
        opening = self.timeline.mark("lid-opens")
        self.command("mn", "wake")
        return restored, opening, self.timeline.mark("awake")

    def sleep(
        self, seconds: float, programs: Sequence[Program], back_at: str | None = None, at: str = "an1"
    ) -> Sleep:
        """Close the lid, stay asleep with the radio down for some seconds, open it again (perhaps elsewhere)."""
        closing, asleep, cut = self.close_lid(at)
        before = self.radio_frames()
        frozen = True
        for _look in self._while(seconds):
            frozen = frozen and self.all_frozen(programs)
        frames = self.radio_frames() - before
        restored, opening, awake = self.open_lid(back_at or at)
        return Sleep(closing, asleep, cut, restored, opening, awake, frames, frozen)

    @staticmethod
    def all_frozen(programs: Iterable[Program]) -> bool:
        """True if none of them can run."""
        return all(is_frozen(program.pid) for program in programs)

    @staticmethod
    def pause(seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    def radio_frames(self) -> int:
        """Frames on all radio links so far, both ends and both directions."""
        return self.network.radio_frames("an1") + self.network.radio_frames("an2")

    @staticmethod
    def _while(seconds: float, pause: float = 0.25) -> Iterator[None]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            yield
            time.sleep(pause)

    def finish(self) -> None:
        """The story is over: captures are closed, so that they can be measured."""
        with contextlib.suppress(ProcessLookupError):
            self.captures.stop()
