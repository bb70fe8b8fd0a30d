"""One running application proxy: its process, the packets to and from it, and its end (A1).

A process that does not answer for `PATIENCE` seconds, sends something wrong or ends by itself is stopped, and reported once.
This module must not know sessions.
"""

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cbor2

from locum.node import words
from locum.node.apps.disk import Descriptor, durable
from locum.node.apps.starts.spawning import end
from locum.node.apps.starts.starting import Started, Starts
from locum.node.config.settings import AppLimits
from locum.roles.app_contract import checked_state
from locum.roles.app_network import MAX_CONNECTIONS
from locum.sessions.tcp.spool import Lent
from locum.wire import cbor
from locum.wire.control import is_label

PATIENCE = 10.0  # seconds in which a proxy answers a packet
START = 30.0  # seconds in which it is ready: its class may import much
IDLE = 5.0  # seconds between two pings
ENDING = 3.0  # seconds in which it returns its state, and ends its connections
WINDOW = 8  # packets on their way to it
TURN = 0.005  # seconds in which its packets are taken before others get a turn
_PACKET = 192 << 10
_MOST_EFFECTS = 4 << 20  # bytes of one packet's
_MOST = 10_000  # effects of one packet: two for each session of a device, and some
MOST_DESCRIPTORS = 2  # that come with one packet
UNASKED_AT_ONCE, UNASKED_A_SECOND = 256, 64  # packets that answer none; then it waits
_PAUSE = 0.1  # seconds
_WITH_BYTES = ("received", "stored")


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to a question of the process: a reason that is empty, or why not, and more; and sockets for it."""

    told: Sequence[object]
    sockets: Sequence[socket.socket] = ()


class ProcessNetwork(Protocol):
    """The outside of one process."""

    @property
    def arguments(self) -> Sequence[str]:
        """Further arguments of `locum.apps.host`."""

    def ask(self, *question: object) -> Awaitable[Answer]:
        """Answer a question. Raises ValueError or TypeError for one that makes no sense."""

    def hand(self, descriptor: int, label: str, unread: bytes) -> None:
        """A connection that the device takes over; it owns the descriptor. Raises ValueError if it is none."""


class AppProcess:
    """`tell` gets the effects of each packet and deadline; `room` is called when it can take more; `gone` once."""

    def __init__(
        self,
        kind: str,
        limits: AppLimits,
        tell: Callable[[list[Any]], None],
        room: Callable[[], None],
        gone: Callable[[str], None],
        network: ProcessNetwork | None = None,
        starts: Starts | None = None,
    ) -> None:
        """Have it started: by `starts`, which may have a fork server of this kind, or anew."""
        self._network = network
        self.pid = 0
        self._questions: set[asyncio.Task[None]] = set()
        self._tell, self._room, self._gone = tell, room, gone
        self._loop = asyncio.get_running_loop()
        self.said: deque[str] = deque(maxlen=20)  # lines of its standard output and error
        self.unanswered: deque[tuple[object, ...]] = deque()  # packets, the oldest first
        self._effects: list[Any] = []
        self._size = 0
        self._credit, self._credit_at = float(UNASKED_AT_ONCE), self._loop.time()
        self._ready = self._over = self._ending = False
        self._ended: asyncio.Future[Mapping[str, object]] | None = None
        self._dead: asyncio.Future[None] | None = None  # while it is killed
        self._timer: asyncio.TimerHandle | None = None
        arguments = [
            str(limits.memory),
            str(limits.processor),
            *(() if network is None else network.arguments),
        ]
        self._start = (starts or Starts(fork=False)).start(kind, arguments, self._started)

    def _started(self, found: Started | str) -> None:
        if isinstance(found, str):
            self._fail(found)
            return
        try:
            self._pidfd = os.pidfd_open(found.pid)
        except OSError as problem:
            end(found.pid)
            found.ends.close()
            self._fail(words.reason(problem))
            return
        self.pid, self._channel, self._output = found.pid, found.ends.channel, found.ends.output
        self._loop.add_reader(self._channel, self._read)
        self._loop.add_reader(self._output, self._read_output)
        self._loop.add_reader(self._pidfd, self._reap)
        self._watch(START, self._late)

    @property
    def free(self) -> bool:
        """True if it can take another packet now."""
        return self._ready and not self._over and len(self.unanswered) < WINDOW

    def send(self, *packet: object) -> bool:
        """Give it a packet; False if the kernel has no room now. The caller looks at `free` first."""
        return self._send(packet)

    def lend(self, session: int, lent: Lent) -> int:
        """Give it bytes of a session that it reads itself; how many, or 0 as `send`. The descriptor is closed."""
        try:
            packet = ("stored", session, lent.place, lent.length)
            return lent.length if self._send(packet, lent.descriptor) else 0
        finally:
            os.close(lent.descriptor)

    def on_the_way(self, session: int) -> int:
        """Packets with bytes of this session that it has not answered."""
        return sum(packet[0] in _WITH_BYTES and packet[1] == session for packet in self.unanswered)

    def _send(self, packet: tuple[object, ...], *descriptors: int) -> bool:
        data = cbor2.dumps(list(packet), canonical=True)
        try:
            if descriptors:
                socket.send_fds(self._channel, [data], descriptors)
            else:
                self._channel.send(data)
        except BlockingIOError:
            return False
        except OSError:  # it has ended; `_reap` follows
            return False
        self.unanswered.append(packet)
        if len(self.unanswered) == 1:
            self._watch(PATIENCE, self._late)
        return True

    async def end(self) -> Mapping[str, object]:
        """Its last state; empty if it does not return one in time. It is gone afterwards, without a report."""
        if self._over:
            return {}
        self._ending = True
        self._ended = self._loop.create_future()
        try:
            if not self._ready or not self.send("end"):
                return {}
            self._read_on()
            return await asyncio.wait_for(self._ended, ENDING)
        except TimeoutError:
            return {}
        finally:
            await self._die()
            self.kill()

    async def _die(self) -> None:
        """Kill it, and go on when the kernel has freed its memory: others do not wait for that."""
        if self._over or not self.pid:
            return
        self._loop.remove_reader(self._channel)
        self._dead = self._loop.create_future()
        self._loop.add_reader(self._pidfd, self._died)
        os.kill(self.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._dead, ENDING)

    def _died(self) -> None:
        if self._dead is not None and not self._dead.done():
            self._dead.set_result(None)

    def kill(self) -> None:
        """End it now; `gone` is not called."""
        self._close()

    def stop(self, reason: str) -> None:
        """End it now, and report this reason."""
        self._fail(reason)

    def memory(self) -> int:
        """Resident bytes; 0 when it is gone, or has not begun."""
        try:
            with open(f"/proc/{self.pid}/statm") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0

    def _watch(self, seconds: float, call: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, call)

    def _late(self) -> None:
        self._fail(f"it has not answered for {PATIENCE if self._ready else START:.0f} seconds")

    def _ping(self) -> None:
        self.send("ping")

    def _read(self) -> bool:
        """Take a few packets; False if there are no more now."""
        began = self._loop.time()
        for number in range(WINDOW):
            if number and self._loop.time() - began >= TURN:
                return True
            if not self._may_read():
                return False
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, _PACKET, MOST_DESCRIPTORS)
            except BlockingIOError:
                return False
            except OSError:  # it has ended with packets unread
                data, descriptors = b"", []
            if not data:
                self._loop.remove_reader(self._channel)  # `_reap` follows
                return False
            try:
                packet = cbor.decode(data, limit=_PACKET, field="app")
                if not isinstance(packet, list) or not packet:
                    raise ValueError("not a packet")
                self._take(packet, len(data), descriptors)
            except (ValueError, TypeError, IndexError, KeyError) as problem:
                self._fail(f"it sent something wrong: {problem}")
                return False
            finally:
                for descriptor in descriptors:  # those that are used have been duplicated
                    os.close(descriptor)
            if self._over:
                return False
        return True

    def _may_read(self) -> bool:
        """False, and it waits in `send`, if it says more than a stand-in with other work should hear."""
        now = self._loop.time()
        self._credit = min(self._credit + (now - self._credit_at) * UNASKED_A_SECOND, UNASKED_AT_ONCE)
        self._credit_at = now
        if self._credit >= 1 or self._ending:
            return True
        self._loop.remove_reader(self._channel)
        self._loop.call_later(_PAUSE, self._read_on)
        return False

    def _read_on(self) -> None:
        if not self._over:
            self._loop.add_reader(self._channel, self._read)

    def _take(self, packet: list[Any], size: int, received: Sequence[int]) -> None:
        if received and packet[0] not in ("ask", "hand"):
            raise ValueError("a descriptor that nobody has asked for")
        match packet[0]:
            case "ask":
                self._credit -= 1
                self._question(packet[1], [*packet[2:], *map(Descriptor, received)])
            case "hand":
                _, label, unread = packet
                if self._network is None or len(received) != 1:
                    raise ValueError("no connection to hand over")
                if not isinstance(label, str) or not isinstance(unread, bytes):
                    raise TypeError("a label and bytes are expected")
                if not is_label(label):
                    raise ValueError("no label of a connection")
                self._credit -= 1
                self._network.hand(os.dup(received[0]), label, unread)
            case "born":  # of its fork server, which says it as well: it is known
                self._credit -= 1
            case "ready":
                self._ready = True
                self._start.done()
                self._watch(IDLE, self._ping)
                self._room()
            case "more" | "done" | "did" | "part":
                self._size += size
                if self._size > _MOST_EFFECTS:
                    raise ValueError(f"the effects of one packet have at most {_MOST_EFFECTS} bytes")
                self._effects += packet[1]
                if len(self._effects) > _MOST:
                    raise ValueError(f"one packet has at most {_MOST} effects")
                if packet[0] in ("more", "did"):
                    self._credit -= 1
                if packet[0] == "part":
                    self._shorten(packet[2])
                if packet[0] != "more":
                    self._perform(packet[0])
            case "ended":
                state = checked_state(packet[1])
                if self._ended is not None and not self._ended.done():
                    self._ended.set_result(state)
            case _:
                raise ValueError(f"there is no packet {packet[0]!r}")

    def _question(self, number: object, question: Sequence[object]) -> None:
        """A request of the process for a socket or a name: nothing of it is repeated for the next process."""
        if self._network is None or not isinstance(number, int):
            raise ValueError("this process has no network")
        if len(self._questions) >= MAX_CONNECTIONS:
            raise ValueError(f"it has more than {MAX_CONNECTIONS} questions at once")
        task = self._loop.create_task(self._answer(self._network, number, question))
        self._questions.add(task)
        task.add_done_callback(self._questions.discard)

    async def _answer(self, network: ProcessNetwork, number: int, question: Sequence[object]) -> None:
        try:
            if question[:1] == ["sync"]:
                answer = Answer(await durable(question[1:]))
            else:
                answer = await network.ask(*question)
        except (ValueError, TypeError) as problem:
            self._fail(f"it sent something wrong: {problem}")
            return
        try:
            packet = cbor2.dumps(["answer", number, *answer.told])
            while not self._over:
                try:
                    socket.send_fds(self._channel, [packet], [sock.fileno() for sock in answer.sockets])
                    return
                except BlockingIOError:
                    await asyncio.sleep(_PAUSE)
                except OSError:  # it has ended; `_reap` follows
                    return
        finally:
            for sock in answer.sockets:  # it has its own descriptors of them
                sock.close()

    def _shorten(self, taken: object) -> None:
        """It has handled so many bytes of the oldest packet, and goes on with the others."""
        match self.unanswered[0], taken:
            case ("stored", session, int(place), int(length)), int(count) if 0 < count < length:
                self.unanswered[0] = ("stored", session, place + count, length - count)
            case _:
                raise ValueError("a part of a packet that it has not")

    def _perform(self, name: str) -> None:
        effects, self._effects, self._size = self._effects, [], 0
        if name == "done":
            self.unanswered.popleft()
            out = bool(self.unanswered)
            self._watch(PATIENCE if out else IDLE, self._late if out else self._ping)
        elif name == "part":
            self._watch(PATIENCE, self._late)
        self._tell(effects)
        if not self._over:
            self._room()

    def _read_output(self) -> None:
        try:
            data = os.read(self._output, 4096)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._output)
            return
        self.said.extend(data.decode(errors="replace").splitlines())

    def _reap(self) -> None:
        """It has ended by itself, or a limit or somebody has killed it. Its last packets are read first."""
        while not self._over and self._read():
            pass
        if self._over:
            return
        self._read_output_rest()
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        why = self.said[-1] if self.said else ""
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        self._report(f"it ended with {name}" + (f": {why}" if why else ""), reaped=True)

    def _read_output_rest(self) -> None:
        try:
            while data := os.read(self._output, 4096):
                self.said.extend(data.decode(errors="replace").splitlines())
        except OSError:
            pass

    def _fail(self, reason: str) -> None:
        if not self._over:
            self._report(reason)

    def _report(self, reason: str, *, reaped: bool = False) -> None:
        """It is gone, and may begin again, unless its end was asked for: nobody may speak for it afterwards."""
        self._close(reaped=reaped)
        if not self._ending:
            self._gone(reason)

    def _close(self, *, reaped: bool = False) -> None:
        if self._over:
            return
        self._over = True
        for question in self._questions:
            question.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self.pid:
            self._start.done()
            for descriptor in (self._channel, self._output, self._pidfd):
                self._loop.remove_reader(descriptor)
            if not reaped:
                end(self.pid)
            self._channel.close()
            os.close(self._output)
            os.close(self._pidfd)
        else:
            self._start.cancel()
        self._died()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result({})
