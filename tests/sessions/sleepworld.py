"""Three hosts and a router in network namespaces: a peer, a device with a home address, a stand-in.

The device's programs are stock programs. A sleep and a wake are done here as a node would do them, except that packets
are dropped, not held, on the way to the stand-in.
"""

import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Protocol

from locum.sessions.programs.freezer import Freezer
from locum.sessions.record import SessionRecord
from locum.sessions.search.find import Candidate, find
from locum.sessions.tcp import FinalTcp, LiveSocket, drop, restore
from locum.sessions.tcp.spool import Budget, Spool
from locum.wire import cbor

HOME4 = IPv4Address("10.99.0.5")
HOME6 = IPv6Address("fd99::5")
PEER4 = "10.77.1.2"
PEER6 = "fd77:1::2"
RECEIVE_BUFFER = "4096 131072 6291456"  # Debian 12's, whatever the kernel of this machine allows
_numbers = itertools.count()  # a process may have several networks
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)
_ROUTER = {"peer": 1, "device": 2, "standin": 3}


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """Namespaces `peer`, `device`, `standin` around `router`; removed by `close`."""

    def __init__(self) -> None:
        self.prefix = f"lt-{os.getpid()}-s{next(_numbers)}"
        self.tun = self.held = -1
        self.names = {name: f"{self.prefix}-{name}" for name in ("router", *_ROUTER)}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for name in self.names:
            self.sysctl(name, "net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.default.dad_transmits=0")
            self.sysctl(name, f"net.ipv4.tcp_rmem={RECEIVE_BUFFER}")
        for name, number in _ROUTER.items():
            run("ip", "-n", self.names["router"], "link", "add", f"r{number}", "type", "veth", "peer", "name", "e0", "netns", self.names[name])  # fmt: skip
            self._address("router", f"r{number}", number, 1)
            self._address(name, "e0", number, 2)
            self.ip(name, "route", "add", "default", "via", f"10.77.{number}.1")
            self.ip(name, "-6", "route", "add", "default", "via", f"fd77:{number}::1")
        self.sysctl("router", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
        for home, bits in ((HOME4, 32), (HOME6, 128)):
            self.ip(
                "device", "address", "add", f"{home}/{bits}", "dev", "lo", *(["nodad"] if bits == 128 else [])
            )
            family = f"-{home.version}"
            self.ip("standin", family, "rule", "add", "iif", "e0", "lookup", "435")
            self.ip("standin", family, "route", "add", "local", f"{home}/{bits}", "dev", "lo", "table", "435")
        self.ip("device", "route", "change", "default", "via", "10.77.2.1", "src", str(HOME4))
        self.ip("device", "-6", "route", "del", "default")
        self.ip("device", "-6", "route", "add", "default", "via", "fd77:2::1", "src", str(HOME6))
        self.tun = self._tun("device", "back0")
        self.held = self._tun("router", "hold0")
        self.nft("router", "add table inet hold")
        for name in ("device", "standin"):
            self.sysctl(name, "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            self.nft(name, "add table inet hold")
            self.nft(name, "add chain inet hold in { type filter hook prerouting priority -300; }")
            self.nft(name, "add chain inet hold out { type filter hook output priority 0; }")
            self.nft("router", f"add chain inet hold of_{name} {{ type filter hook forward priority 0; }}")
        self.route("device")

    def _tun(self, name: str, link: str) -> int:
        with self.inside(name):
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", link.encode(), 0x1001))
        self.ip(name, "link", "set", link, "txqueuelen", "10000", "up")
        return tun

    def _address(self, name: str, link: str, number: int, host: int) -> None:
        self.ip(name, "link", "set", link, "up")
        self.ip(name, "address", "add", f"10.77.{number}.{host}/24", "dev", link)
        self.ip(name, "-6", "address", "add", f"fd77:{number}::{host}/64", "dev", link, "nodad")

    def ip(self, name: str, *arguments: str) -> str:
        return run("ip", "-n", self.names[name], *arguments)

    def sysctl(self, name: str, *settings: str) -> None:
        run("nsenter", f"--net=/var/run/netns/{self.names[name]}", "sysctl", "-qw", *settings)

    def nft(self, name: str, rule: str) -> None:
        run("nsenter", f"--net=/var/run/netns/{self.names[name]}", "nft", rule)

    def route(self, to: str) -> None:
        number = _ROUTER[to]
        self.ip("router", "route", "replace", f"{HOME4}/32", "via", f"10.77.{number}.2", "dev", f"r{number}")
        self.ip(
            "router",
            "-6",
            "route",
            "replace",
            f"{HOME6}/128",
            "via",
            f"fd77:{number}::2",
            "dev",
            f"r{number}",
        )

    def hold(self) -> None:
        """The home addresses' packets wait at the router, until `release`."""
        for home, family, bits in ((HOME4, "-4", 32), (HOME6, "-6", 128)):
            self.ip("router", family, "route", "replace", f"{home}/{bits}", "dev", "hold0")

    def release(self) -> None:
        """Deliver held packets to the device, and pass all from now on."""
        self.route("device")
        with suppress(BlockingIOError):
            while True:
                os.write(self.held, os.read(self.held, 1 << 16))

    def block(self, name: str, chain: str) -> None:
        """Drop the home addresses' packets, coming `in` by the wire or going `out`.

        Those that go out are lost at the router: as with the data plane, their socket has sent them.
        """
        for family, home in (("ip", HOME4), ("ip6", HOME6)):
            if chain == "in":
                self.nft(
                    name, f"add rule inet hold in iifname e0 {family} daddr {home} meta l4proto tcp drop"
                )
            else:
                lose = f"iifname r{_ROUTER[name]} {family} saddr {home} meta l4proto tcp drop"
                self.nft("router", f"add rule inet hold of_{name} {lose}")

    def unblock(self, name: str, chain: str) -> None:
        if chain == "in":
            self.nft(name, "flush chain inet hold in")
        else:
            self.nft("router", f"flush chain inet hold of_{name}")

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """The calling thread is in that namespace for a while."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(f"/var/run/netns/{self.names[name]}", os.O_RDONLY)
        try:
            if _libc.setns(there, 0):
                raise OSError(ctypes.get_errno(), "setns")
            yield
        finally:
            _libc.setns(before, 0)
            os.close(there)
            os.close(before)

    def start(self, name: str, *command: str, **options: object) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["nsenter", f"--net=/var/run/netns/{self.names[name]}", *command], **options)  # type: ignore[call-overload,no-any-return]

    def deliver(self, packets: tuple[bytes, ...]) -> None:
        for packet in packets:
            os.write(self.tun, packet)

    def close(self) -> None:
        for tun in (self.tun, self.held):
            if tun >= 0:
                os.close(tun)
        for name in self.names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


class Closing(Protocol):
    def close(self) -> None: ...


class Away:
    """One session while its device sleeps."""

    def __init__(self, candidate: Candidate, live: LiveSocket, record: SessionRecord) -> None:
        self.candidate, self.live, self.record = candidate, live, record
        self.socket: socket.socket
        self.spool: Spool


class World:
    """A network, and the two ends of a handover."""

    def __init__(self, network: Network, directory: Path, *, signals: bool = False) -> None:
        self.network = network
        self.directory = directory
        self.freezer = Freezer(f"t{os.getpid()}", directory, signals=signals)
        self.budget = Budget(memory_bound=32 << 20, total_bound=1 << 30)
        self.away: list[Away] = []
        self.programs: list[Closing] = []
        self.kept: list[socket.socket] = []
        self.rounds = 0
        self._count = 0
        self.receive_buffer = 4 << 20

    def close(self) -> None:
        self.freezer.thaw(self.freezer.frozen)
        for program in self.programs:
            program.close()
        for session in self.away:
            session.live.close()
            drop(session.socket)
        for name in ("device", "standin"):
            self.network.unblock(name, "in")
            self.network.unblock(name, "out")
        self.network.route("device")

    def candidates(self) -> list[Candidate]:
        with self.network.inside("device"):
            return find((HOME4, HOME6), {os.getpid()})[0]

    def sleep(self) -> list[SessionRecord]:
        net = self.network
        found = self.candidates()
        assert not self.freezer.freeze([process for candidate in found for process in candidate.processes])
        net.block("device", "in")
        net.block("device", "out")
        for candidate in found:
            live = LiveSocket.open(candidate)
            self.away.append(Away(candidate, live, live.capture()))
        net.block("standin", "in")
        net.route("standin")
        with net.inside("standin"):
            for away in self.away:
                travelled = cbor.decode(cbor.encode(away.record.to_cbor()), limit=64 << 20, field="634")
                record = SessionRecord.from_cbor(travelled)
                assert record == away.record
                away.socket = restore(record, receive_buffer=self.receive_buffer, keep=self.kept.append)
                away.spool = self.new_spool(record)
        net.unblock("standin", "in")
        return [session.record for session in self.away]

    def new_spool(self, record: SessionRecord, name: str = "") -> Spool:
        self._count += 1
        return Spool(name or f"s{self._count}", record, memory_dir=self.directory / "memory", disk_dir=self.directory / "disk", budget=self.budget)  # fmt: skip

    def drain(self) -> int:
        return sum(session.spool.drain(session.socket) for session in self.away)

    def stay(self, seconds: float) -> None:
        self.until(lambda: False, seconds, must=False)

    def until(self, done: Callable[[], bool], seconds: float = 20, *, must: bool = True) -> None:
        """Time passes; the stand-in drains."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                assert not must, "it did not come about in time"
                return
            if not self.drain():
                time.sleep(0.002)

    @contextmanager
    def loose(self) -> Iterator[None]:
        """The programs run meanwhile, though their sessions are away."""
        for session in self.away:
            session.live.let_go()
        processes = self.freezer.frozen
        self.freezer.thaw(processes)
        yield
        self.freezer.freeze(processes)
        for session in self.away:
            session.live.hold()

    def closed(self, away: Away) -> bool:
        """No program will read from it any more."""
        fds = [f"/proc/{pid}/fd/{fd}" for pid, fd in away.candidate.holders]
        held = any(os.path.exists(fd) and os.stat(fd).st_ino == away.candidate.inode for fd in fds)
        return not held or away.live.refuses()

    def put_back(self, away: Away) -> None:
        """Everything that `away.spool` has goes into the original socket, the program reading in between."""
        processes = away.candidate.processes
        deadline = time.monotonic() + 20
        while away.live.position() < away.spool.for_program and not self.closed(away):
            assert time.monotonic() < deadline, (
                away.live.position(),
                away.spool.for_program,
                away.live.unread(),
            )
            done = away.live.inject(away.spool.give(away.live.position(), 64 << 20))
            self.network.deliver(done.packets)
            if away.live.position() == away.spool.for_program:
                return
            self.rounds += 1
            away.live.let_go()
            self.freezer.thaw(processes)
            while away.live.unread() and time.monotonic() < deadline:
                time.sleep(0.001)
            assert not self.freezer.freeze(processes)
            away.live.hold()

    def wake(self) -> list[FinalTcp]:
        net = self.network
        for session in self.away:
            self.put_back(session)
        net.block("standin", "in")
        net.hold()
        finals = []
        for session in self.away:
            last = session.spool.stop(session.socket)
            self.put_back(session)
            finals.append(last)
        net.unblock("device", "out")
        net.unblock(
            "device", "in"
        )  # a node holds until its sockets are back; here, answers would be lost until then
        for session, last in zip(self.away, finals, strict=True):
            net.deliver(session.live.finish(last, closed=self.closed(session)))
            session.live.close()
        net.release()
        self.freezer.thaw(self.freezer.frozen)
        for session in self.away:
            drop(session.socket)
            session.spool.remove()
        self.away.clear()
        net.unblock("standin", "in")
        return finals
