"""Sender sequence numbers and the replay window of one association (RFC 8613), in the node's store.

Sender sequence numbers are reserved in the store ahead of use, in chunks (RFC 8613 Appendix B.1.1), so that none is
ever used twice, kill -9 or not. They belong to the key of an association, its ids and its peer. All contexts that had
that key in this run share one `StoredNumbers`: two that count in one row would use a nonce twice.
"""

import asyncio
from typing import TYPE_CHECKING, Any

from aiocoap import oscore

from locum.node.tables import HostTable

if TYPE_CHECKING:
    from locum.node.tables import HostStore

_CHUNK = 1024  # sender sequence numbers per reservation
_LOW = 256  # numbers left at which the next reservation is queued
_WINDOW = 64  # replay window; concurrent requests of one peer stay far below


class StoredNumbers:
    """The next sender sequence number and the replay window of one key, of which there must be one in a run."""

    def __init__(self, key: str, store: "HostStore", rows: dict[str, dict[str, Any]]) -> None:
        """`rows` are those of the table CONTROL_NUMBERS, as the node found them when it started."""
        self._key, self._store = key, store
        row = rows.get(key, {"reserved": 0, "index": 0, "seen": "0"})
        self.window = oscore.ReplayWindow(_WINDOW, self._save)
        self.window.initialize_from_persisted({"index": int(row["index"]), "bitfield": int(row["seen"], 16)})
        # Numbers below the last reservation may have been used by the run before.
        self.next: int = int(row["reserved"])
        self._reserved = self.committed = self.next  # `next` is below `committed` when it is used
        self._reserving: asyncio.Future[None] | None = None
        self._reserve()

    def _save(self) -> None:
        """Queue the row; a request waits until it is committed (`ProtectedSite`)."""
        window = self.window.persist()
        row = {"reserved": self._reserved, "index": window["index"], "seen": f"{window['bitfield']:x}"}
        self._store.put(HostTable.CONTROL_NUMBERS, self._key, row)

    def _reserve(self) -> "asyncio.Future[None]":
        """Queue a reservation; its numbers are used once it is committed."""
        reserved = self._reserved = self.next + _CHUNK
        self._save()
        commit = self._store.committed()
        assert commit is not None
        # Not the commit's own future: it is done one turn of the loop before its callbacks run. A request that comes
        # in between would find it done and no number reserved, and would never let the loop go on.
        reserving = self._reserving = commit.get_loop().create_future()
        commit.add_done_callback(lambda done: self._reservation_done(reserving, reserved, done.exception()))
        return reserving

    def _reservation_done(
        self, reserving: "asyncio.Future[None]", reserved: int, problem: BaseException | None
    ) -> None:
        self._reserving = None
        if problem is None:
            self.committed = max(self.committed, reserved)
            reserving.set_result(None)
        else:
            reserving.set_exception(problem)
            reserving.exception()  # seen: there may be no waiting caller

    async def ready(self) -> None:
        """Wait until there is a sequence number to send under; at once unless the disk is slow. Raises StoreError."""
        while self.next >= self.committed:
            await asyncio.shield(self._reserving or self._reserve())

    def keep_ahead(self) -> None:
        """Keep the reservation ahead of use. Raises RuntimeError without a wait for `ready`."""
        if self.next > self.committed:
            raise RuntimeError("a sequence number is to be used that is not reserved in the store")
        if self._reserving is None and self.committed - self.next < _LOW:
            self._reserve()
