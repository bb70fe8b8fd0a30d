"""Both ends of the enrolment for tests: a server at the loopback interface, and devices with codes of it."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from locum.node.enrolment.joining import Enrolled, enrol
from locum.node.enrolment.serving import Candidate, EnrolmentServer
from locum.node.store import Store
from locum.wire.enrolment.code import Code
from locum.wire.enrolment.messages import Denied, Grant

WALL = 1_800_000_000.0
FIRST, SECOND = b"\x01" * 32, b"\x02" * 32
NETWORKS = (IPv4Network("192.168.1.0/24"),)


class Owner:
    """Owns a server: its store, its clock, and the devices that it has admitted."""

    def __init__(self, path: Path) -> None:
        self.store = Store(path)
        self.steady = 1000.0
        self.wall = WALL
        self.refuses: Denied | None = None
        self.problem: Exception | None = None
        self.admitted: list[Candidate] = []
        self.transport = IPv4Address("10.20.1.2")
        self.server = EnrolmentServer(self.store, self.admit, lambda: self.steady, os.urandom, port=0)

    async def admit(self, candidate: Candidate) -> Grant | Denied:
        if self.problem is not None:
            raise self.problem
        if self.refuses is not None:
            return self.refuses
        self.admitted.append(candidate)
        return Grant(
            name=candidate.name,
            home=IPv4Address("10.20.0.2"),
            home_v6=None,
            transport=self.transport,
            transport_length=24,
            server_transport=IPv4Address("10.20.1.1"),
            server_key=b"\x09" * 32,
            wireguard_port=51820,
            spi=256,
            clock=int(self.wall),
        )

    def code(self, name: str = "laptop", seconds: float = 900.0, host: str = "127.0.0.1") -> Code:
        invitation = self.server.invite(name, seconds)
        return Code(host, invitation.number, invitation.secret, self.server.port)


@asynccontextmanager
async def serving(path: Path, hosts: tuple[str, ...] = ("127.0.0.1",)) -> AsyncIterator[Owner]:
    owner = Owner(path)
    try:
        await owner.server.start(hosts)
        yield owner
    finally:
        await owner.server.close()
        await owner.store.close()


async def join(code: Code, key: bytes = FIRST) -> Enrolled:
    return await enrol(code, key, NETWORKS, lambda: WALL, os.urandom)
