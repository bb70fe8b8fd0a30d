"""One connection to the system bus (D-Bus). Decides nothing.

The library is imported when the first connection is made: most nodes need none.
"""

import asyncio
import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

_PATIENCE = 5.0  # seconds for an answer
_MOST_SIGNALS = 1024  # that wait; a sender that sends more loses the connection
DBUS, DBUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
PROPERTIES = "org.freedesktop.DBus.Properties"


class BusFailed(Exception):
    """The bus, or a service on it, is not there, or refuses; the text is for a person."""


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that was asked for."""

    path: str
    interface: str
    member: str
    body: tuple[Any, ...]


class SystemBus:
    """A connection, from `open` to `close`."""

    def __init__(self, bus: "MessageBus") -> None:
        self._bus = bus
        self._signals: asyncio.Queue[Signal | None] = asyncio.Queue()
        bus.add_message_handler(self._came)
        self._watch = asyncio.ensure_future(self._until_lost())

    @classmethod
    async def open(cls) -> Self:
        """Connect to $DBUS_SYSTEM_BUS_ADDRESS, or where the bus usually is. Raises BusFailed."""
        from dbus_fast import BusType
        from dbus_fast.aio import MessageBus

        try:
            async with asyncio.timeout(_PATIENCE):
                bus = MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True)
                return cls(await bus.connect())
        except TimeoutError:
            raise BusFailed("the system bus does not answer") from None
        except Exception as problem:  # the library documents it so
            raise BusFailed(f"no system bus: {_text(problem)}") from None

    async def close(self) -> None:
        """End the connection."""
        self._watch.cancel()
        self._bus.disconnect()
        with contextlib.suppress(asyncio.CancelledError):
            await self._watch

    async def call(
        self, service: str, path: str, method: str, signature: str = "", body: Sequence[Any] = ()
    ) -> "Message":
        """Call `INTERFACE.METHOD`; the reply. Raises BusFailed."""
        from dbus_fast import Message, MessageType

        interface, _, member = method.rpartition(".")
        message = Message(
            destination=service,
            path=path,
            interface=interface,
            member=member,
            signature=signature,
            body=list(body),
        )
        try:
            async with asyncio.timeout(_PATIENCE):
                reply = await self._bus.call(message)
        except TimeoutError:
            raise BusFailed(f"{service} does not answer") from None
        except Exception as problem:  # the connection has gone
            raise BusFailed(f"the system bus has gone: {_text(problem)}") from None
        if reply.message_type is MessageType.ERROR:
            said = reply.body[0] if reply.body and isinstance(reply.body[0], str) else reply.error_name
            raise BusFailed(f"{service}: {' '.join(str(said).split())}")
        return reply

    async def descriptor(self, service: str, path: str, method: str, body: Sequence[str]) -> int:
        """Call a method with texts that gives a descriptor, which is the caller's then. Raises BusFailed."""
        reply = await self.call(service, path, method, "s" * len(body), body)
        descriptors = list(reply.unix_fds)
        if len(descriptors) != 1:
            for extra in descriptors:
                os.close(extra)
            raise BusFailed(f"{service}: {method} gave no descriptor")
        return int(descriptors[0])

    async def read(self, service: str, path: str, name: str) -> Any:
        """The property `INTERFACE.NAME`. Raises BusFailed."""
        interface, _, member = name.rpartition(".")
        reply = await self.call(service, path, f"{PROPERTIES}.Get", "ss", (interface, member))
        return reply.body[0].value

    async def has(self, service: str) -> bool:
        """True if the service runs. Raises BusFailed."""
        reply = await self.call(DBUS, DBUS_PATH, f"{DBUS}.NameHasOwner", "s", (service,))
        return bool(reply.body[0])

    async def follow(self, **match: str) -> None:
        """Ask for the signals of a match rule: `sender`, `path`, `interface`, `member`, `arg0`. Raises BusFailed."""
        rule = ",".join([*(f"{key}='{value}'" for key, value in match.items()), "type='signal'"])
        await self.call(DBUS, DBUS_PATH, f"{DBUS}.AddMatch", "s", (rule,))

    async def signal(self) -> Signal:
        """The next signal. Raises BusFailed when the bus has gone."""
        if (signal := await self._signals.get()) is None:
            raise BusFailed("the system bus has gone")
        return signal

    def _came(self, message: "Message") -> None:
        from dbus_fast import MessageType

        if message.message_type is not MessageType.SIGNAL:
            return
        if self._signals.qsize() >= _MOST_SIGNALS:
            self._bus.disconnect()
            return
        body = tuple(message.body)
        self._signals.put_nowait(
            Signal(message.path or "", message.interface or "", message.member or "", body)
        )

    async def _until_lost(self) -> None:
        with contextlib.suppress(Exception):
            await self._bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        self._signals.put_nowait(None)


def _text(problem: Exception) -> str:
    return (isinstance(problem, OSError) and problem.strerror) or str(problem) or type(problem).__name__
