"""`python -m locum.apps.host FD KIND ...`: runs one application proxy, confined, for the stand-in at the other end of FD (A1).

FD is one end of a pair of SOCK_SEQPACKET sockets; each packet is a CBOR array whose first item names it. From the stand-in:
`sessions`, `begin` (settings, state), `received` (session, bytes), `stored` (session, place, length, and a file to read them in), `closed` (session, errno), `packets` (captured ones, number left out), `tell` (session, text), `ping`, `end`. To it: `done`
(effects) after each packet, `part` (effects, number of bytes) after some bytes of one that is `stored`, `did` (effects) of a deadline or a happening, `more` (effects) before either, and `ended` (state) as the last one.
A stand-in gives a packet that was not answered to the next process: effects of one packet are carried out together or not at all.

A proxy with a network or files (`locum.roles.app_network`) does its input and output here. The process asks for sockets and
names (`ask` with a number), and gets an `answer` with that number: these are requests of this program, and are not repeated.
A connection that the device takes over goes to the stand-in as `hand`. Such effects are carried out in their order, before those of the same
list that the stand-in carries out: where the process dies in between, the next one gets the packet again, has files that
are further than the state that was kept, and has no connections.

The proxy's class is loaded first; then the process gives up its privileges, its network, and the right to start others.
"""

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from random import SystemRandom
from typing import TYPE_CHECKING, Any, cast

from locum.apps.shell.channel import Channel
from locum.apps.shell.confinement import confine
from locum.roles.app_contract import (
    GROUP,
    App,
    AppSession,
    Effect,
    Keep,
    Leave,
    NetworkApp,
    Note,
    Replace,
    Speak,
    Tell,
)
from locum.roles.app_network import Capture, CapturedPacket, Packets
from locum.wire.control import Flow

if TYPE_CHECKING:
    from locum.apps.shell.driver import Driver
    from locum.apps.shell.trust import Trust

_EVENTS = 64  # of sockets in one turn
READ = 32 << 10
"""Bytes of a session that the proxy gets at once."""
SILENCE = 1.0
"""Seconds in which it handles bytes that were lent without a word to the stand-in, which waits for the answer of a packet."""
_FOR_THE_STAND_IN = (Speak, Replace, Tell, Note, Keep, Leave, Capture)


def load(kind: str) -> type[App]:
    """The class of that kind. Raises LookupError if there is none, and whatever its import raises."""
    for point in entry_points(group=GROUP, name=kind):
        found: type[App] = point.load()
        return found
    raise LookupError(f"no proxy of kind {kind}")


class Host:
    """One proxy and its stand-in. `driver` has its network and its files, if it has any."""

    def __init__(self, channel: socket.socket, kind: type[App], driver: "Driver | None" = None) -> None:
        self._channel, self._kind, self._driver = Channel(channel), kind, driver
        self._poll = select.epoll()
        self._app: App | None = None
        self._sessions: list[AppSession] = []

    def run(self) -> None:
        """Until the stand-in says `end`, or is gone."""
        channel, driver = self._channel.fileno(), self._driver
        self._poll.register(channel, select.EPOLLIN)
        if driver is not None:
            driver.begin(self._channel, self._poll)
        self._channel.send("ready")
        while True:
            for descriptor, mask in self._poll.poll(self._patience(), _EVENTS):
                if descriptor == channel:
                    found = self._channel.receive()
                    if found is None or not self._handle(*found):
                        return
                elif driver is not None:
                    driver.event(descriptor, mask)
            if driver is not None:
                for event in driver.turn(time.monotonic()):
                    self._effects(
                        "did", cast(NetworkApp, self._running()).happened(event, now=time.monotonic())
                    )
            app = self._app
            if app is not None and (at := app.deadline()) is not None and at <= time.monotonic():
                self._effects("did", app.timeout(now=time.monotonic()))

    def _patience(self) -> float | None:
        """Seconds until something has to be done; None: it waits for a packet or a socket."""
        if self._driver is not None and self._driver.busy:
            return 0
        at = None if self._app is None else self._app.deadline()
        if self._driver is not None and (due := self._driver.deadline()) is not None:
            at = due if at is None else min(at, due)
        return None if at is None else max(at - time.monotonic() + 0.001, 0)

    def _handle(self, packet: list[Any], descriptors: list[int]) -> bool:
        name, *rest = packet
        now = time.monotonic()
        effects: list[Effect] = []
        match name:
            case "sessions":
                self._sessions += [
                    AppSession(number, Flow.from_cbor(flow, "app.flow"), whole, shown)
                    for number, flow, whole, shown in rest[0]
                ]
            case "begin":
                effects = self._begin(*rest)
            case "received":
                effects = self._running().received(rest[0], rest[1], now=now)
            case "stored":
                with os.fdopen(descriptors.pop(), "rb", buffering=0) as file:
                    effects = self._stored(file.fileno(), *rest)
            case "closed":
                effects = self._running().closed(rest[0], rest[1], now=now)
            case "answer":
                if self._driver is not None:
                    self._driver.answer(rest[0], rest[1:], descriptors)
                return True
            case "packets":
                captured = [CapturedPacket(*row) for row in rest[0]]
                event = Packets(captured, rest[1])
                effects = cast(NetworkApp, self._running()).happened(event, now=now)
            case "tell":
                if (tell := getattr(self._running(), "tell", None)) is not None:
                    effects = tell(rest[0], rest[1], now=now)
            case "files":
                if self._driver is not None:
                    self._driver.look()
            case "end":
                if self._driver is not None and (ending := getattr(self._running(), "ending", None)):
                    self._effects("did", ending(now=now))
                state = dict(self._running().end(now=now))
                if self._driver is not None:
                    self._driver.close()
                self._channel.send("ended", state)
                return False
        self._effects("done", effects)
        return True

    def _stored(self, file: int, session: int, place: int, length: int) -> list[Effect]:
        """Read so many bytes of a session where the stand-in has stored them; the effects of the last ones.

        Those of earlier ones are told as soon as there are some: they count together with the bytes up to there (`part`).
        The bytes may be gone before they are read: the stand-in cuts them off when it does not hold the session any more.
        """
        began, taken = time.monotonic(), 0
        while True:
            data = os.pread(file, min(length, READ), place)
            if not data:
                return []  # the session is not held any more, and its room is free; `closed` follows
            place, length = place + len(data), length - len(data)
            now = time.monotonic()
            effects = self._running().received(session, data, now=now)
            if not length:
                return effects
            taken += len(data)
            if effects or now - began > SILENCE:
                self._effects("part", effects, taken)
                began, taken = now, 0

    def _running(self) -> App:
        if self._app is None:
            raise RuntimeError("the stand-in speaks before it has begun")
        return self._app

    def _begin(self, table: Mapping[str, Any], state: Mapping[str, object]) -> list[Effect]:
        self._app = self._kind(self._kind.settings(table), SystemRandom())
        if self._driver is not None:
            self._driver.list_files()
        return self._app.begin(self._sessions, state, now=time.monotonic())

    def _effects(self, name: str, effects: Iterable[Effect], *more: object) -> None:
        """Those of the network and of files are carried out here, in their order, and then the others by the stand-in."""
        told: list[Effect] = []
        for effect in effects:
            if isinstance(effect, _FOR_THE_STAND_IN):
                told.append(effect)
            elif self._driver is not None:
                self._driver.perform(effect)
            else:
                raise TypeError(f"this process has no network and no files: {type(effect).__name__}")
        if self._driver is not None:
            self._driver.flush()
        if told or name != "did":
            self._channel.effects(name, told, *more)


def serve(
    channel: socket.socket, kind: type[App], arguments: Sequence[str], trust: "Trust | None" = None
) -> None:
    """Confine this process, and run the proxy until the stand-in has ended it. Raises OSError: it cannot be confined.

    Arguments: bytes of memory, seconds of processor time; for a proxy with files their directory, its room in bytes, and a file of
    certificates or nothing, which is read unless `trust` has read it.
    """
    memory, processor, *files = arguments
    driver = None
    if files:
        from locum.apps.shell.driver import Driver  # takes time that others need not wait for
        from locum.apps.shell.trust import Trust

        directory, room, authorities = files[0], int(files[1]), files[2]
        driver = Driver(room, trust or Trust(authorities))
        confine(int(memory), int(processor), directory, room)
        driver.open(os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    else:
        confine(int(memory), int(processor))
    Host(channel, kind, driver).run()


def main() -> None:
    """Run the proxy of the command line: descriptor, kind, and the arguments of `serve`. The exit status is 0 when it was ended."""
    descriptor, kind = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the stand-in's to handle
    channel = socket.socket(fileno=descriptor)
    serve(channel, load(kind), sys.argv[3:])


if __name__ == "__main__":
    main()
