"""The connections and listeners of a proxy: carries effects out, and collects happenings (`locum.roles.app_network`).

Sockets come from the stand-in, which binds them to the home address and marks them. Nothing here waits for a peer: the
program's loop calls `event` for sockets that can go on, `due` when time has passed, and gives `happenings` to the proxy.
"""

import contextlib
import errno
import os
import select
import socket
import ssl
import struct
import time
from collections import deque
from functools import partial
from typing import Any

from locum.apps.shell import closing
from locum.apps.shell.channel import Channel, Questions, close
from locum.apps.shell.files import Files
from locum.apps.shell.lingering import Lingering
from locum.apps.shell.listener import Listener
from locum.apps.shell.listeners import Listeners
from locum.apps.shell.readiness import Readiness
from locum.apps.shell.stream import READ, Encrypt, FilePart, Hand, State, Stream
from locum.apps.shell.trust import Trust
from locum.roles.app_contract import Effect
from locum.roles.app_network import (
    MAX_CONNECTIONS,
    MAX_UNSENT,
    Abort,
    Accepted,
    Connect,
    Data,
    Drained,
    Ended,
    Finish,
    HandOver,
    Happening,
    Listen,
    Opened,
    Pause,
    Resume,
    Send,
    SendFile,
    SendTo,
    StartTls,
)
from locum.wire.control.handed import MAX_LABEL, is_label

CROWDED = 256 << 10
"""Unsent bytes of a connection at which it is read no more, until there are fewer."""
PATIENCE = 30.0
"""Seconds for STARTTLS."""
ATTEMPT = 10.0
"""Seconds for one address of a host that has more."""
MAX_UNREAD = 64 << 10
"""Bytes that a connection may have unread when it is handed over."""
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: no time


class Network:
    """Of one process. `poll` watches the sockets, whose events the caller passes on."""

    def __init__(self, channel: Channel, poll: select.epoll, files: Files, trust: Trust) -> None:
        self.happenings: deque[Happening] = deque()
        self._channel, self._files, self._trust = channel, files, trust
        self._readiness, self.questions = Readiness(poll), Questions(channel)
        self.event, self.answer = self._readiness.event, self.questions.answer
        self._lingering = Lingering(self._readiness)
        self._listeners = Listeners(
            self._readiness, self.questions, self.happenings, self._places, self._accept
        )
        self._streams: dict[int, Stream] = {}
        self._accepted = 0
        self._touched: dict[Stream, None] = {}
        self._again: dict[Stream, None] = {}  # more is here that no event announces
        self._waiting: dict[int, Stream] = {}  # for the stand-in, a peer or TLS, until their patience ends
        self._room = memoryview(bytearray(READ))

    # effects

    def perform(self, effect: Effect) -> None:
        """Carry out, or begin to. What is to be sent goes with the next `flush`. Raises ValueError for a number in use."""
        match effect:
            case Connect():
                self._connect(effect)
            case Listen():
                self._check(effect.listener)
                if self._places() > 0:
                    self._listeners.listen(effect)
                else:
                    self._refuse(effect.listener)
            case SendTo():
                self._listeners.send(effect)
            case Finish(number) if (listener := self._listeners.get(number)) is not None:
                self._listeners.end(listener)
            case Pause(number) | Resume(number) if (listener := self._listeners.get(number)) is not None:
                self._listeners.pause(listener, paused=isinstance(effect, Pause))
            case Send() | SendFile() | StartTls() | HandOver() | Finish() | Abort() | Pause() | Resume():
                stream = self._streams.get(effect.connection)
                if stream is not None and not stream.finishing:
                    self._on_stream(stream, effect)
            case _:
                raise TypeError(f"no effect of the contract: {type(effect).__name__}")

    def _on_stream(self, stream: Stream, effect: Effect) -> None:
        match effect:
            case Send(_, data):
                if data:
                    stream.queue.append(memoryview(data))
                    stream.unsent += len(data)
                if stream.unsent > MAX_UNSENT:
                    self._fail(stream, os.strerror(errno.ENOBUFS))
            case SendFile(_, name, offset, length):
                try:
                    file = self._files.opened(name)
                except OSError as problem:
                    self._fail(stream, f"{name}: {problem.strerror}")
                    return
                stream.queue.append(FilePart(name, offset, length, file))
            case StartTls(_, host):
                stream.queue.append(Encrypt(host))
                stream.quiet = True
                stream.until = time.monotonic() + PATIENCE
            case HandOver(_, label, unread):
                self._hand(stream, label, unread)
            case Finish():
                stream.finishing = True
                self._forget_happenings(stream)
            case Abort():
                self._abort(stream)
                return
            case Pause():
                stream.paused = True
            case Resume():
                stream.paused = False
        self._touched[stream] = None

    def flush(self) -> None:
        """Send what the last effects have brought, as far as it goes now."""
        while self._touched:
            stream, _ = self._touched.popitem()
            if self._streams.get(stream.number) is stream and stream.state is State.OPEN:
                self._send(stream)

    # connect

    def _connect(self, effect: Connect) -> None:
        self._check(effect.connection)
        if self._places() <= 0:
            self._refuse(effect.connection)
            return
        stream = self._streams[effect.connection] = Stream(effect.connection, None, State.ASKED)
        stream.host, stream.port, stream.tls = effect.host, effect.port, effect.tls
        stream.patience = stream.until = time.monotonic() + effect.patience
        self._waiting[id(stream)] = stream
        self._attempt(stream)

    def _attempt(self, stream: Stream) -> None:
        stream.state = State.ASKED
        self.questions.ask(partial(self._made, stream), "connect", stream.host, stream.port, stream.attempt)

    def _made(self, stream: Stream, answer: list[Any], descriptors: list[int]) -> None:
        """The stand-in has made the socket, which connects."""
        reason, *rest = answer
        if self._streams.get(stream.number) is not stream or stream.state is not State.ASKED:
            close(descriptors)
        elif reason or not descriptors:
            self._fail(stream, stream.problem or reason or "the stand-in gave no socket")
        else:
            stream.sock = _socket(descriptors[0])
            stream.peer, more = rest
            stream.state = State.CONNECTING
            stream.patience = min(stream.until, time.monotonic() + ATTEMPT) if more else stream.until
            self._watch(stream)

    def _connected(self, stream: Stream) -> None:
        assert stream.sock is not None
        code = stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._next(stream, os.strerror(code))
        elif stream.tls:
            self._encrypt(stream, stream.host)
        else:
            self._open(stream)

    def _next(self, stream: Stream, problem: str) -> None:
        """Try the host's next address."""
        stream.problem, stream.attempt = stream.problem or problem, stream.attempt + 1
        stream.patience = stream.until
        self._let_go(stream)
        self._attempt(stream)

    def _open(self, stream: Stream) -> None:
        stream.state, stream.quiet = State.OPEN, False
        self._waiting.pop(id(stream), None)
        self.happenings.append(Opened(stream.number, stream.peer))
        self._send(stream)

    def _encrypt(self, stream: Stream, host: str) -> None:
        assert stream.sock is not None
        stream.state, stream.tls, stream.patience = State.SHAKING, True, stream.until
        self._waiting[id(stream)] = stream
        try:
            stream.sock = self._trust.wrap(stream.sock, host)
        except (OSError, ValueError) as problem:
            self._fail(stream, f"TLS: {problem}")
            return
        self._shake(stream)

    def _shake(self, stream: Stream) -> None:
        encrypted = stream.encrypted
        assert encrypted is not None
        try:
            encrypted.do_handshake()
        except ssl.SSLWantReadError:
            stream.wants = _IN
            self._watch(stream)
        except ssl.SSLWantWriteError:
            stream.wants = _OUT
            self._watch(stream)
        except ssl.SSLCertVerificationError as problem:
            self._fail(stream, f"TLS: the certificate is not accepted: {problem.verify_message}")
        except (OSError, ValueError) as problem:
            self._fail(stream, f"TLS: {getattr(problem, 'reason', None) or problem}")
        else:
            stream.wants, stream.more = 0, True
            self._open(stream)

    def _accept(self, listener: Listener, sock: socket.socket, peer: str, port: int) -> None:
        self._accepted -= 1
        stream = self._streams[self._accepted] = Stream(self._accepted, sock, State.OPEN, peer)
        self.happenings.append(Accepted(listener.number, stream.number, peer, port))
        self._watch(stream)

    # events

    @property
    def is_busy(self) -> bool:
        """True if it can go on without an event."""
        return bool(self._again or self.happenings)

    def again(self) -> None:
        """Read what no event announces."""
        for stream in tuple(self._again):
            del self._again[stream]
            if self._streams.get(stream.number) is not stream:
                continue
            if self._reads(stream):
                self._read(stream)
            else:
                stream.more = True  # until it may be read again

    def _on_event(self, stream: Stream, mask: int) -> None:
        if stream.state is State.CONNECTING:
            self._connected(stream)
        elif stream.state is State.SHAKING:
            self._shake(stream)
        else:
            broken = mask & ~(_IN | _OUT)
            if broken and stream.eof:
                self._break(stream)
            elif broken or (mask & _IN and self._reads(stream)):
                self._read(stream)
            if self._streams.get(stream.number) is stream and stream.state is State.OPEN:
                self._send(stream)

    def _break(self, stream: Stream) -> None:
        """The connection has gone after the peer's FIN."""
        assert stream.sock is not None
        code = stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._fail(stream, os.strerror(code) if code else "")

    def _reads(self, stream: Stream) -> bool:
        """True if its bytes are wanted now."""
        ready = stream.state is State.OPEN and not (stream.paused or stream.eof or stream.quiet)
        return ready and not stream.finishing and stream.unsent < CROWDED

    def _read(self, stream: Stream) -> None:
        try:
            found = stream.read(self._room)
        except OSError as problem:
            self._fail(stream, problem.strerror or str(problem))
            return
        if found is None:
            return
        data, more = found
        stream.eof = not data
        if not stream.finishing:
            self.happenings.append(Data(stream.number, data))
        if more and data:
            self._again[stream] = None

    def _send(self, stream: Stream) -> None:
        waited = bool(stream.queue)
        try:
            idle = stream.send()
            if idle and waited and not stream.queue and not stream.finishing:
                self.happenings.append(Drained(stream.number))
            if idle and stream.queue:
                self._turn(stream)
            elif idle and stream.finishing:
                self._finish(stream)
            else:
                self._watch(stream)
                if stream.more and self._reads(stream):
                    stream.more = False
                    self._again[stream] = None
        except OSError as problem:
            self._fail(stream, problem.strerror or str(problem))

    def _turn(self, stream: Stream) -> None:
        """Encrypt or hand over the connection, now that everything before is sent."""
        item = stream.queue.popleft()
        if isinstance(item, Encrypt):
            self._encrypt(stream, item.host)
        elif isinstance(item, Hand):
            self._give(stream, item)

    def _watch(self, stream: Stream) -> None:
        """Wait for the events that it can go on with."""
        assert stream.sock is not None
        if stream.state is State.CONNECTING:
            mask = _OUT
        elif stream.state is State.SHAKING:
            mask = stream.wants
        else:
            mask = _IN if self._reads(stream) else 0
            mask |= stream.wants or (_OUT if stream.queue else 0)
        if stream.mask is None:
            self._readiness.watch(stream.sock.fileno(), mask, partial(self._on_event, stream))
        elif stream.mask != mask:
            self._readiness.change(stream.sock.fileno(), mask)
        stream.mask = mask

    # ends

    def _finish(self, stream: Stream) -> None:
        """Everything is sent: FIN. The peer may take a while to end its side."""
        assert stream.sock is not None
        if stream.encrypted is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.encrypted.unwrap()  # sends close_notify; the peer's is not waited for
        eof, sock = stream.eof, self._let_go(stream, keep=True)
        self._forget(stream)
        self.happenings.append(Ended(stream.number))
        if sock is not None:
            self._lingering.add(sock, eof=eof)

    def _abort(self, stream: Stream) -> None:
        if stream.sock is not None:
            with contextlib.suppress(OSError):
                stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._forget_happenings(stream)
        self._fail(stream, "")

    def _fail(self, stream: Stream, reason: str) -> None:
        self._let_go(stream)
        self._forget(stream)
        self.happenings.append(Ended(stream.number, reason))

    def _let_go(self, stream: Stream, *, keep: bool = False) -> socket.socket | None:
        """Its socket is not watched any more, and closed unless it is kept."""
        sock, stream.sock = stream.sock, None
        if sock is None:
            return None
        self._readiness.forget(sock.fileno())
        stream.mask = None
        if not keep:
            sock.close()
        return sock

    def _forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)
        self._waiting.pop(id(stream), None)
        self._again.pop(stream, None)
        stream.queue.clear()
        self._listeners.has_room()

    def _forget_happenings(self, stream: Stream) -> None:
        """The proxy has ended the connection, and is told nothing more of it."""
        number = stream.number
        if any(getattr(event, "connection", None) == number for event in self.happenings):
            kept = [event for event in self.happenings if getattr(event, "connection", None) != number]
            self.happenings.clear()
            self.happenings.extend(kept)

    # handing over

    def _hand(self, stream: Stream, label: str, unread: bytes) -> None:
        """Read nothing more; bytes that were read and not told go along."""
        told = [
            event
            for event in self.happenings
            if isinstance(event, Data) and event.connection == stream.number
        ]
        self._forget_happenings(stream)
        unread += b"".join(event.data for event in told)
        if stream.state is not State.OPEN or stream.tls:
            self._fail(stream, "only an open connection that is not encrypted can be handed over")
        elif not is_label(label):
            self._fail(stream, f"a label has 1 to {MAX_LABEL} printable characters")
        elif len(unread) > MAX_UNREAD:
            self._fail(stream, f"a connection that is handed over has at most {MAX_UNREAD} unread bytes")
        else:
            stream.quiet = True
            stream.queue.append(Hand(label, unread))

    def _give(self, stream: Stream, item: Hand) -> None:
        assert stream.sock is not None
        self._channel.send("hand", item.label, item.unread, descriptors=[stream.sock.fileno()])
        self._let_go(stream)
        self._forget(stream)
        self.happenings.append(Ended(stream.number))

    # time

    def deadline(self) -> float | None:
        """Steady seconds of the next `due`."""
        times = [stream.patience for stream in self._waiting.values()]
        if (at := self._lingering.deadline()) is not None:
            times.append(at)
        return min(times, default=None)

    def due(self, now: float) -> None:
        """The patience of some may be over."""
        for stream in [stream for stream in self._waiting.values() if stream.patience <= now]:
            if stream.state is State.CONNECTING and now < stream.until:
                self._next(stream, os.strerror(errno.ETIMEDOUT))
            else:
                self._fail(stream, stream.problem or os.strerror(errno.ETIMEDOUT))
        self._lingering.due(now)

    def close(self) -> None:
        """The device takes over: everything ends in order, within a bounded time."""
        self._listeners.close_all()
        for stream in tuple(self._streams.values()):
            if stream.state is not State.OPEN:
                self._let_go(stream)
        open_ones = [stream for stream in self._streams.values() if stream.state is State.OPEN]
        closing.close(open_ones, self._lingering.sockets())

    # numbers

    def _check(self, number: int) -> None:
        if number < 0 or number in self._streams or self._listeners.get(number) is not None:
            raise ValueError(f"{number} is not free as the number of a connection")

    def _places(self) -> int:
        """How many more connections and listeners it may have."""
        return MAX_CONNECTIONS - len(self._streams) - len(self._listeners)

    def _refuse(self, number: int) -> None:
        self.happenings.append(
            Ended(number, f"there are at most {MAX_CONNECTIONS} connections and listeners")
        )


def _socket(descriptor: int) -> socket.socket:
    made = socket.socket(fileno=descriptor)
    made.setblocking(False)
    return made
