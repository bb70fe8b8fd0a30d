"""Fast paging beside page-then-register: from the packet that pages to the moment at which the device's program has it.

Two labs with a sleeping device each run side by side, and differ in the home agent's `page_forwarding` alone. Both devices fall asleep, and are
paged one after the other. Each time the device's own registration is timed at its radio: it is the exchange with the home agent that fast
paging saves.
"""

import contextlib
import socket
import struct
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.measurement import Measurement, Settings
from bench.namespaces import CommandFailed, Namespace
from bench.report import quantity
from locum.lab.configuration import HOME_ADDRESS4, Pair, Plan, Table
from locum.lab.errors import LabError
from locum.lab.processes import wait_until
from locum.lab.world import Lab
from locum.node.control.client import NodeUnreachable
from locum.wire.mobile_ip.registration import UDP_PORT

FAST, PLAIN = "before", "registration"
BRIEF = 2
"""Seconds of the registration with which a device falls asleep; that with which it wakes is longer."""
_PORT = 9000  # packets to this port page
_PATIENCE = 30.0  # seconds for one packet, and for the device to be awake
_REQUEST, _REPLY = 1, 3
_SO_TIMESTAMPNS = 35
_ETH_P_ALL, _ETH_P_IP = 0x0003, 0x0800


@dataclass(frozen=True, slots=True)
class Heard:
    """An IPv4 packet at the device's radio, with the time at which the kernel had it."""

    time: float
    outgoing: bool
    packet: bytes


@dataclass(frozen=True, slots=True)
class Page:
    """One page. Times in milliseconds after the packet that paged left: its arrival, the device's request and the home agent's reply."""

    arrived: float
    asked: float
    registered: float


def registration(heard: Iterable[Heard]) -> tuple[float, float] | None:
    """When the device asked for its full registration first, and when it had the reply; None if one of them was not heard."""
    asked = None
    for one in heard:
        header = (one.packet[0] & 15) * 4
        message = one.packet[header + 8 :]
        if one.packet[9] != socket.IPPROTO_UDP or len(message) < 4:
            continue
        source, destination = struct.unpack("!HH", one.packet[header : header + 4])
        (lifetime,) = struct.unpack("!H", message[2:4])
        if one.outgoing:
            if asked is None and destination == UDP_PORT and message[0] == _REQUEST and lifetime > BRIEF:
                asked = one.time
        elif asked is not None and source == UDP_PORT and message[0] == _REPLY and lifetime > BRIEF:
            return asked, one.time
    return None


def remarks(fast: list[Page], plain: list[Page]) -> str:
    """The note of the row: the time of an exchange with the home agent, and how many of them fast paging wins."""
    exchange = median(one.registered - one.asked for one in (*fast, *plain))
    won = median(after.arrived - before.arrived for before, after in zip(fast, plain, strict=True))
    early = sum(one.arrived < one.registered for one in fast)
    late = sum(one.arrived > one.asked for one in plain)
    return (
        f"baseline: page_forwarding = {PLAIN}; fast wins {quantity(won)} ms, one exchange with the home agent takes {quantity(exchange)} ms "
        f"({quantity(won / exchange)} exchanges); {early} of {len(fast)} packets came before the reply to the registration, and {late} of "
        f"{len(plain)} of the baseline after its request"
    )


def _plan(forwarding: str) -> Plan:
    rule: Table = {"id": 7, "priority": 7, "action": "page", "protocol": "udp", "destination_port": _PORT}
    return Plan(
        short_lifetime=BRIEF,
        associations=(Pair("ha", "an1"), Pair("ha", "an2")),
        tables={
            "ha": {
                "home_agent": {
                    "page_seconds": 60.0,
                    "page_rule_interval": 0.0,
                    "page_burst": 1000,
                    "page_forwarding": forwarding,
                    "mobile": {"rule": [rule]},
                }
            }
        },
    )


def _stamp(ancillary: list[tuple[int, int, bytes]]) -> float:
    seconds, nanoseconds = next(
        struct.unpack("=qq", data)
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS)
    )
    return float(seconds + nanoseconds / 1e9)


@dataclass(slots=True)
class _Site:
    """A lab, the correspondent's socket, the socket of the device's program, and an ear at the device's radio."""

    lab: Lab
    trigger: socket.socket
    program: socket.socket
    radio: socket.socket
    pages: list[Page] = field(default_factory=list)

    def fall_asleep(self) -> None:
        self.lab.command("mn", "sleep")
        wait_until("the rule to be in force", lambda: self.lab.flow_rules()[0]["live"] == [4, 6], _PATIENCE)

    def page(self) -> Page:
        """Page the sleeping device, and leave it awake. Raises CommandFailed, LabError."""
        self._heard()
        text = b"%d" % time.monotonic_ns()
        sent = time.time()
        self.trigger.sendto(text, (str(HOME_ADDRESS4), _PORT))
        try:
            found, ancillary, _, _ = self.program.recvmsg(2048, 256)
        except TimeoutError:
            raise CommandFailed(
                f"the packet that paged did not reach the device in {_PATIENCE:.0f} s"
            ) from None
        if found != text:
            raise CommandFailed(f"the device got {found!r} instead of the packet that paged")
        wait_until("the device to be awake", self._awake, _PATIENCE)
        moments = registration(self._heard())
        if moments is None:
            raise CommandFailed("the registration of the paged device was not heard at its radio")
        arrived, asked, registered = (1e3 * (at - sent) for at in (_stamp(ancillary), *moments))
        return Page(arrived, asked, registered)

    def _awake(self) -> bool:
        return bool(self.lab.ask("mn", "status")["mobile_node"]["state"] == "awake")

    def _heard(self) -> list[Heard]:
        """All IPv4 packets at the radio since the last time."""
        heard = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, ancillary, _, address = self.radio.recvmsg(2048, 256)
                if address[1] == _ETH_P_IP:
                    heard.append(Heard(_stamp(ancillary), address[2] == socket.PACKET_OUTGOING, packet))
        return heard


@contextlib.contextmanager
def _site(forwarding: str, output: Path) -> Iterator[_Site]:
    with contextlib.ExitStack() as stack:
        lab = stack.enter_context(Lab(f"fast-{forwarding}", output, _plan(forwarding), captures=False))
        with Namespace(lab.place.namespace("cn")).entered():
            trigger = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        with Namespace(lab.place.namespace("mn")).entered():
            program = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            radio = stack.enter_context(
                socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            )
        for one in (program, radio):
            one.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        program.bind(("", _PORT))
        program.settimeout(_PATIENCE)
        radio.bind(("radio0", _ETH_P_ALL))
        radio.setblocking(False)
        lab.wait_registered()
        yield _Site(lab, trigger, program, radio)


def _play(rounds: int) -> tuple[list[Page], list[Page]]:
    """Pages in turns; the first pair warms up, and every second round runs backwards."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="locum-bench-")))
        sites = [stack.enter_context(_site(name, folder / name)) for name in (FAST, PLAIN)]
        for number in range(1 + rounds):
            for at in sites:
                at.fall_asleep()
            time.sleep(BRIEF + 0.5)
            for at in sites if number % 2 else reversed(sites):
                at.pages.append(at.page())
        fast, plain = (at.pages[1:] for at in sites)
        return fast, plain


def measure(settings: Settings, wanted: Collection[str]) -> list[Measurement]:
    """The row `page_fast`. Raises CommandFailed."""
    try:
        fast, plain = _play(settings.rounds)
    except (LabError, NodeUnreachable) as error:
        raise CommandFailed(f"fast paging: {error}") from error
    values, baselines = (tuple(one.arrived for one in pages) for pages in (fast, plain))
    row = Measurement("page_fast", "ms", values, baselines, (remarks(fast, plain),))
    return [row] if row.name in wanted else []
