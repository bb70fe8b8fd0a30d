"""A real home agent and a real access node with sleeping devices, and the air between access node and devices.

cn 198.18.9.2 -- 198.18.9.1 ha 198.18.8.1 -- 198.18.8.2 an 198.18.7.1 -- 198.18.7.2 air     (home addresses from 10.64.0.1 on)

The devices have registered at the access node for a moment. In the air one process hears all frames of the access node, and answers calls with
the devices' key.
"""

import contextlib
import secrets
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path

from bench.namespaces import CommandFailed, Namespace, bpf_filesystem, join, namespaces, stop
from bench.registrar import SPI, check_accepted, exchange
from locum.lab.world import locum
from locum.roles.action_values.page_calls import CallDecision, PageCallAnswer
from locum.roles.mobile_ipv4.page_calls import read_call, write_call_answer
from locum.security.association import Association
from locum.security.replay import next_identification
from locum.wire.errors import WireError
from locum.wire.mobile_ip.authenticate import append_authentication
from locum.wire.mobile_ip.extensions import AuthKind
from locum.wire.mobile_ip.registration import UDP_PORT, Flag, RegistrationRequest

HOME_AGENT, ACCESS_NODE = IPv4Address("198.18.8.1"), IPv4Address("198.18.8.2")
ON_LINK, AIR = IPv4Address("198.18.7.1"), IPv4Address("198.18.7.2")
FIRST_HOME = IPv4Address("10.64.0.1")
PORT = 9000
"""Packets to this port page."""
CYCLE, LENGTH = 320, 20
"""Milliseconds, of devices that listen in slots."""
_BRIEF = 5  # seconds of a registration, after which a device sleeps
_START = 120.0
_ETH_P_IP = 0x0800
_CHUNK = 500


@dataclass(slots=True)
class Site:
    """The network, and its devices by number."""

    cn: Namespace
    agent: Namespace
    access: Namespace
    air: Namespace
    folder: Path
    devices: int
    key: Association
    first_slotted: int
    trigger: socket.socket = field(init=False)
    hearing: socket.socket = field(init=False)
    answering: socket.socket = field(init=False)

    def home(self, number: int) -> IPv4Address:
        """The home address of a device."""
        return FIRST_HOME + number

    def offset(self, number: int) -> int:
        """Milliseconds of the slots of a device: they spread over the cycle."""
        return number * 37 % CYCLE

    def page(self, number: int) -> float:
        """Send a packet that pages a device. The time at which it left, in seconds since 1970."""
        at = time.time()
        self.trigger.sendto(b"trigger", (str(self.home(number)), PORT))
        return at

    def control(self) -> float:
        """Send a packet that both nodes forward to the air, as they forward any other. The time at which it left."""
        at = time.time()
        self.trigger.sendto(b"control", (str(AIR), PORT))
        return at

    def heard(self, patience: float) -> tuple[IPv4Address, float, bytes] | None:
        """The next packet in the air: its destination, when the kernel got it, and its UDP payload; None after `patience` seconds."""
        end = time.monotonic() + patience
        while (left := end - time.monotonic()) > 0:
            self.hearing.settimeout(left)
            try:
                packet, ancillary, _, address = self.hearing.recvmsg(2048, 256)
            except TimeoutError:
                return None
            if packet[9] != socket.IPPROTO_UDP or address[2] == socket.PACKET_OUTGOING:
                continue
            at = next(
                struct.unpack("=qq", data)
                for level, kind, data in ancillary
                if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
            )
            header = (packet[0] & 15) * 4
            return IPv4Address(packet[16:20]), at[0] + at[1] / 1e9, packet[header + 8 :]
        return None

    def answer(self, message: bytes) -> None:
        """Answer a call as the device would: it wakes."""
        try:
            call = read_call(message)
        except WireError:
            return
        said = PageCallAnswer(call.page, call.home_address, call.identification, CallDecision.WAKING)
        self.answering.sendto(write_call_answer(said, self.key), (str(ON_LINK), UDP_PORT))

    def register(self, begin: int, end: int) -> None:
        """Register those devices for a moment, as at the access node. Raises CommandFailed unless all are accepted."""
        with self.access.entered():
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.connect((str(HOME_AGENT), UDP_PORT))
            for first in range(begin, end, _CHUNK):
                homes = [self.home(number) for number in range(first, min(first + _CHUNK, end))]
                _, answers = exchange(client, self._signed(homes))
                check_accepted(answers, homes)

    def _signed(self, homes: list[IPv4Address]) -> list[bytes]:
        signed, identification = [], None
        for home in homes:
            identification = next_identification(time.time(), identification)
            request = RegistrationRequest(_BRIEF, home, HOME_AGENT, ACCESS_NODE, identification, Flag.T)
            signed.append(
                append_authentication(
                    request.encode(), AuthKind.MN_HA, SPI, self.key.digest, authenticator_bytes=32
                )
            )
        return signed


_SO_TIMESTAMPNS = 35


@contextlib.contextmanager
def site(devices: int, *, slotted: int = 0) -> Iterator[Site]:
    """Network and daemons with so many sleeping devices that always listen, and `slotted` more that listen in slots."""
    with contextlib.ExitStack() as stack:
        cn, agent, access, air = stack.enter_context(namespaces("cn", "ha", "an", "air"))
        _wire(cn, agent, access, air)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        stack.enter_context(bpf_filesystem(folder / "bpf"))
        key = secrets.token_bytes(32)
        made = Site(cn, agent, access, air, folder, devices + slotted, Association(SPI, key), devices)
        for name in ("key", "control"):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(key.hex() if name == "key" else secrets.token_hex(16))
        for name, space, text in (("an", access, _access_node(made)), ("ha", agent, _home_agent(made))):
            stack.enter_context(_daemon(made, name, space, text))
        with cn.entered():
            made.trigger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with air.entered():
            made.hearing = stack.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP))
            )
            made.answering = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made.hearing.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        made.hearing.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 25)
        made.hearing.bind(("radio0", _ETH_P_IP))
        made.register(0, made.devices)
        time.sleep(_BRIEF + 1)
        yield made


_SO_RCVBUFFORCE = 33


def _wire(cn: Namespace, agent: Namespace, access: Namespace, air: Namespace) -> None:
    join(cn, "eth0", agent, "eth1")
    join(agent, "eth0", access, "eth0")
    join(access, "radio0", air, "radio0")
    for space, address, link in (
        (cn, "198.18.9.2", "eth0"), (agent, "198.18.9.1", "eth1"), (agent, HOME_AGENT, "eth0"),
        (access, ACCESS_NODE, "eth0"), (access, ON_LINK, "radio0"), (air, AIR, "radio0"),
    ):  # fmt: skip
        space.ip(f"addr add {address}/24 dev {link}")
    for space in (agent, access):
        space.sysctl({"ipv4.ip_forward": "1"})
    cn.ip("route add default via 198.18.9.1")
    agent.ip(f"route add default via {ACCESS_NODE}")
    access.ip(f"route add default via {HOME_AGENT}")
    air.ip(f"route add default via {ON_LINK}")


def _head(at: Site, name: str, interfaces: str, address: IPv4Address) -> str:
    return f"""\
[node]
name = "{name}"
state_dir = "{at.folder}"
run_dir = "{at.folder}"
bpf_dir = "{at.folder}/bpf"
interfaces = [{interfaces}]

[control]
address = "{address}"
"""


def _association(at: Site, peer: IPv4Address, sender: str, recipient: str) -> str:
    homes = ", ".join(f'"{at.home(number)}"' for number in range(at.devices))
    return f"""
[[control.association]]
peer = "{peer}"
sender_id = "{sender}"
recipient_id = "{recipient}"
secret_file = "{at.folder}/control"
home_addresses = [{homes}]
"""


def _home_agent(at: Site) -> str:
    rule = (
        '[[home_agent.mobile.rule]]\nid = 1\npriority = 1\naction = "page"\nprotocol = "udp"\n'
        f"destination_port = {PORT}\n"
    )
    mobiles = (
        f'[[home_agent.mobile]]\nhome_address = "{at.home(number)}"\nspi = {SPI}\nkey_file = "{at.folder}/key"\n{rule}'
        for number in range(at.devices)
    )
    return (
        _head(at, "ha", '"eth0", "eth1"', HOME_AGENT)
        + _association(at, ACCESS_NODE, "01", "02")
        + f'\n[home_agent]\naddress = "{HOME_AGENT}"\nhome_prefixes = ["10.64.0.0/14"]\npage_rule_interval = 0.0\n'
        + "page_seconds = 120.0\npage_wake_seconds = 600.0\n"
        + "\n".join(mobiles)
    )


def _access_node(at: Site) -> str:
    sleepers = (
        f'[[foreign_agent.sleeper]]\nhome_address = "{at.home(number)}"\npage_cycle = {CYCLE}\npage_slot = {LENGTH}\n'
        f"page_offset = {at.offset(number)}\n"
        for number in range(at.first_slotted, at.devices)
    )
    return (
        _head(at, "an", '"eth0", "radio0"', ACCESS_NODE)
        + _association(at, HOME_AGENT, "02", "01")
        + f'\n[foreign_agent]\ncare_of_address = "{ACCESS_NODE}"\nlinks = ["radio0"]\nadvertise_interval = 600.0\n'
        + "\n".join(sleepers)
    )


@contextlib.contextmanager
def _daemon(at: Site, name: str, space: Namespace, text: str) -> Iterator[subprocess.Popen[str]]:
    file, log = at.folder / f"{name}.toml", at.folder / f"{name}.log"
    file.write_text(text)
    with log.open("w") as sink:
        daemon = space.start(*locum(), "node", "run", str(file), output=sink.fileno(), errors=sink.fileno())
    try:
        _wait_for(lambda: _answers(at.folder / f"{name}.sock"), daemon, log)
        yield daemon
    finally:
        stop(daemon, patience=60)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as control, contextlib.suppress(OSError):
        control.connect(str(path))
        return True
    return False


def _wait_for(ready: Callable[[], bool], daemon: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + _START
    while not ready():
        if daemon.poll() is not None:
            raise CommandFailed(f"the daemon ended with {daemon.returncode}: {log.read_text()[-600:]}")
        if time.monotonic() > end:
            raise CommandFailed(f"the daemon is not ready after {_START:.0f} s: {log.read_text()[-600:]}")
        time.sleep(0.05)
