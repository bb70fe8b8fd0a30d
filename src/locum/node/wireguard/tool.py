"""Calls `wg` of wireguard-tools, and reads what it shows.

One stock program sets the kernel's WireGuard and wireguard-go alike, and is kept by WireGuard's authors; pyroute2 knows the
kernel's alone. Keys go through files in memory that only `wg` inherits: no process list and no disk has them.
"""

import asyncio
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from locum.node.config.wireguard.values import Endpoint, endpoint_of_text

_PROGRAM = "wg"
_SECONDS = 10.0  # a call takes a few milliseconds


class WireGuardError(RuntimeError):
    """WireGuard cannot be set up or changed. `str()` is one line for a person."""


@dataclass(frozen=True, slots=True)
class PeerState:
    """A peer as the interface has it."""

    public_key: str
    endpoint: Endpoint | None
    allowed: tuple[str, ...]  # prefixes
    handshake: int  # the latest, in seconds since 1970; 0: none
    received: int  # bytes
    sent: int  # bytes
    keepalive: int  # seconds; 0: none


@dataclass(frozen=True, slots=True)
class InterfaceState:
    """An interface of WireGuard. Without its private key."""

    public_key: str  # empty: it has no key yet
    listen_port: int
    mark: int
    peers: tuple[PeerState, ...] = ()

    def peer(self, public_key: str) -> PeerState | None:
        """The peer with that key, or None."""
        return next((peer for peer in self.peers if peer.public_key == public_key), None)


@dataclass(frozen=True, slots=True)
class Secret:
    """A key among the arguments of `wg`, which reads it from a file."""

    text: str

    def __repr__(self) -> str:
        return "Secret(...)"


async def show(interface: str) -> InterfaceState:
    """The state of an interface. Raises WireGuardError: it is missing, or none of WireGuard."""
    return read_dump(await _call(("show", interface, "dump")))


async def change(interface: str, arguments: Sequence[str | Secret]) -> None:
    """`wg set`. Raises WireGuardError."""
    files: list[int] = []
    words = ["set", interface]
    try:
        for argument in arguments:
            if isinstance(argument, Secret):
                files.append(os.memfd_create("key", os.MFD_CLOEXEC))
                os.write(files[-1], argument.text.encode() + b"\n")
                words.append(f"/dev/fd/{files[-1]}")
            else:
                words.append(argument)
        await _call(words, files)
    finally:
        for file in files:
            os.close(file)


async def run(command: Sequence[str], files: Iterable[int] = ()) -> tuple[int, str, str]:
    """Exit code, output and complaints of a program. Raises WireGuardError: it is missing, or does not end."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE, pass_fds=tuple(files), start_new_session=True,
        )  # fmt: skip
    except FileNotFoundError:
        raise WireGuardError(f"the program {command[0]} is missing: {_remedy(command[0])}") from None
    except OSError as problem:
        raise WireGuardError(f"{command[0]} cannot be run: {problem.strerror}") from None
    try:
        output, complaints = await asyncio.wait_for(process.communicate(), _SECONDS)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise WireGuardError(f"{command[0]} has not ended within {_SECONDS:g} s") from None
    return process.returncode or 0, output.decode(errors="replace"), complaints.decode(errors="replace")


async def _call(words: Sequence[str], files: Iterable[int] = ()) -> str:
    code, output, complaints = await run((_PROGRAM, *words), files)
    if code:
        said = " ".join(complaints.split()) or f"exit code {code}"
        raise WireGuardError(f"wg {words[0]} {words[1]}: {said}")
    return output


def _remedy(program: str) -> str:
    package = {"wg": "wireguard-tools", "wireguard-go": "wireguard-go"}.get(program, program)
    return f"apt-get install {package}"


def read_dump(text: str) -> InterfaceState:
    """The state in the output of `wg show INTERFACE dump`. Raises WireGuardError."""
    try:
        first, *rows = [line.split("\t") for line in text.splitlines()]
        _private, public, port, mark = first
        return InterfaceState(
            public_key="" if public == "(none)" else public,
            listen_port=int(port),
            mark=0 if mark == "off" else int(mark, 16),
            peers=tuple(_peer(row) for row in rows),
        )
    except ValueError:
        raise WireGuardError(
            "wg show wrote lines that are not known; is its version older than 1.0?"
        ) from None


def _peer(row: Sequence[str]) -> PeerState:
    public, _preshared, endpoint, allowed, handshake, received, sent, keepalive = row
    return PeerState(
        public_key=public,
        endpoint=None if endpoint == "(none)" else endpoint_of_text(endpoint),
        allowed=() if allowed == "(none)" else tuple(allowed.split(",")),
        handshake=int(handshake),
        received=int(received),
        sent=int(sent),
        keepalive=0 if keepalive == "off" else int(keepalive),
    )
