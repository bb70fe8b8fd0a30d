"""Orders of a device at its stand-in: their check, and their files in both directions (C2, A4, A5), as CBOR by control.cddl.

The messages have no number in the source text. An order itself travels in a 634, its state and result in a 632.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address

from locum.wire import cbor
from locum.wire.control.answer import Status, shortened
from locum.wire.errors import WireError

PATH = "order"  # of the CoAP resource
MAX_DATA = 1 << 20  # bytes of a file in one message
MAX_ORDER = MAX_DATA + (32 << 10)  # bytes of one message: settings have at most 16 KiB
MAX_NAME = 64  # characters of the name of an order, or of a kind
MAX_FILE = 100  # characters of the name of a file
MAX_FILES = 1024  # in a list
MAX_REFUSAL = 800  # characters: the names of all settings of a kind are in it
DIGEST = 32  # bytes of SHA-256
MAX_OTHERS = 15  # proxies of a device beside the one that is asked about
_APP_ITEMS = 4  # of the rule app
_POSITION = (1 << 63) - 1


class Operation(IntEnum):
    """Operation that the stand-in is asked for."""

    CHECK = 1  # could this order be run here?
    LIST = 2  # the files of an order
    READ = 3  # bytes of a file
    DIGEST = 4  # SHA-256 of a file
    WRITE = 5  # bytes of a file that the device sends
    COMMIT = 6  # the sent file is whole
    REMOVE = 7  # everything of an order
    STATE = 8  # the state that the proxy of a running order has kept


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One request. Parts that do not belong to its operation are empty."""

    operation: Operation
    home_address: IPv4Address | IPv6Address
    name: str
    app: tuple[object, ...] = ()  # check: the order as a 634 has it (rule app)
    others: tuple[tuple[object, ...], ...] = ()  # check: the proxies that would run beside it
    file: str = ""  # read, digest, write, commit
    offset: int = 0  # read, write
    size: int = 0  # read: at most so many bytes; commit: bytes of the whole file
    data: bytes = b""  # write
    digest: bytes = b""  # commit


@dataclass(frozen=True, slots=True)
class OrderAnswer:
    """The answer. Parts that do not belong to the request are empty."""

    status: Status
    reason: str = ""  # of a status that is not OK, for users; at most MAX_REFUSAL characters
    files: tuple[tuple[str, int], ...] = ()  # list: names and bytes
    data: bytes = b""  # read: bytes of the file; state: a map as CBOR
    size: int = 0  # read, digest: bytes of the whole file; write: bytes that are there now
    digest: bytes = b""  # digest


_WITH_FILE = (Operation.READ, Operation.DIGEST, Operation.WRITE, Operation.COMMIT)


def encode_order(value: OrderRequest) -> bytes:
    """The CBOR body of a request."""
    body: dict[int, object] = {0: int(value.operation), 1: value.home_address.packed, 2: value.name}
    if value.operation is Operation.CHECK:
        body[3] = list(value.app)
        if value.others:
            body[4] = [list(app) for app in value.others]
    if value.operation in _WITH_FILE:
        body[5] = value.file
    if value.operation in (Operation.READ, Operation.WRITE):
        body[6] = value.offset
    if value.operation in (Operation.READ, Operation.COMMIT):
        body[7] = value.size
    if value.operation is Operation.WRITE:
        body[8] = value.data
    if value.operation is Operation.COMMIT:
        body[9] = value.digest
    return cbor.encode(body)


def decode_order(data: bytes) -> OrderRequest:
    """The request in a body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_ORDER, field="order"), "order")
    operation = Operation(reader.integer(0, "operation", min(Operation), max(Operation)))
    checks, commits = operation is Operation.CHECK, operation is Operation.COMMIT
    reads, writes = operation is Operation.READ, operation is Operation.WRITE
    others = () if not checks or reader.absent(4) else tuple(map(_app, reader.array(4, "others", MAX_OTHERS)))
    found = OrderRequest(
        operation,
        reader.address(1, "home-address"),
        reader.text(2, "name", MAX_NAME),
        app=tuple(reader.array(3, "app", _APP_ITEMS)) if checks else (),
        others=others,
        file=reader.text(5, "file", MAX_FILE) if operation in _WITH_FILE else "",
        offset=reader.integer(6, "offset", 0, _POSITION) if reads or writes else 0,
        size=reader.integer(7, "size", 0, MAX_DATA if reads else _POSITION) if reads or commits else 0,
        data=reader.octets(8, "data", 0, MAX_DATA) if writes else b"",
        digest=reader.octets(9, "digest", DIGEST, DIGEST) if commits else b"",
    )
    reader.done()
    return found


def encode_order_answer(value: OrderAnswer) -> bytes:
    """The CBOR body of an answer."""
    body: dict[int, object] = {0: int(value.status)}
    if value.reason:
        body[1] = shortened(value.reason, MAX_REFUSAL)
    if value.files:
        body[2] = [list(file) for file in value.files]
    if value.data:
        body[3] = value.data
    if value.size:
        body[4] = value.size
    if value.digest:
        body[5] = value.digest
    return cbor.encode(body)


def decode_order_answer(data: bytes) -> OrderAnswer:
    """The answer in a body; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_ORDER, field="order-answer"), "order-answer")
    found = OrderAnswer(
        Status(reader.integer(0, "status", 0, max(Status))),
        reason="" if reader.absent(1) else reader.text(1, "reason", MAX_REFUSAL),
        files=() if reader.absent(2) else tuple(map(_file, reader.array(2, "files", MAX_FILES))),
        data=b"" if reader.absent(3) else reader.octets(3, "data", 1, MAX_DATA),
        size=0 if reader.absent(4) else reader.integer(4, "size", 0, _POSITION),
        digest=b"" if reader.absent(5) else reader.octets(5, "digest", DIGEST, DIGEST),
    )
    reader.done()
    return found


def _app(value: object) -> tuple[object, ...]:
    return tuple(cbor.array(value, "order.others", _APP_ITEMS))


def _file(value: object) -> tuple[str, int]:
    match cbor.array(value, "order-answer.file", 2):
        case [str(name), int(size)] if 0 < len(name) <= MAX_FILE and not isinstance(size, bool):
            return name, cbor.integer(size, "order-answer.file", 0, _POSITION)
    raise WireError("order-answer.file", 0, "not-a-file")
