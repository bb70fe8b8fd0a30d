"""Connection tracking leaves alone what comes out of the node's re-injection device (`nft`, a table of the device's name).

The host tracks and translates a packet where it enters by an interface. The programs may send it back to this host by that device,
for the socket of a stand-in: tracked there again it would clash with the translated connection, and be dropped. The table stands
before the host's own ones, and outlives the daemon.
"""

import asyncio
import errno
import logging
import shutil
import socket
import struct

from locum.dataplane.kernel.host.lost import Key, received

_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"
_PATIENCE = 10.0  # seconds for nft
_PRIORITY = -450  # before fragments are put together (-400) for connection tracking
_NETFILTER, _TABLES_GROUP = 12, 7  # NETLINK_NETFILTER, NFNLGRP_NFTABLES
_DELETIONS = tuple(10 << 8 | kind for kind in (2, 5, 8))  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE
_NAME = 1  # NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_GENERIC = 4  # bytes of struct nfgenmsg
_ATTRIBUTE = struct.Struct("=HH")

log = logging.getLogger("locum.host")


def table_key(device: str) -> Key:
    """Key of the table by which its loss is known."""
    return ("table", device)


async def make(device: str, *, anew: bool) -> None:
    """Make the table, or replace it. Raises OSError, and FileExistsError if it is whole and was to be made `anew`.

    Without `nft` nothing is made: the host then has no translation by nftables either, as far as this node can know.
    """
    if shutil.which("nft", path=_PATH) is None:
        log.warning("cannot keep %s out of connection tracking: nft is missing; install nftables", device)
        return
    if anew and await _is_whole(device):
        raise FileExistsError(device)
    problem = await _nft(_script(device))
    if problem and anew:
        raise OSError(errno.EINVAL, f"nft: {problem}")
    if problem:  # a kernel without nf_tables has no translation by it
        log.warning("cannot keep %s out of connection tracking: nft: %s", device, problem)


async def remove(device: str, *, anew: bool = False) -> None:
    """Remove the table; no error if it is not there."""
    if shutil.which("nft", path=_PATH) is not None:
        await _nft(f"table inet {device}\ndelete table inet {device}\n")


def _script(device: str) -> str:
    return (
        f"table inet {device}\ndelete table inet {device}\ntable inet {device} {{\n chain untracked {{\n"
        f"  type filter hook prerouting priority {_PRIORITY}; policy accept;\n"
        f'  iifname "{device}" notrack\n }}\n}}\n'
    )


async def _is_whole(device: str) -> bool:
    tool = shutil.which("nft", path=_PATH) or "nft"
    _status, output, _errors = await _run(tool, "list", "chain", "inet", device, "untracked")
    return f'iifname "{device}" notrack' in output


async def _nft(script: str) -> str:
    """Run it; the error as one line, empty if there is none."""
    tool = shutil.which("nft", path=_PATH) or "nft"
    status, _output, errors = await _run(tool, "-f", "-", script=script)
    if status == 0:
        return ""
    lines = errors.strip().splitlines()
    return lines[0] if lines else f"exit status {status}"


async def _run(*command: str, script: str = "") -> tuple[int | None, str, str]:
    """Exit status, output and errors of a program, which is killed when it does not end: its status is None then."""
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        output, errors = await asyncio.wait_for(running.communicate(script.encode()), _PATIENCE)
    except TimeoutError:
        running.kill()
        await running.wait()
        return None, "", f"{command[0]} did not end in {_PATIENCE:.0f} s"
    return running.returncode, output.decode(errors="replace"), errors.decode(errors="replace")


class TableLosses:
    """A netlink socket on which the kernel tells of tables, chains and rules of nftables that went."""

    def __init__(self) -> None:
        """Raises OSError where the kernel has no netfilter."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETFILTER)
        try:
            self._socket.bind((0, 1 << (_TABLES_GROUP - 1)))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> tuple[set[Key], bool]:
        """Keys of tables of which something went, and whether the kernel had to leave some out."""
        datagrams, missed = received(self._socket)
        return {key for datagram in datagrams for key in table_losses(datagram)}, missed

    def close(self) -> None:
        self._socket.close()


def table_losses(datagram: bytes) -> set[Key]:
    """Keys of the tables that a datagram of nfnetlink names in deletions; messages that are cut short are left out."""
    keys: set[Key] = set()
    start = 0
    while start + _MESSAGE.size <= len(datagram):
        length, kind, *_ = _MESSAGE.unpack_from(datagram, start)
        if length < _MESSAGE.size or start + length > len(datagram):
            break
        if kind in _DELETIONS:
            name = _name(datagram[start + _MESSAGE.size + _GENERIC : start + length])
            if name:
                keys.add(table_key(name))
        start += length + 3 & ~3
    return keys


def _name(attributes: bytes) -> str:
    start = 0
    while start + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, start)
        if length < _ATTRIBUTE.size:
            break
        if kind & 0x3FFF == _NAME:
            text = attributes[start + _ATTRIBUTE.size : start + length]
            return text.rstrip(b"\0").decode(errors="replace")
        start += length + 3 & ~3
    return ""
