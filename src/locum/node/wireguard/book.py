"""The peers that this node shall have, and what was seen of each. No input or output: arguments for `wg set` go out."""

from collections import Counter
from dataclasses import dataclass, field, replace

from locum.node.config.wireguard.values import Address, Endpoint, Peer
from locum.node.wireguard.endpoints import Candidates
from locum.node.wireguard.path import Path
from locum.node.wireguard.roaming import Roaming
from locum.node.wireguard.tool import InterfaceState, PeerState, Secret, WireGuardError

Arguments = list[str | Secret]


@dataclass(slots=True)
class Known:
    """One peer. `candidates` and `roaming` are there if this end calls it."""

    peer: Peer
    candidates: Candidates | None = None
    roaming: Roaming | None = None
    path: Path | None = None  # the way that was last used
    seen: PeerState | None = None
    endpoint: Endpoint | None = None  # where it was last heard


@dataclass(frozen=True, slots=True)
class EndpointMoved:
    """A peer was heard from elsewhere."""

    known: Known
    before: Endpoint
    now: Endpoint


@dataclass(slots=True)
class PeerBook:
    """All peers by public key."""

    own: Address
    known: dict[str, Known] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def check(self, peer: Peer, beside: str = "") -> None:
        """Raises WireGuardError: its address has another owner than it, or than the peer `beside`."""
        holder = self.by_address(peer.address)
        if peer.address == self.own or (
            holder is not None and holder.peer.public_key not in (peer.public_key, beside)
        ):
            owner = "this node" if holder is None else f"the peer {holder.peer.public_key}"
            raise WireGuardError(
                f"address {peer.address} belongs to {owner}; give another to {peer.public_key}"
            )

    def add(self, peer: Peer, stored: Endpoint | None) -> Known:
        """Take it in, or its new settings. Raises WireGuardError."""
        self.check(peer)
        before = self.known.get(peer.public_key)
        if before is not None and before.peer.endpoint == peer.endpoint:
            before.peer = peer
            return before
        known = Known(peer, endpoint=stored)
        if peer.endpoint is not None:
            known.candidates = Candidates(peer.endpoint, stored.address if stored is not None else None)
            known.roaming = Roaming()
        self.known[peer.public_key] = known
        return known

    def remove(self, public_key: str) -> Known | None:
        """Forget it; None: it was not there."""
        known = self.known.pop(public_key, None)
        if known is not None and known.candidates is not None:
            known.candidates.close()
        return known

    def by_address(self, address: Address) -> Known | None:
        """The peer with this transport address, or None."""
        return next((known for known in self.known.values() if known.peer.address == address), None)

    def strangers(self, state: InterfaceState) -> list[str]:
        """Keys of peers of the interface that are not in the book."""
        return [peer.public_key for peer in state.peers if peer.public_key not in self.known]

    def observe(self, state: InterfaceState) -> list[EndpointMoved]:
        """Take in what the interface shows now."""
        moves = []
        for known in tuple(self.known.values()):
            now, before = state.peer(known.peer.public_key), known.seen
            if now is None:
                continue
            self.counts["received-bytes"] += _grown(now.received, before.received if before else 0)
            self.counts["sent-bytes"] += _grown(now.sent, before.sent if before else 0)
            self.counts["handshakes"] += bool(
                now.handshake and (not before or before.handshake != now.handshake)
            )
            known.seen = now
            if now.endpoint is not None and now.endpoint != known.endpoint:
                if known.endpoint is not None and now.handshake:
                    moves.append(EndpointMoved(known, known.endpoint, now.endpoint))
                known.endpoint = now.endpoint
        return moves


def _grown(now: int, before: int) -> int:
    """Bytes since the last look; a peer that was set anew counts from 0."""
    return now - before if now >= before else now


def settings_of(peer: Peer, at: Endpoint | None, *, allowed: bool = True) -> Arguments:
    """All of a peer. `allowed` is false for one that may send nothing yet."""
    words: Arguments = ["peer", peer.public_key]
    if peer.preshared_key is not None:
        words += ["preshared-key", Secret(peer.preshared_key)]
    if at is not None:
        words += ["endpoint", str(at)]
    length = peer.address.max_prefixlen
    words += ["allowed-ips", f"{peer.address}/{length}" if allowed else ""]
    return [*words, "persistent-keepalive", str(peer.keepalive)]


def anew(peer: Peer, at: Endpoint | None) -> Arguments:
    """Its session ends, and its first packet begins a handshake at once."""
    calm = replace(peer, keepalive=0)
    return ["peer", peer.public_key, "remove", *settings_of(calm, at), *keepalive(peer)]


def keepalive(peer: Peer, at: Endpoint | None = None) -> Arguments:
    """A keepalive leaves now: WireGuard sends one when its interval is set where there was none."""
    words: Arguments = ["peer", peer.public_key]
    if at is not None:
        words += ["endpoint", str(at)]
    again = ["peer", peer.public_key, "persistent-keepalive", str(peer.keepalive)]
    if peer.keepalive:
        return [*words, "persistent-keepalive", "0", *again]
    return [*words, "persistent-keepalive", "1", *again]
