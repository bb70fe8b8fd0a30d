"""The server's end of the enrolment: connections on the TCP port, each one exchange with one device.

Strangers reach this port. A connection costs little until its hello is read; a guess limit is asked before anything is
computed; one thread computes. Where connections are too many, those that wait for their hello longest are closed first.

It must not know addresses of devices, roles or WireGuard: `admit` of the caller takes a device that has proved a code.
"""

import asyncio
import errno
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from locum.node.enrolment.frames import FrameError, framed, read_frame
from locum.node.enrolment.guessing import GuessLimit, Source
from locum.node.enrolment.invitations import Entropy, Invitation, Invitations
from locum.node.tables import HostStore, HostTable, StoreError
from locum.security.enrolment import Exchange, Exchanged, JoinedKeys
from locum.security.sealing import NONCE_BYTES, seal, unseal
from locum.wire.enrolment.code import PORT
from locum.wire.enrolment.messages import (
    Answer,
    Denial,
    Denied,
    Grant,
    Hello,
    Proof,
    Refusal,
    Refused,
    Sealed,
    decode_message,
    decode_text,
)
from locum.wire.errors import WireError

MOST_CONNECTIONS = 128
MOST_OF_SOURCE = 16  # a household behind one address enrols no more devices at once
MESSAGE_SECONDS = 10.0  # to send one whole message: the device computes for less than one second between two
_ADMIT_SECONDS = 30.0
_CLOSE_SECONDS = 1.0
_READ_BUFFER = 8192  # bytes; no message is longer

Row = Mapping[str, Any]


class ServingError(Exception):
    """The port cannot be opened: one line that names it, with a remedy."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A device that has proved its code."""

    name: str
    proof: Proof
    keys: JoinedKeys = field(repr=False)


# A Denied leaves no change, and its invitation open. The same device may come twice, with new keys: the grant was lost.
Admit = Callable[[Candidate], Awaitable[Grant | Denied]]


class _Stage(IntEnum):
    HELLO = 0
    PROOF = 1
    ADMITTED = 2  # is not closed for the sake of another


@dataclass(slots=True, eq=False)
class _Connection:
    source: Source
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    task: "asyncio.Task[None]"
    stage: _Stage = _Stage.HELLO
    evicted: bool = False

    def evict(self) -> None:
        """Close it at once, without an answer."""
        self.evicted = True
        self.writer.transport.abort()
        self.task.cancel()


class _EndError(Exception):
    """The exchange ends here: `reason` is counted, `answer` is sent."""

    def __init__(self, reason: str, answer: bytes | None = None) -> None:
        super().__init__(reason)
        self.reason, self.answer = reason, answer


class EnrolmentServer:
    """Invitations of one server, and the port at which they are used. `now` is the node's steady clock."""

    def __init__(
        self, store: HostStore, admit: Admit, now: Callable[[], float], entropy: Entropy, port: int = PORT
    ) -> None:
        self._store, self._admit, self._now, self._entropy = store, admit, now, entropy
        self.port = port
        self.counters: Counter[str] = Counter()  # ends of exchanges by reason
        self._invitations = Invitations(entropy)
        self._limit = GuessLimit()
        self._stored: dict[str, Row] = {}
        self._open: dict[_Connection, None] = {}  # the oldest first
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="enrolment")
        self._listener: asyncio.Server | None = None

    async def start(self, hosts: tuple[str, ...] = ("0.0.0.0",)) -> None:
        """Take the stored invitations and listen. Raises ServingError and StoreError."""
        rows = self._store.rows(HostTable.INVITATION)
        self._stored = dict(rows)
        unreadable = self._invitations.restore(rows, self._now())
        self.counters["unreadable-invitation"] += len(unreadable)
        self._keep()
        try:
            self._listener = await asyncio.start_server(
                self._connected, hosts, self.port, limit=_READ_BUFFER, backlog=MOST_CONNECTIONS
            )
        except OSError as error:
            remedy = (
                "end its owner" if error.errno == errno.EADDRINUSE else "check the addresses to listen at"
            )
            cause = error.strerror or str(error)
            raise ServingError(
                f"TCP port {self.port} of {', '.join(hosts)} cannot be opened: {cause}: {remedy}"
            ) from error
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Close the port and every connection; invitations stay in the store."""
        if self._listener is not None:
            self._listener.close()
        tasks = [connection.task for connection in self._open]
        for connection in list(self._open):
            connection.evict()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def invite(self, name: str, seconds: float) -> Invitation:
        """A new invitation, stored. Raises InvitationError."""
        invitation = self._invitations.invite(name, seconds, self._now())
        self._keep()
        return invitation

    def _keep(self) -> None:
        rows = self._invitations.open_rows(self._now())
        for key in self._stored.keys() - rows.keys():
            self._store.forget(HostTable.INVITATION, key)
        for key, row in rows.items():
            if self._stored.get(key) != row:
                self._store.put(HostTable.INVITATION, key, row)
        self._stored = dict(rows)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        peer = writer.get_extra_info("peername")
        if task is None or peer is None:  # reset before it was accepted
            self.counters["closed"] += 1
            writer.transport.abort()
            return
        connection = _Connection(_source(peer[0]), reader, writer, task)
        if not self._make_room(connection.source):
            self.counters["full"] += 1
            writer.transport.abort()
            return
        self._open[connection] = None
        try:
            await self._serve(connection)
        except asyncio.CancelledError:
            if not connection.evicted:
                raise
            self._abandoned(connection, "evicted")
        finally:
            self._open.pop(connection, None)
            writer.transport.abort()  # nothing is left to send, or the device does not take it

    def _make_room(self, source: Source) -> bool:
        among = [one for one in self._open if one.source == source]
        if len(among) < MOST_OF_SOURCE:
            among = list(self._open)
            if len(among) < MOST_CONNECTIONS:
                return True
        oldest = min(among, key=lambda one: one.stage)  # the first of them that min finds is the oldest
        if oldest.stage is _Stage.ADMITTED:
            return False
        self._open.pop(oldest)
        oldest.evict()
        return True

    async def _serve(self, connection: _Connection) -> None:
        answer: bytes | None
        try:
            answer = await self._exchange(connection)
            reason = "joined"
        except _EndError as end:
            reason, answer = end.reason, end.answer
        except FrameError as error:
            reason, answer = error.reason, None
            if error.reason in ("empty", "oversized"):
                answer = Refusal(Refused.MALFORMED).encode()
        except WireError:
            reason, answer = "malformed", Refusal(Refused.MALFORMED).encode()
        except TimeoutError:
            reason, answer = "late", None
        except OSError:
            reason, answer = "closed", None
        except StoreError:
            reason, answer = "store", None
        if connection.stage is _Stage.PROOF and reason != "wrong-code":
            self._abandoned(connection, reason)
        else:
            self.counters[reason] += 1
        if answer is not None:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await _send(connection, answer)
                    connection.writer.close()
                    await connection.writer.wait_closed()

    def _abandoned(self, connection: _Connection, reason: str) -> None:
        """Count an end before the proof was judged: where there was computing, the source pays for it as for a guess."""
        self.counters[reason] += 1
        if connection.stage is _Stage.PROOF:
            self._limit.wrong(connection.source, self._now())

    async def _exchange(self, connection: _Connection) -> bytes:
        """The last message to the device."""
        raw = await _receive(connection)
        hello = decode_message(raw)
        if not isinstance(hello, Hello):
            raise _EndError("malformed", Refusal(Refused.MALFORMED).encode())
        self._check_limit(connection)
        connection.stage = _Stage.PROOF
        secret = self._invitations.secret(hello.number)
        loop = asyncio.get_running_loop()
        try:
            exchanged, answer = await loop.run_in_executor(self._pool, self._compute, secret, hello, raw)
        except ValueError:
            raise _EndError("malformed", Refusal(Refused.MALFORMED).encode()) from None
        await _send(connection, answer)
        sealed = decode_message(await _receive(connection))
        if not isinstance(sealed, Sealed):
            raise _EndError("malformed", Refusal(Refused.MALFORMED).encode())
        self._check_limit(connection)  # others of the source may have guessed meanwhile
        try:
            text = unseal(exchanged.sealing.peer, sealed.sealed, b"")
        except ValueError:
            self._limit.wrong(connection.source, self._now())
            if self._invitations.wrong(hello.number, self._now()):
                self.counters["invitation-ended"] += 1
            self._keep()
            raise _EndError("wrong-code", Refusal(Refused.CODE).encode()) from None
        connection.stage = _Stage.ADMITTED
        proof = decode_text(text)
        if not isinstance(proof, Proof):
            raise _EndError("malformed", Refusal(Refused.MALFORMED).encode())
        result = await self._admitted(hello.number, proof, exchanged.joined)
        answer = self._seal(exchanged, result)
        if isinstance(result, Denied):
            raise _EndError(f"denied-{result.name.lower()}", answer)
        return answer

    async def _admitted(self, number: int, proof: Proof, keys: JoinedKeys) -> Grant | Denied:
        """Nothing is sent before the store has the device and no more the secret."""
        used = self._invitations.is_used(number)
        invitation = self._invitations.proved(number, proof.public_key, self._now())
        if isinstance(invitation, Denied):
            return invitation
        granted = False
        try:
            self._keep()
            async with asyncio.timeout(_ADMIT_SECONDS):
                result = await self._admit(Candidate(invitation.name, proof, keys))
                await self._store.durable()
            granted = isinstance(result, Grant)
            return result
        finally:
            if not granted and not used:
                self._invitations.reopen(number)
                self._keep()

    def _check_limit(self, connection: _Connection) -> None:
        if not self._limit.admits(connection.source, self._now()):
            connection.stage = _Stage.HELLO  # it pays no more
            raise _EndError("too-many", Refusal(Refused.TOO_MANY).encode())

    def _compute(self, secret: bytes, hello: Hello, raw: bytes) -> tuple[Exchanged, bytes]:
        end = Exchange(secret, hello.number, is_server=True, entropy=self._entropy)
        answer = Answer(end.element).encode()
        return end.finish(hello.element, raw, answer), answer

    def _seal(self, exchanged: Exchanged, result: Grant | Denied) -> bytes:
        text = result if isinstance(result, Grant) else Denial(result)
        nonce = self._entropy(NONCE_BYTES)
        return Sealed(seal(exchanged.sealing.own, nonce, text.encode(), b"")).encode()


async def _receive(connection: _Connection) -> bytes:
    async with asyncio.timeout(MESSAGE_SECONDS):
        return await read_frame(connection.reader)


async def _send(connection: _Connection, message: bytes) -> None:
    connection.writer.write(framed(message))
    async with asyncio.timeout(MESSAGE_SECONDS):
        await connection.writer.drain()


def _source(text: str) -> IPv4Address | IPv6Address:
    return ip_address(text.partition("%")[0])
