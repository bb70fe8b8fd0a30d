"""WireGuard of one node: `open`, `begin`, and then peers that come and go, ways that change, an interface that is taken away.

Others use `add_peer`, `remove_peer`, `replace_key`, `replace_peer_key`, `set_endpoint`, `peers` and `moved`. One task does all
that takes time, so that two changes never meet; every call of `wg` has the lock.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from locum.node.config.wireguard.values import Address, Endpoint, Peer, WireGuardSettings, endpoint_of_text
from locum.node.events import EventStream
from locum.node.host.link_watch import Link
from locum.node.host.network import HostNetwork
from locum.node.tables import HostStore, HostTable
from locum.node.wireguard import tool
from locum.node.wireguard.book import Arguments, Known, PeerBook, anew, keepalive, settings_of
from locum.node.wireguard.echo import Echoes
from locum.node.wireguard.interface import Interface, mtu_of
from locum.node.wireguard.key_change import KeyChange
from locum.node.wireguard.path import LEAST, OVERHEAD, Path, Paths
from locum.node.wireguard.roaming import REJECT_AFTER, Act, Seeking
from locum.node.wireguard.tool import InterfaceState, PeerState, WireGuardError

log = logging.getLogger("locum.wireguard")

_POLL, _POLL_SEEKING = 5.0, 1.0  # seconds between two looks at the interface
_AGAIN = 1.0  # seconds between two attempts to make a lost interface
_RESOLVER = 0.2  # seconds for the host's resolver, with a peer that does not answer
_USUAL_MTU = 1500
_MOST_CALLED = 256  # peers that a server with a new address calls: those that it heard last
_ENDPOINT = "endpoint/"


class WireGuard:
    """The interface, its peers, and the ways to them."""

    def __init__(
        self, settings: WireGuardSettings, links: Sequence[str], store: HostStore, events: EventStream
    ) -> None:
        """`links`: interfaces of this node, one of which may be WireGuard's own."""
        self.settings, self._store, self._events = settings, store, events
        self._links = [link for link in links if link != settings.interface]
        self.interface = Interface(settings, store)
        self.book = PeerBook(settings.address.ip)
        self.private_key = settings.private_key
        self._heard: dict[str, dict[str, Any]] = {}  # rows of the store: where peers were heard
        self._lock = asyncio.Lock()
        self._paths = Paths(settings.mark, settings.interface, self._way_changed)
        self._echoes: Echoes | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._look, self._forced, self._lost, self._closed = True, False, False, False
        self._failed = ""
        self._next_poll = 0.0
        self._keys = KeyChange(self)

    # life -----------------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """The interface is there, with the peers of the file. Raises WireGuardError or OSError."""
        await self.interface.open()
        rows = self._store.rows(HostTable.WIREGUARD)
        self._heard = {key: dict(row) for key, row in rows.items() if key.startswith(_ENDPOINT)}
        try:
            await self._establish()
        except BaseException:
            self.interface.close()
            raise

    async def begin(self, network: HostNetwork) -> None:
        """Outer packets take the main table from now on, and changes of the way are followed. Raises OSError."""
        await network.send_marked(self.settings.mark)
        await self._paths.open()
        self._task = asyncio.create_task(self._run(), name="wireguard")

    async def settle(self) -> None:
        """Remove the peers of an earlier run that were not added again."""
        state = await self.look()
        strangers = self.book.strangers(state)
        for key in strangers:
            await self.change(["peer", key, "remove"])
        for row in tuple(self._heard):
            if row.removeprefix(_ENDPOINT) not in self.book.known:
                self._forget_endpoint(row.removeprefix(_ENDPOINT))

    async def close(self, *, remove: bool = False) -> None:
        """Follow nothing any more; the interface stays and carries packets, unless the node leaves for good."""
        if self._closed:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            await self._paths.close()
        for known in self.book.known.values():
            if known.candidates is not None:
                known.candidates.close()
        self._close_echoes()
        if remove:
            await self.interface.remove()
        self.interface.close()

    # what others ask for --------------------------------------------------------------------------------------------

    async def add_peer(self, peer: Peer) -> None:
        """Add it, or change it; its session goes on. Raises WireGuardError."""
        before = self.book.known.get(peer.public_key)
        known = self.book.add(peer, self._stored(peer.public_key))
        try:
            await self.change(settings_of(peer, None if before is known else self.at(known)))
        except WireGuardError:
            if before is None:
                self.book.remove(peer.public_key)
            raise
        if before is None:
            self._events.emit("wireguard-peer-added", detail={"peer": str(peer.address)})
        if known.roaming is not None and before is not known:
            self.moved()

    async def remove_peer(self, public_key: str) -> bool:
        """Its session ends at once; false: it was not there. Raises WireGuardError."""
        known = self.book.remove(public_key)
        if known is None:
            return False
        self._forget_endpoint(public_key)
        await self.change(["peer", public_key, "remove"])
        self._events.emit("wireguard-peer-removed", detail={"peer": str(known.peer.address)})
        return True

    async def replace_key(self, private_key: str, patience: float = 5.0) -> None:
        """This node has this key from now on, also in its file, if a peer takes it; else it keeps the old one.

        Raises WireGuardError.
        """
        await self._keys.replace_own(private_key, patience)
        self._events.emit("wireguard-key-replaced", detail={"whose": "own"})

    async def replace_peer_key(self, old: str, new: str, patience: float = 60.0) -> None:
        """The peer's packets go by its new key as soon as it uses it; until then by the old one. Raises WireGuardError."""
        known = await self._keys.replace_peers(old, new, patience)
        self._forget_endpoint(old)
        self._events.emit("wireguard-key-replaced", detail={"whose": str(known.peer.address)})

    async def set_endpoint(self, public_key: str, endpoint: Endpoint) -> None:
        """The peer is there from now on. Raises WireGuardError."""
        known = self.book.known.get(public_key)
        if known is None:
            raise WireGuardError(f"no peer has the key {public_key}")
        await self.add_peer(replace(known.peer, endpoint=endpoint))

    async def peers(self) -> tuple[PeerState, ...]:
        """Each peer with its end point, last handshake and bytes. Raises WireGuardError."""
        return (await self.look()).peers

    def moved(self) -> None:
        """The host has moved or slept: peers get our present address at once, and have to answer."""
        self._look = self._forced = True
        self._wake.set()

    def link_changed(self, name: str, link: Link | None) -> None:
        """Handle a report of the link watch; None is a link that has vanished."""
        if name == self.interface.name and (link is None or not link.up) and self._task is not None:
            self._lost = True
            self._wake.set()

    def counters(self) -> dict[str, int]:
        """Bytes, handshakes, and what was done to reach peers."""
        return dict(self.book.counts)

    def status(self) -> dict[str, Any]:
        """The interface and its peers as they were seen last."""
        return {
            "interface": self.interface.name, "kind": self.interface.kind, "mtu": self.interface.mtu,
            **({"failed": self._failed} if self._failed else {}),
            "peers": [_shown(known) for known in self.book.known.values()],
        }  # fmt: skip

    # calls of wg ----------------------------------------------------------------------------------------------------

    async def change(self, arguments: Arguments) -> None:
        """`wg set`. Raises WireGuardError."""
        async with self._lock:
            await tool.change(self.interface.name, arguments)

    async def look(self) -> InterfaceState:
        """`wg show`. Raises WireGuardError."""
        async with self._lock:
            state = await tool.show(self.interface.name)
        for move in self.book.observe(state):
            detail = {
                "peer": str(move.known.peer.address),
                "endpoint": str(move.now),
                "before": str(move.before),
            }
            self._events.emit("wireguard-peer-moved", detail=detail)
        for known in self.book.known.values():
            if known.endpoint is not None and known.seen is not None and known.seen.handshake:
                self._store_endpoint(known.peer.public_key, known.endpoint)
        return state

    async def _establish(self) -> None:
        state = await self.interface.establish(self.private_key)
        for peer in self.settings.peers:
            if peer.public_key not in self.book.known:
                self.book.add(peer, self._stored(peer.public_key))
        self.book.observe(state)
        arguments: Arguments = []
        for known in self.book.known.values():
            there = state.peer(known.peer.public_key)
            at = None if there is not None and there.endpoint is not None else self.at(known)
            arguments += settings_of(known.peer, at)
            if there is None and at is not None and known.roaming is None:
                arguments += keepalive(known.peer)  # it is behind a NAT, perhaps, and waits for our handshake
        if arguments:
            await self.change(arguments)
        detail = {
            "interface": self.interface.name,
            "kind": self.interface.kind,
            "adopted": self.interface.adopted,
        }
        self._events.emit("wireguard-ready", detail=detail)

    def at(self, known: Known) -> Endpoint | None:
        """Its present address, or the stored one."""
        if known.candidates is None:
            return known.endpoint
        first = next(iter(known.candidates.in_order), None)
        return None if first is None else Endpoint(str(first), known.candidates.endpoint.port)

    def _stored(self, public_key: str) -> Endpoint | None:
        row = self._heard.get(_ENDPOINT + public_key)
        try:
            return None if row is None else endpoint_of_text(str(row["endpoint"]))
        except (KeyError, ValueError):
            self._events.count("unreadable-row")
            return None

    def _store_endpoint(self, public_key: str, endpoint: Endpoint) -> None:
        row = {"endpoint": str(endpoint)}
        if self._heard.get(_ENDPOINT + public_key) != row:
            self._heard[_ENDPOINT + public_key] = row
            self._store.put(HostTable.WIREGUARD, _ENDPOINT + public_key, row)

    def _forget_endpoint(self, public_key: str) -> None:
        self._heard.pop(_ENDPOINT + public_key, None)
        self._store.forget(HostTable.WIREGUARD, _ENDPOINT + public_key)

    # the one task ---------------------------------------------------------------------------------------------------

    def _way_changed(self) -> None:
        self._look = True
        self._wake.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        self.moved()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._next() - loop.time())):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self._turn(loop.time)
                self._failed = ""
            except (
                Exception
            ) as problem:  # such as a fault of the netlink library: peers must not lose their way by it
                await self._complain(str(problem))

    def _next(self) -> float:
        deadlines = [
            known.roaming.deadline() for known in self.book.known.values() if known.roaming is not None
        ]
        return min([self._next_poll, *(at for at in deadlines if at is not None)])

    async def _complain(self, text: str) -> None:
        if text != self._failed:
            log.warning("%s", text)
            self._events.emit("wireguard-failed", detail={"reason": text})
        self._failed = text
        self._lost = self._lost or not self.interface.index()
        await asyncio.sleep(_AGAIN)
        self._wake.set()

    async def _turn(self, clock: Callable[[], float]) -> None:
        if self._lost:
            await self._make_again()
        if self._look:
            forced, self._look, self._forced = self._forced, False, False
            await self._follow_ways(clock, forced)
        if clock() >= self._next_poll:
            await self._poll(clock)
        for known in tuple(self.book.known.values()):
            if known.roaming is not None:
                await self._perform(known, known.roaming.timeout(now=clock()), clock)

    async def _make_again(self) -> None:
        self._close_echoes()
        await self._establish()
        self._lost = False
        self.book.counts["made-again"] += 1
        self._events.emit("wireguard-remade", detail={"interface": self.interface.name})
        self._look = self._forced = True

    async def _follow_ways(self, clock: Callable[[], float], forced: bool) -> None:
        called: list[Known] = []
        for known in tuple(self.book.known.values()):
            if known.roaming is None:
                if len(called) < _MOST_CALLED and await self._server_moved(known, forced):
                    called.append(known)
                continue
            path = await self._way_to(known)
            if path is None and (forced or known.path is not None):
                self._events.emit("wireguard-no-way", detail={"peer": str(known.peer.address)})
            before, known.path = known.path, path
            if path is not None and (forced or before is None or _differs(before, path)):
                self._tell_way(known, before, path)
                await self._set_mtu()
                acts = known.roaming.moved(now=clock(), handshake_age=_age(known))
                await self._perform(known, acts, clock, rotate=False)
        if called:
            await self.change([word for known in called for word in keepalive(known.peer)])
            self.book.counts["calls"] += len(called)
        await self._set_mtu()

    async def _server_moved(self, known: Known, forced: bool) -> bool:
        """True if a peer that calls us has to learn our new address from us."""
        if known.endpoint is None or known.endpoint.address is None or _age(known) > REJECT_AFTER:
            return False
        path = await self._paths.find(known.endpoint.address)
        before, known.path = known.path, path
        if path is None or (before is None and not forced):
            return False
        return forced or (before is not None and _differs(before, path))

    async def _way_to(self, known: Known) -> Path | None:
        """The way to the first of its addresses that has one; that is used from now on."""
        assert known.candidates is not None
        if not known.candidates.in_order:
            await known.candidates.resolve()
        for address in known.candidates.in_order:
            path = await self._paths.find(address)
            if path is not None:
                known.candidates.chosen(address)
                return path
        return None

    def _tell_way(self, known: Known, before: Path | None, path: Path) -> None:
        if before is not None and not _differs(before, path):
            return
        detail = {
            "peer": str(known.peer.address), "to": str(path.to), "link": path.link, "source": path.source,
            "mtu": path.mtu, "before": "" if before is None else before.source,
        }  # fmt: skip
        self._events.emit("wireguard-moved", detail=detail)

    async def _set_mtu(self) -> None:
        ways = [known.path for known in self.book.known.values() if known.roaming is not None and known.path]
        if ways:
            wanted = min(path.inner_mtu for path in ways)
        else:  # peers may come by either family
            links = [mtu for link in self._links if (mtu := mtu_of(link))]
            wanted = max(LEAST, min([*links, _USUAL_MTU]) - OVERHEAD[6])
        if self.interface.mtu not in (0, wanted):
            await self.interface.set_mtu(wanted)
            self._events.emit("wireguard-mtu", detail={"interface": self.interface.name, "mtu": wanted})

    async def _poll(self, clock: Callable[[], float]) -> None:
        before = {key: known.seen for key, known in self.book.known.items()}
        await self.look()
        for key, known in tuple(self.book.known.items()):
            roaming, seen, last = known.roaming, known.seen, before.get(key)
            if roaming is None or seen is None:
                continue
            if seen.handshake and (last is None or last.handshake != seen.handshake):
                await self._perform(known, roaming.answered(now=clock()), clock)
            await self._perform(known, roaming.counted(seen.received, seen.sent, now=clock()), clock)
            stale = known.peer.keepalive and _age(known) > REJECT_AFTER
            if stale and not isinstance(roaming.state, Seeking):  # the host has slept, or the peer is away
                acts = roaming.moved(now=clock(), handshake_age=_age(known))
                await self._perform(known, acts, clock, rotate=False)
        seeking = any(
            known.roaming is not None and isinstance(known.roaming.state, Seeking)
            for known in self.book.known.values()
        )
        self._next_poll = clock() + (_POLL_SEEKING if seeking else _POLL)

    async def _perform(
        self, known: Known, acts: Sequence[Act], clock: Callable[[], float], *, rotate: bool = True
    ) -> None:
        for act in acts:
            match act:
                case Act.CALL:
                    await self._call(known)
                case Act.RENEW:
                    await self._renew(known, rotate)
                case Act.ECHO:
                    self._ask(known, clock)
                case Act.LATE:
                    self._events.emit("wireguard-late", detail={"peer": str(known.peer.address)})
                case Act.BACK:
                    self._tell_back(known)

    def _tell_back(self, known: Known) -> None:
        assert known.roaming is not None
        took, renewals = known.roaming.state.took, known.roaming.state.renewals  # type: ignore[union-attr]
        self._events.emit(
            "wireguard-back",
            detail={"peer": str(known.peer.address), "seconds": round(took, 4), "renewals": renewals},
        )

    async def _call(self, known: Known) -> None:
        mark: Arguments = ["fwmark", hex(self.settings.mark)]  # the kernel forgets source addresses then
        await self.change([*mark, *keepalive(known.peer, self.at(known))])
        self.book.counts["calls"] += 1

    async def _renew(self, known: Known, rotate: bool) -> None:
        assert known.candidates is not None
        if rotate:
            known.candidates.failed()
            await known.candidates.resolve(_RESOLVER)
            known.path = await self._way_to(known)
        if known.path is None:
            return
        await self.change(anew(known.peer, self.at(known)))
        self.book.counts["renewals"] += 1

    # echoes ---------------------------------------------------------------------------------------------------------

    def _ask(self, known: Known, clock: Callable[[], float]) -> None:
        def answered(address: Address) -> None:
            heard = self.book.by_address(address)
            if heard is None or heard.roaming is None:
                return
            self.book.counts["echo-answers"] += 1
            for act in heard.roaming.answered(now=clock()):
                if act is Act.BACK:
                    self._tell_back(heard)

        try:
            if self._echoes is None:
                self._echoes = Echoes(self.interface.name, known.peer.address.version, answered)
                asyncio.get_running_loop().add_reader(self._echoes.fileno(), self._echoes.read)
            self._echoes.ask(known.peer.address)
            self.book.counts["echoes"] += 1
        except OSError as problem:  # the interface is away, and is made again
            self._events.count("wireguard-echo-failed")
            log.debug("echo: %s", problem)
            self._close_echoes()

    def _close_echoes(self) -> None:
        if self._echoes is not None:
            asyncio.get_running_loop().remove_reader(self._echoes.fileno())
            self._echoes.close()
            self._echoes = None


def _differs(before: Path, now: Path) -> bool:
    """True if packets leave with another source, link or gateway, or to another address."""
    return (before.to, before.link, before.source, before.gateway) != (
        now.to,
        now.link,
        now.source,
        now.gateway,
    )


def _age(known: Known) -> float:
    """Seconds since the latest handshake by the wall clock, as WireGuard counts it; infinite: there was none."""
    seen = known.seen
    return time.time() - seen.handshake if seen is not None and seen.handshake else float("inf")


def _shown(known: Known) -> dict[str, Any]:
    age = _age(known)
    seeking = known.roaming is not None and isinstance(known.roaming.state, Seeking)
    return {
        "peer": known.peer.public_key,
        "address": str(known.peer.address),
        "endpoint": None if known.endpoint is None else str(known.endpoint),
        "handshake_age": None if age == float("inf") else round(age),
        "received": 0 if known.seen is None else known.seen.received,
        "sent": 0 if known.seen is None else known.seen.sent,
        "answers": not seeking and age <= REJECT_AFTER,
    }
