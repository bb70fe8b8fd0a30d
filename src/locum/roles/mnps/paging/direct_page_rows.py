"""Rows of direct pages that have no outcome yet: a stand-in that is started again goes on with them."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Forget, Persist, Table
from locum.roles.paging.events import Firing
from locum.wire import cbor
from locum.wire.control.paging.cause import MAX_DETAIL, ApplicationEvent
from locum.wire.control.paging.entry import MAX_PATTERNS, Entry

TABLE: Table = "direct_page"
_MOST: Final = (MAX_PATTERNS + 1) * (MAX_DETAIL + 4096)  # bytes of a row's firing


def persist(home_address: Addr, firing: Firing) -> Persist:
    """The row of a firing that is to be paged for."""
    body: dict[int, object] = {
        0: firing.entry.to_map(),
        1: [event.to_cbor() for event in firing.events],
        2: firing.count,
        3: firing.late,
    }
    row: dict[str, JSON] = {"home_address": str(home_address), "firing": cbor.encode(body).hex()}
    return Persist(TABLE, _key(home_address, firing.entry.identifier), row)


def forget(home_address: Addr, entry: int) -> Forget:
    """Remove that row."""
    return Forget(TABLE, _key(home_address, entry))


def read(row: Mapping[str, JSON]) -> tuple[Addr, Firing]:
    """The home address and the firing in a row of our own; raises ValueError, KeyError, TypeError or WireError."""
    body = cbor.decode(bytes.fromhex(str(row["firing"])), limit=_MOST, field="row")
    reader = cbor.Reader(body, "row")
    entry = Entry.from_cbor(reader.value(0, "entry"), "row.entry")
    events = tuple(
        ApplicationEvent.from_cbor(event, "row.event") for event in reader.array(1, "events", MAX_PATTERNS)
    )
    if not events:
        raise ValueError("a firing has events")
    count, late = reader.integer(2, "count", 0, (1 << 63)), reader.boolean(3, "late")
    reader.done()
    return ip_address(str(row["home_address"])), Firing(entry, entry.actions, events, count, late)


def _key(home_address: Addr, entry: int) -> str:
    return f"{home_address}/{entry}"
