"""Words of proxies on their way into the kernel: said once, also where the daemon is killed in between.

Words that answer received bytes are in the row that counts these bytes as answered, and are said when it is stored: killed
before that, the next run shows the bytes again and nothing was said; killed after it, the next run says the words. Words of
a proxy's own accord go at once, or behind those that wait. Datagrams go in the same order; the next run does not repeat
them, for one may be lost anyway. This module must not know processes.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

from locum.node import words
from locum.node.apps.running import Running
from locum.node.sessions.draining import HeldSocket
from locum.sessions.tcp.errors import SessionError
from locum.sessions.tcp.spoken import MAX_SPOKEN
from locum.sessions.tcp.spool import Spool

log = logging.getLogger("locum.apps")
PUSH_AGAIN = 0.25  # seconds

Committed = Callable[[], "asyncio.Future[None] | None"]
"""The commit that covers every row that was put so far; None: all are stored."""


def joined(app: Running, effects: Iterable[Any]) -> Iterator[Any]:
    """The effects, with words that follow each other in a TCP session as one: a long text, which comes in pieces, is said
    whole or not at all."""

    def session(effect: Any) -> int | None:
        match effect:
            case ["speak", int(number), bytes()] if (attended := app.sessions.get(number)) is not None:
                return number if isinstance(attended.held.spool, Spool) else None
        return None

    for number, group in groupby(effects, session):
        if number is None:
            yield from group
        else:
            yield ["speak", number, b"".join(data for _, _, data in group)]


class Saying:
    """`failed` gets the proxy and a reason; `datagram` sends one."""

    def __init__(
        self,
        committed: Committed,
        failed: Callable[[Running, str], None],
        datagram: Callable[[HeldSocket, bytes], None],
    ) -> None:
        self._committed, self._failed, self._datagram = committed, failed, datagram
        self._said: dict[bytes, int] = {}  # bytes of each handover that runs, with those that wait
        self._pushing: set[HeldSocket] = set()  # those that get the rest later

    def begin(self, handover: bytes, sessions: Iterable[HeldSocket]) -> None:
        """Its proxies run: so much was said before."""
        said = [held.spool.said for held in sessions if isinstance(held.spool, Spool)]
        self._said[handover] = sum(len(one.data) for one in said)

    def end(self, handover: bytes, apps: Iterable[Running]) -> None:
        """No word of it is said any more."""
        self._said.pop(handover, None)
        for app in apps:
            app.words.clear()

    def speak(self, app: Running, held: HeldSocket, data: bytes, *, waits: bool) -> None:
        """Say this: once the row is stored (`stored_later`) if it `waits`, or other words of the proxy do."""
        if isinstance(held.spool, Spool):
            if self._said.get(app.handover, 0) + len(data) > MAX_SPOKEN:
                reason = f"proxies say at most {MAX_SPOKEN} bytes in the sessions of one sleep"
                self._not_sent(app, held, data, reason)
                return
            self._said[app.handover] = self._said.get(app.handover, 0) + len(data)
        if waits or app.words:
            app.words.append((held, data))
        else:
            self._say(app, held, data)

    def stored_later(self, app: Running) -> None:
        """The words that wait are in the row that was put, or behind others: say them when it is stored."""
        if not app.words:
            return
        commit, end = self._committed(), app.words_said + len(app.words)
        if commit is None:
            self._say_until(app, end)
        else:  # a commit that fails is repeated; peers do not wait for a disk to have room
            commit.add_done_callback(lambda _: self._say_until(app, end))

    async def settle(self, apps: Iterable[Running]) -> None:
        """Say all that waits, once its rows are stored: a run that is killed before the device is told says nothing twice."""
        if any(app.words for app in apps) and (commit := self._committed()) is not None:
            await asyncio.wait([commit])
        for app in apps:
            self._say_until(app, app.words_said + len(app.words))

    def _say_until(self, app: Running, end: int) -> None:
        while app.words and app.words_said < end:
            held, data = app.words.popleft()
            app.words_said += 1
            self._say(app, held, data)

    def _say(self, app: Running, held: HeldSocket, data: bytes) -> None:
        spool = held.spool
        if not isinstance(spool, Spool):
            self._datagram(held, data)
            return
        before = len(spool.said.data)
        try:
            if held.socket.fileno() < 0:
                raise SessionError("the session is not held any more")
            spool.said.say(held.socket, data)
            self.push(held)
        except (SessionError, OSError) as problem:
            self._not_sent(app, held, data, words.reason(problem))
        finally:
            more = len(spool.said.data) - before - len(data)
            self._said[app.handover] = self._said.get(app.handover, 0) + more

    def _not_sent(self, app: Running, held: HeldSocket, data: bytes, reason: str) -> None:
        self._failed(app, f"session {held.key[1]}: {len(data)} bytes were not sent: {reason}")

    # rows

    @staticmethod
    def row(app: Running) -> dict[str, list[object]]:
        """Words that wait, for the row: of each session the place of the first byte, and all of them."""
        found: dict[str, list[object]] = {}
        waiting: dict[HeldSocket, list[bytes]] = {}
        for held, data in app.words:
            waiting.setdefault(held, []).append(data)
        for held, pieces in waiting.items():
            if isinstance(held.spool, Spool):
                found[str(held.key[1])] = [len(held.spool.said.data), b"".join(pieces).hex()]
        return found

    @staticmethod
    def recall(app: Running, row: Mapping[str, Any]) -> None:
        """After a restart: say what an earlier run had not said yet. Raises ValueError, TypeError for another row."""
        for number, (place, text) in row.items():
            attended = app.sessions.get(int(number))
            if attended is None or not isinstance(spool := attended.held.spool, Spool):
                continue
            rest = bytes.fromhex(text)[max(len(spool.said.data) - int(place), 0) :]
            try:
                if rest:
                    spool.said.say(attended.held.socket, rest)
            except (SessionError, OSError) as problem:
                log.warning("%s: %d bytes were not sent: %s", attended.held.name, len(rest), problem)

    # room in the kernel

    def push(self, held: HeldSocket) -> None:
        """Give the kernel the rest when it has room again, as long as proxies run, also in a session that its proxy has left."""
        if held in self._pushing or held.key[0] not in self._said:
            return
        if held.stopped is not None or not isinstance(held.spool, Spool):
            return
        try:
            done = held.spool.said.push(held.socket)
        except OSError:  # the connection has ended, which its reader tells
            return
        if not done:
            self._pushing.add(held)
            asyncio.get_running_loop().call_later(PUSH_AGAIN, self._push_again, held)

    def _push_again(self, held: HeldSocket) -> None:
        self._pushing.discard(held)
        self.push(held)
