"""The interface of WireGuard on this host: made, adopted, given an address and an MTU, taken away.

The kernel's WireGuard if the kernel has it; else wireguard-go, which goes on when the daemon is killed: it makes itself a
daemon, and where systemd runs this node it gets a unit of its own, since systemd ends all processes of ours with us.
An interface is ours if the store says that we made it, or if it has our key; no other is touched.
"""

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
import socket
import struct
from collections.abc import Awaitable
from ipaddress import ip_interface
from pathlib import Path

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from locum.node.config.wireguard.values import WireGuardSettings, public_key_of
from locum.node.tables import HostStore, HostTable
from locum.node.wireguard import tool
from locum.node.wireguard.tool import InterfaceState, Secret, WireGuardError

KERNEL, PROCESS = "kernel", "wireguard-go"
_ROW = "interface"
_SOCKETS = Path("/var/run/wireguard")  # where wireguard-go and wg meet
_SIOCGIFMTU = 0x8921
_NOT_KNOWN = (errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL)  # kernels without a kind of link say one of these


class Interface:
    """The one interface of this node."""

    def __init__(self, settings: WireGuardSettings, store: HostStore) -> None:
        self._settings, self._store = settings, store
        self.name = settings.interface
        self.kind = ""
        self.adopted = False
        self._kernel = AsyncIPRoute()
        self._row: dict[str, object] = {}  # of the interface that this node made

    async def open(self) -> None:
        """Connect to the kernel. Raises OSError or StoreError."""
        self._row = dict(self._store.rows(HostTable.WIREGUARD).get(_ROW, {}))
        await self._kernel.setup_endpoint()

    def close(self) -> None:
        """Leave the interface in place."""
        self._kernel.close()

    async def establish(self, private_key: str) -> InterfaceState:
        """Make or adopt it, with key, port, mark and address, up. Raises WireGuardError, and is as before then."""
        state = await self._found(private_key)
        self.adopted = state is not None
        if state is None:
            await self._make()
        try:
            return await self._prepare(private_key, state)
        except BaseException:
            if not self.adopted:
                await self.remove()
            raise

    async def remove(self) -> None:
        """Take it away; wireguard-go ends with it. No error if it is gone."""
        if (index := self.index()) and self._is_made(index):
            await self._link("del", index=index)
        self._row = {}
        self._store.forget(HostTable.WIREGUARD, _ROW)
        with contextlib.suppress(OSError):
            self._socket().unlink()

    def index(self) -> int:
        """Its number; 0: there is no interface of this name."""
        try:
            return socket.if_nametoindex(self.name)
        except OSError:
            return 0

    @property
    def mtu(self) -> int:
        """Its MTU in bytes; 0: it is gone."""
        return mtu_of(self.name)

    async def set_mtu(self, mtu: int) -> None:
        """Raises WireGuardError."""
        await self._link("set", index=self.index(), mtu=mtu)

    # making ---------------------------------------------------------------------------------------------------------

    def _is_made(self, index: int) -> bool:
        return self._row.get("index") == index and self._row.get("name") == self.name

    async def _found(self, private_key: str) -> InterfaceState | None:
        """State of our interface that an earlier run has left; None: there is none. Raises WireGuardError."""
        index = self.index()
        if not index:
            return None
        refusal = (
            f"there is an interface {self.name} that is not of this node; "
            f"choose another name in interface of [wireguard], or end it: ip link del {self.name}"
        )
        made = self._is_made(index)
        try:
            state = await tool.show(self.name)
        except WireGuardError:
            if not made:
                raise WireGuardError(refusal) from None
            await self._link("del", index=index)  # its process has ended: it carries nothing
            return None
        if not made and state.public_key != public_key_of(private_key):
            raise WireGuardError(refusal)
        self.kind = PROCESS if self._socket().exists() else KERNEL
        await self._remember(index)
        return state

    async def _make(self) -> None:
        try:
            await self._kernel.link("add", ifname=self.name, kind="wireguard")
            self.kind = KERNEL
        except NetlinkError as problem:
            if problem.code not in _NOT_KNOWN:
                raise WireGuardError(f"interface {self.name} cannot be made: {problem.args[-1]}") from None
            await self._start_process()
            self.kind = PROCESS
        await self._remember(self.index())

    async def _start_process(self) -> None:
        program = shutil.which("wireguard-go")
        if program is None:
            raise WireGuardError(
                "this kernel has no WireGuard, and wireguard-go is missing: apt-get install wireguard-go, "
                "or load the module wireguard"
            )
        if await _answers(self._socket()):
            raise WireGuardError(
                f"another wireguard-go serves {self.name} in another network namespace, at {self._socket()}; "
                "choose another name in interface of [wireguard]"
            )
        command = (*_own_unit(self.name), program, "-f", self.name) if _by_systemd() else (program, self.name)
        code, _output, complaints = await tool.run(command)
        for _ in range(100):
            if code or (self.index() and await _answers(self._socket())):
                break
            await asyncio.sleep(0.05)
        if code or not self.index():
            said = " ".join(word for word in complaints.split() if word.isascii()) or "it ended"
            raise WireGuardError(f"wireguard-go has not made {self.name}: {said[-200:]}")

    async def _remember(self, index: int) -> None:
        self._row = {"name": self.name, "index": index, "kind": self.kind}
        self._store.put(HostTable.WIREGUARD, _ROW, self._row)
        await self._store.durable()

    def _socket(self) -> Path:
        return _SOCKETS / f"{self.name}.sock"

    # setting --------------------------------------------------------------------------------------------------------

    async def _prepare(self, private_key: str, state: InterfaceState | None) -> InterfaceState:
        settings, index = self._settings, self.index()
        if state is None or state.public_key != public_key_of(private_key):
            await tool.change(self.name, ("private-key", Secret(private_key)))
        if state is None or state.mark != settings.mark:
            await tool.change(self.name, ("fwmark", hex(settings.mark)))
        await self._address(index)
        await self._link("set", index=index, state="up")
        port = settings.listen_port
        if port and (
            state is None or state.listen_port != port
        ):  # when it is up: else wireguard-go says nothing
            try:
                await tool.change(self.name, ("listen-port", str(port)))
            except WireGuardError as problem:
                if "in use" not in str(problem):
                    raise
                raise WireGuardError(
                    f"UDP port {port} of listen_port in [wireguard] is in use; "
                    f"end its owner (ss -lunp 'sport = {port}'), or choose another port"
                ) from None
        return await tool.show(self.name)

    async def _address(self, index: int) -> None:
        wanted, family = self._settings.address, socket.AF_INET
        if wanted.version == 6:
            family = socket.AF_INET6
        found = {
            ip_interface(f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            async for message in await self._kernel.get_addr(index=index, family=family)
        }  # fmt: skip
        for stale in found - {wanted}:
            if not stale.is_link_local:
                await self._addr("del", index, str(stale.ip), stale.network.prefixlen, family)
        if wanted not in found:
            await self._addr("add", index, str(wanted.ip), wanted.network.prefixlen, family)

    async def _addr(self, command: str, index: int, address: str, length: int, family: int) -> None:
        arguments = {"flags": 2} if family == socket.AF_INET6 and command == "add" else {}  # nodad
        await _told(
            self._kernel.addr(
                command, index=index, address=address, prefixlen=length, family=family, **arguments
            ),
            f"address {address} of {self.name}",
        )

    async def _link(self, command: str, **arguments: object) -> None:
        try:
            await self._kernel.link(command, **arguments)
        except NetlinkError as problem:
            if command == "del" and problem.code == errno.ENODEV:
                return
            raise WireGuardError(f"interface {self.name}: {command}: {problem.args[-1]}") from None


def mtu_of(name: str) -> int:
    """The MTU of a link in bytes; 0: there is none of this name."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFMTU, struct.pack("16si20x", name.encode(), 0))
        except OSError:
            return 0
    return int(struct.unpack("16si20x", answer)[1])


async def _told(change: Awaitable[object], what: str) -> None:
    try:
        await change
    except NetlinkError as problem:
        if problem.code not in (errno.EEXIST, errno.EADDRNOTAVAIL):
            raise WireGuardError(f"{what}: {problem.args[-1]}") from None


async def _answers(path: Path) -> bool:
    """True if a process listens at the Unix socket."""
    try:
        _reader, writer = await asyncio.open_unix_connection(path)
    except OSError:
        return False
    writer.close()
    return True


def _by_systemd() -> bool:
    """True if systemd has started this process as a service."""
    return "INVOCATION_ID" in os.environ and Path("/run/systemd/system").is_dir()


def _own_unit(name: str) -> tuple[str, ...]:
    return "systemd-run", "--quiet", "--collect", f"--unit=locum-wireguard-{name}"
