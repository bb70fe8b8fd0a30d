"""A thousand devices fall asleep at once: time from each one's 634 until its proxy runs, and memory of a proxy.

A real stand-in's daemon takes a connection and an order from each device (`bench.sleepers`), and starts a process for each proxy. For
comparison fewer devices do the same at a daemon that forks proxies, and at one that starts each anew.
"""

import contextlib
import json
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from statistics import median, quantiles

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed, Namespace, bpf_filesystem, join, namespaces, stop
from bench.report import quantity
from bench.sleepers import APP, CORRESPONDENT, HOMES, OWN, PORT, Device, devices, fall_asleep
from locum.node.control.client import NodeClient, NodeRefused, NodeUnreachable

NAMES = ("sleep_burst_p50", "sleep_burst_p99", "proxy_memory")
_DEVICES, _FEW = 1_000, 40
_ADDRESS = IPv4Address("198.18.8.1")
_KIND, _SETTINGS = "keepalive", {"payload": "x", "ports": [PORT], "interval": 3600.0, "jitter": 0.0}
_START = 120.0
_PATIENCE = 300.0
_ANEW = "from locum.node.apps.starts import starting; starting.TRIES = 0; "
"""Before the daemon's own main: it uses no fork server."""
_MAIN = "import sys; from locum.cli.main import main; sys.argv[0] = 'locum'; sys.exit(main())"


@dataclass(slots=True)
class _Burst:
    """Seconds until each proxy ran, bytes of each and of its share of the fork server, and how long the daemon was busy with others."""

    taken: list[float] = field(default_factory=list)
    memory: float = 0.0
    answer: float = 0.0
    """Seconds of the longest answer on the control socket meanwhile."""

    def percentile(self, share: int) -> float:
        """Milliseconds."""
        return quantiles(self.taken, n=100)[share - 1] * 1e3


def _configuration(folder: Path, crowd: list[Device]) -> str:
    head = f"""\
[node]
name = "mnps"
state_dir = "{folder}"
run_dir = "{folder}"
bpf_dir = "{folder}/bpf"
interfaces = ["eth0"]

[mnps]
address = "{_ADDRESS}"
access_node = "{CORRESPONDENT}"
home_prefixes = ["{HOMES}"]
links = ["eth0"]
max_handovers = {max(len(crowd), 256)}

[control]
address = "{_ADDRESS}"
"""
    associations = (
        f'[[control.association]]\npeer = "{device.own}"\nsender_id = "{device.ids[0].hex()}"\n'
        f'recipient_id = "{device.ids[1].hex()}"\nsecret_file = "{folder}/secret"\nhome_addresses = ["{device.home}"]\n'
        for device in crowd
    )
    return head + "\n".join(associations)


@contextlib.contextmanager
def _stand_in(
    space: Namespace, folder: Path, crowd: list[Device], *, anew: bool
) -> Iterator[subprocess.Popen[str]]:
    """The daemon, until its control socket answers; stopped at the end."""
    file, log = folder / "mnps.toml", folder / "mnps.log"
    file.write_text(_configuration(folder, crowd))
    with log.open("w") as sink:
        program = (_ANEW if anew else "") + _MAIN
        daemon = space.start(
            sys.executable,
            "-c",
            program,
            "node",
            "run",
            str(file),
            output=sink.fileno(),
            errors=sink.fileno(),
        )
    try:
        end = time.monotonic() + _START
        while True:
            with contextlib.suppress(NodeUnreachable), NodeClient(folder / "mnps.sock") as client:
                client.request("app list")
                break
            if daemon.poll() is not None or time.monotonic() > end:
                raise CommandFailed(f"the stand-in did not start: {log.read_text()[-600:]}")
            time.sleep(0.05)
        yield daemon
    finally:
        stop(daemon, patience=60)


class _Watch:
    """Listens to the daemon's events, and asks it something all the time: both in threads of their own."""

    def __init__(self, path: Path) -> None:
        self.ran: dict[str, float] = {}
        self.failed = ""
        self.longest = 0.0
        self._over = threading.Event()
        self._events, self._asking = NodeClient(path, None), NodeClient(path, _PATIENCE)
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._ask)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(NodeUnreachable, ValueError, OSError):
            for event in self._events.events():
                if event["kind"] == "app-runs":
                    self.ran[event["home_address"]] = event["time"]
                elif event["kind"] == "app-failed":
                    self.failed = json.dumps(event)

    def _ask(self) -> None:
        while not self._over.wait(0.02):
            begun = time.perf_counter()
            self._asking.request("app kinds")
            self.longest = max(self.longest, time.perf_counter() - begun)

    def wait(self, number: int) -> None:
        """Until so many proxies have run. Raises CommandFailed."""
        end = time.monotonic() + _PATIENCE
        while len(self.ran) < number:
            if self.failed or time.monotonic() > end:
                raise CommandFailed(f"{len(self.ran)} of {number} proxies run. {self.failed}")
            time.sleep(0.05)

    def close(self) -> None:
        """Stop both. The daemon ends the events."""
        self._over.set()
        self._threads[1].join()
        self._asking.close()


def _burst(number: int, *, anew: bool) -> _Burst:
    """One burst at a new daemon."""
    crowd = devices(number)
    secret = secrets.token_bytes(32)
    with contextlib.ExitStack() as stack:
        agent, outside = stack.enter_context(namespaces("mnps", "devices"))
        join(agent, "eth0", outside, "eth0")
        agent.ip(f"addr add {_ADDRESS}/24 dev eth0")
        outside.ip(f"addr add {CORRESPONDENT}/24 dev eth0")
        outside.ip(f"route add local {OWN} dev lo")
        agent.ip(f"route add {OWN} via {CORRESPONDENT}")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        stack.enter_context(bpf_filesystem(folder / "bpf"))
        (folder / "secret").touch(mode=0o600)
        (folder / "secret").write_text(secret.hex())
        with outside.entered():
            sockets = [device.begin(_ADDRESS) for device in crowd]
        for device in crowd:
            stack.callback(device.close)
            device.sign(secret, _KIND, dict(_SETTINGS))
        stack.enter_context(_stand_in(agent, folder, crowd, anew=anew))
        watch = _Watch(folder / "mnps.sock")
        try:
            fall_asleep(crowd, sockets)
            watch.wait(number)
        finally:
            watch.close()
        with NodeClient(folder / "mnps.sock", _PATIENCE) as client:
            rows = [row for row in client.request("app list") if row["app"] == APP and row["pid"]]
        found = _Burst([watch.ran[str(device.home)] - device.asked_at for device in crowd])
        pids = [int(row["pid"]) for row in rows]
        found.memory = (sum(map(_share, pids)) + sum(map(_share, _others(pids)))) / len(pids)
        found.answer = watch.longest
    return found


def _share(pid: int) -> int:
    """Bytes of a process, each page divided by the number of those that share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _others(pids: list[int]) -> list[int]:
    """The other children of the proxies' parent: its fork servers."""
    parent = Path(f"/proc/{pids[0]}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if int(child) not in pids]


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The rows of NAMES that are wanted."""
    number, few = max(int(_DEVICES * settings.scale), _FEW), _FEW
    rounds = min(settings.long_rounds, 3)
    try:
        all_at_once = [_burst(number, anew=False) for _ in range(rounds)]
        forked = [_burst(few, anew=False) for _ in range(rounds)]
        anew = [_burst(few, anew=True) for _ in range(rounds)]
    except (NodeRefused, NodeUnreachable) as error:
        raise CommandFailed(f"devices at the stand-in: {error}") from error
    return [row for row in _rows(number, few, all_at_once, forked, anew) if row.name in wanted]


def _rows(
    number: int, few: int, all_at_once: list[_Burst], forked: list[_Burst], anew: list[_Burst]
) -> list[Measurement]:
    def middle(bursts: list[_Burst], share: int) -> str:
        return quantity(median(burst.percentile(share) for burst in bursts))

    answer = quantity(max(burst.answer for burst in all_at_once) * 1e3)
    notes = (
        f"{number:,} devices, each with one connection and one proxy ({_KIND}), from its first 634 to the event `app-runs`; "
        f"the longest answer on the daemon's control socket meanwhile took {answer} ms",
        f"{few} devices: p50 {middle(forked, 50)} ms, p99 {middle(forked, 99)} ms; with each proxy started anew "
        f"p50 {middle(anew, 50)} ms, p99 {middle(anew, 99)} ms",
    )
    return [
        Measurement(
            "sleep_burst_p50", "ms", tuple(burst.percentile(50) for burst in all_at_once), None, notes
        ),
        Measurement("sleep_burst_p99", "ms", tuple(burst.percentile(99) for burst in all_at_once), None),
        Measurement(
            "proxy_memory",
            "KiB",
            tuple(burst.memory / 1024 for burst in all_at_once),
            tuple(burst.memory / 1024 for burst in anew),
            (
                f"proportional share (PSS) of a proxy's process and of its fork server, of {number:,} proxies; "
                f"beside {few} that were started anew",
            ),
        ),
    ]
