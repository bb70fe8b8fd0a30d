"""Key roll-over: a new private key here, or a peer's new public key. Connections go on; the old key stays until the new one works.

The peer's new key is added first, without an address. When its owner has done a handshake with it, the address goes over.
Packets on their way under the old key meanwhile are lost, and sent again by TCP: a prefix has one peer in WireGuard.
"""

import asyncio
import base64
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from locum.node.config.wireguard.values import Endpoint, WireGuardSettings, key_of_text, public_key_of
from locum.node.wireguard.book import Arguments, Known, PeerBook, anew, settings_of
from locum.node.wireguard.tool import InterfaceState, Secret, WireGuardError

_QUICK, _SLOW = 0.02, 0.2  # seconds between two looks, in the first two seconds and later
_FIRST = 2.0


class Changed(Protocol):
    """The service whose keys change."""

    settings: WireGuardSettings
    book: PeerBook
    private_key: str

    async def change(self, arguments: Arguments) -> None: ...
    async def look(self) -> InterfaceState: ...
    def at(self, known: Known) -> Endpoint | None: ...


class KeyChange:
    """Both changes, for one node."""

    def __init__(self, service: Changed) -> None:
        self._service = service

    async def replace_own(self, private_key: str, patience: float) -> None:
        """Raises WireGuardError: it is no key, no peer takes it within `patience` seconds, or it cannot be written."""
        service, old = self._service, self._service.private_key
        new = _checked(private_key)
        called = [known for known in service.book.known.values() if known.roaming is not None]
        await service.change(self._with_key(new))
        service.private_key = new
        try:
            if called and not await self._heard([known.peer.public_key for known in called], patience):
                raise WireGuardError(
                    f"no peer has answered to the new key within {patience:g} s; the old one is back"
                )
            _write(Path(service.settings.private_key_file), new)
        except BaseException:
            service.private_key = old
            await service.change(self._with_key(old))
            raise

    async def replace_peers(self, old: str, new: str, patience: float) -> Known:
        """Raises WireGuardError: there is no such peer, or it does not use the new key within `patience` seconds."""
        service, new = self._service, _checked(new)
        known = service.book.known.get(old)
        if known is None:
            raise WireGuardError(f"no peer has the key {old}")
        if new in service.book.known:
            raise WireGuardError(f"the key {new} has another owner")
        peer = replace(known.peer, public_key=new)
        await service.change(settings_of(peer, None, allowed=False))
        if not await self._heard([new], patience):
            await service.change(["peer", new, "remove"])
            raise WireGuardError(f"the peer {peer.address} has not used its new key within {patience:g} s")
        await service.change([*settings_of(peer, None), "peer", old, "remove"])
        known.peer, known.seen = peer, None
        service.book.known[new] = service.book.known.pop(old)
        return known

    def _with_key(self, private_key: str) -> Arguments:
        """The key, and every peer that we call set anew, so that a handshake begins at once."""
        service = self._service
        words: Arguments = ["private-key", Secret(private_key)]
        for known in service.book.known.values():
            if known.roaming is not None:
                words += anew(known.peer, service.at(known))
        return words

    async def _heard(self, keys: list[str], patience: float) -> bool:
        """True if one of the peers does a handshake in time; the peers had none before."""
        clock: Callable[[], float] = asyncio.get_running_loop().time
        began = clock()
        while clock() < began + patience:
            state = await self._service.look()
            if any((peer := state.peer(key)) is not None and peer.handshake for key in keys):
                return True
            await asyncio.sleep(_QUICK if clock() < began + _FIRST else _SLOW)
        return False


def new_private_key() -> str:
    """A new key, from the system's randomness."""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return base64.b64encode(X25519PrivateKey.generate().private_bytes_raw()).decode()


def _checked(key: str) -> str:
    try:
        return key_of_text(key)
    except ValueError as problem:
        raise WireGuardError(f"that is no key of WireGuard: {problem}") from None


def _write(path: Path, private_key: str) -> None:
    """Replace the file as a whole; only its owner may read it. Raises WireGuardError."""
    public_key_of(private_key)
    new = path.with_name(f".{path.name}.new")
    try:
        with suppress(FileNotFoundError):
            new.unlink()
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(file, "w") as text:
            text.write(private_key + "\n")
            text.flush()
            os.fsync(text.fileno())
        new.replace(path)
    except OSError as problem:
        raise WireGuardError(f"the new key cannot be written to {path}: {problem.strerror}") from None
