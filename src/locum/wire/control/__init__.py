"""The control messages between Locum's own nodes, gathered: 634, 632 and 618. They travel over CoAP with OSCORE.

control.cddl beside this file describes them, and paging/paging.cddl those of paging; the rule session-record in them belongs
to the sessions package. This module must not know how they are sent.
"""

from importlib.resources import files

from locum.wire.control.answer import (
    MAX_ANSWER,
    Answer632,
    FinalState,
    SessionStatus,
    Status,
    decode_632,
    encode_632,
)
from locum.wire.control.handed import MAX_HANDED, MAX_LABEL, Handed, is_label
from locum.wire.control.handshake import Handshake
from locum.wire.control.listener import MAX_LISTENERS, MAX_WAITING, MAX_WINDOW, Listener, Policy
from locum.wire.control.notice import MAX_NOTICE, Notice618, decode_618, encode_618
from locum.wire.control.takeover import (
    HANDOVER_BYTES,
    MAX_BODY,
    MAX_CHUNK,
    MAX_HOME_ADDRESSES,
    MAX_SESSIONS,
    MAX_SMALL_BODY,
    Abandon,
    Address,
    Cancel,
    Done,
    Fetch,
    Finish,
    Reclaim,
    Record,
    Request634,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_634,
    encode_634,
)
from locum.wire.flow import Flow

__all__ = [
    "HANDOVER_BYTES",
    "MAX_ANSWER",
    "MAX_BODY",
    "MAX_CHUNK",
    "MAX_HANDED",
    "MAX_HOME_ADDRESSES",
    "MAX_LABEL",
    "MAX_LISTENERS",
    "MAX_NOTICE",
    "MAX_SESSIONS",
    "MAX_SMALL_BODY",
    "MAX_WAITING",
    "MAX_WINDOW",
    "Abandon",
    "Address",
    "Answer632",
    "Cancel",
    "Done",
    "Fetch",
    "FinalState",
    "Finish",
    "Flow",
    "Handed",
    "Handshake",
    "Listener",
    "Notice618",
    "Policy",
    "Reclaim",
    "Record",
    "Request634",
    "SessionStatus",
    "Status",
    "TakeoverPrepare",
    "TakeoverTransfer",
    "cddl",
    "decode_618",
    "decode_632",
    "decode_634",
    "encode_618",
    "encode_632",
    "encode_634",
    "is_label",
]


def cddl() -> str:
    """The text of control.cddl and paging.cddl. They refer to session-record, which sessions/session.cddl defines."""
    folder = files("locum.wire.control")
    parts = (folder.joinpath("control.cddl"), folder.joinpath("paging", "paging.cddl"))
    return "\n".join(part.read_text(encoding="utf-8") for part in parts)
