"""A real home agent daemon under load: its network, its configuration with many mobile nodes, its process.

crowd 198.18.8.2 .. .9 -- 198.18.8.1 ha        (home addresses from 10.64.0.1 on)
"""

import contextlib
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from bench.namespaces import CommandFailed, Namespace, bpf_filesystem, join, namespaces, stop
from bench.registrar import SPI, Crowd
from locum.lab.world import locum
from locum.security.association import Association

ADDRESS = IPv4Address("198.18.8.1")
CARE_OF_ADDRESSES = tuple(IPv4Address("198.18.8.2") + number for number in range(8))
"""The crowd's care-of addresses; a mobile node that takes another one has moved."""
LIFETIME = 1800
_START_SECONDS = 240.0  # 100,000 mobile nodes on a busy machine


@dataclass(frozen=True, slots=True)
class Site:
    """The two hosts, the folder of the home agent's files, and its crowd of mobile nodes."""

    agent: Namespace
    outside: Namespace
    folder: Path
    pins: Path
    crowd: Crowd

    @property
    def key_file(self) -> Path:
        """The key that all mobile nodes of the crowd share."""
        return self.folder / "key"

    def client(self, port: int) -> socket.socket:
        """A UDP socket of the crowd's host, connected to `port` of the home agent's host. The caller closes it."""
        with self.outside.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect((str(ADDRESS), port))
        return client


@contextlib.contextmanager
def site(mobiles: int) -> Iterator[Site]:
    """The network and the files for `mobiles` mobile nodes; all removed at the end."""
    with contextlib.ExitStack() as stack:
        agent, outside = stack.enter_context(namespaces("ha", "crowd"))
        join(agent, "eth0", outside, "eth0")
        agent.ip(f"addr add {ADDRESS}/24 dev eth0")
        for address in CARE_OF_ADDRESSES:
            outside.ip(f"addr add {address}/24 dev eth0")
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        pins = stack.enter_context(bpf_filesystem(folder / "bpf"))
        key = secrets.token_bytes(32)
        made = Site(agent, outside, folder, pins, Crowd(mobiles, ADDRESS, Association(SPI, key)))
        made.key_file.touch(mode=0o600)
        made.key_file.write_text(key.hex())
        yield made


def configuration(at: Site) -> str:
    """The home agent's TOML for the whole crowd."""
    head = f"""\
[node]
name = "ha"
state_dir = "{at.folder}"
run_dir = "{at.folder}"
bpf_dir = "{at.pins}"
interfaces = ["eth0"]

[home_agent]
address = "{ADDRESS}"
home_prefixes = ["10.64.0.0/14"]
max_lifetime = {LIFETIME}
"""
    mobiles = (
        f'[[home_agent.mobile]]\nhome_address = "{home_address}"\nspi = {SPI}\nkey_file = "{at.key_file}"\n'
        for home_address in at.crowd.home_addresses(0, at.crowd.mobiles)
    )
    return head + "\n".join(mobiles)


@contextlib.contextmanager
def home_agent(at: Site) -> Iterator[subprocess.Popen[str]]:
    """The daemon, started with the crowd's configuration, once its control socket answers; stopped at the end."""
    file = at.folder / "ha.toml"
    file.write_text(configuration(at))
    log = at.folder / "ha.log"
    with log.open("w") as sink:
        command = (*locum(), "node", "run", str(file))
        daemon = at.agent.start(*command, output=sink.fileno(), errors=sink.fileno())
    try:
        _wait_for(daemon, at.folder / "ha.sock", log)
        yield daemon
    finally:
        stop(daemon, patience=60)


def _wait_for(daemon: subprocess.Popen[str], path: Path, log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as control, contextlib.suppress(OSError):
            control.connect(str(path))
            return
        if daemon.poll() is not None:
            raise CommandFailed(f"the home agent ended with {daemon.returncode}: {log.read_text()[-600:]}")
        if time.monotonic() > end:
            raise CommandFailed(f"the home agent is not ready after {_START_SECONDS:.0f} s")
        time.sleep(0.05)
