"""Number of session records in one transfer. It must not know their content."""

from collections.abc import Sequence

from locum.roles.action_values.app_orders import MAX_APPLICATION
from locum.roles.action_values.sessions import SessionRecordItem
from locum.wire import cbor
from locum.wire.control import MAX_BODY, Flow

TOO_LARGE = f"what it has not sent yet does not fit into one transfer of {MAX_BODY >> 20} MiB with the others"
# Bytes for all of the message that is not a record: identifiers of other handovers, and states of proxies
_ENVELOPE = (16 << 10) + MAX_APPLICATION


def fitting(
    records: Sequence[SessionRecordItem],
) -> tuple[tuple[SessionRecordItem, ...], tuple[Flow, ...]]:
    """Records that fit into one transfer, in their order, and the flows of the others, the largest."""
    sizes = [len(cbor.encode(dict(record.record))) for record in records]
    total, left = sum(sizes) + _ENVELOPE, set()
    for place in sorted(range(len(records)), key=sizes.__getitem__, reverse=True):
        if total <= MAX_BODY:
            break
        total -= sizes[place]
        left.add(place)
    kept = tuple(record for place, record in enumerate(records) if place not in left)
    return kept, tuple(record.flow for place, record in enumerate(records) if place in left)
