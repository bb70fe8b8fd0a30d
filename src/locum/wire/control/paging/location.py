"""Messages 1212 and 1135: a device's location for the location server, and the query for it (P6), as CBOR by paging.cddl.

`status` has the answer to 1212.
"""

from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.control.paging.page_rules import DeviceState
from locum.wire.control.paging.provision import MAX_NODE_ID
from locum.wire.control.paging.rules import MAX_TIME, Address, home_addresses
from locum.wire.control.paging.status import MAX_LIFETIME, PagingStatus
from locum.wire.control.paging.way import Way
from locum.wire.errors import WireError

PATH = "1212"  # of the CoAP resource
QUERY_PATH = "1135"
MAX_URIS = 8
MAX_URI = 255  # characters of a SIP URI
MAX_LOCATION = 16 << 10  # bytes of an update
MAX_QUERY = 2048  # bytes
MAX_FOUND = 16  # entries of an answer
MAX_FOUND_BODY = MAX_FOUND * MAX_LOCATION


@dataclass(frozen=True, slots=True)
class Location1212:
    """Location of a device. `sent` orders the updates; a lifetime of 0 says that it is no longer there.

    An update without node identifier, URIs or way leaves those of the entry as they are.
    """

    home_addresses: tuple[Address, ...]
    lifetime: int  # seconds
    sent: int  # milliseconds since 1970
    node_id: str = ""  # a network access identifier, as in registrations
    uris: tuple[str, ...] = ()  # SIP URIs
    access_node: Address | None = None  # None: it has none, a co-located care-of address
    care_of: Address | None = None  # None: the device is at home, or without an address
    way: Way | None = None
    state: DeviceState = DeviceState.AWAKE

    def to_map(self) -> dict[int, object]:
        """The CDDL rule `location`."""
        body: dict[int, object] = {
            0: [home.packed for home in self.home_addresses],
            1: self.lifetime,
            2: self.sent,
        }
        if self.node_id:
            body[3] = self.node_id
        if self.uris:
            body[4] = list(self.uris)
        if self.access_node is not None:
            body[5] = self.access_node.packed
        if self.care_of is not None:
            body[6] = self.care_of.packed
        if self.way is not None:
            body[7] = self.way.to_cbor()
        if self.state is not DeviceState.AWAKE:
            body[8] = int(self.state)
        return body

    @classmethod
    def from_cbor(cls, value: object, field: str) -> "Location1212":
        """Raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, field)
        uris = tuple(
            cbor.text(uri, f"{field}.uri", MAX_URI) for uri in reader.optional_array(4, "uris", MAX_URIS)
        )
        if len(set(uris)) != len(uris):
            raise WireError(f"{field}.uris", 0, "repeated")
        location = cls(
            home_addresses(reader, 0),
            reader.integer(1, "lifetime", 0, MAX_LIFETIME),
            reader.integer(2, "sent", 0, MAX_TIME),
            "" if reader.absent(3) else reader.text(3, "node-id", MAX_NODE_ID),
            uris,
            None if reader.absent(5) else reader.address(5, "access-node"),
            None if reader.absent(6) else reader.address(6, "care-of"),
            None if reader.absent(7) else Way.from_cbor(reader.value(7, "way"), f"{field}.way"),
            DeviceState.AWAKE
            if reader.absent(8)
            else DeviceState(reader.integer(8, "state", min(DeviceState), max(DeviceState))),
        )
        reader.done()
        return location


@dataclass(frozen=True, slots=True)
class LocationQuery:
    """Query by home address, node identifier or SIP URI: exactly one of them."""

    home_address: Address | None = None
    node_id: str = ""
    uri: str = ""


@dataclass(frozen=True, slots=True)
class LocationAnswer:
    """The entries that were found; `lifetime` of each is what is left of it."""

    status: PagingStatus
    found: tuple[Location1212, ...] = ()


def encode_1212(value: Location1212) -> bytes:
    """The CBOR body of a 1212."""
    return cbor.encode(value.to_map())


def decode_1212(data: bytes) -> Location1212:
    """The location in a 1212's body; raises WireError."""
    return Location1212.from_cbor(cbor.decode(data, limit=MAX_LOCATION, field="1212"), "1212")


def encode_query(value: LocationQuery) -> bytes:
    """The CBOR body of a query."""
    if value.home_address is not None:
        return cbor.encode({0: value.home_address.packed})
    return cbor.encode({1: value.node_id} if value.node_id else {2: value.uri})


def decode_query(data: bytes) -> LocationQuery:
    """The query in a body, with exactly one key; raises WireError."""
    reader = cbor.Reader(cbor.decode(data, limit=MAX_QUERY, field="1135"), "1135")
    query = LocationQuery()
    if not reader.absent(0):
        query = LocationQuery(home_address=reader.address(0, "home-address"))
    elif not reader.absent(1):
        query = LocationQuery(node_id=reader.text(1, "node-id", MAX_NODE_ID))
    else:
        query = LocationQuery(uri=reader.text(2, "uri", MAX_URI))
    reader.done()
    return query


def encode_query_answer(value: LocationAnswer) -> bytes:
    """The CBOR body of the answer to a query."""
    body: dict[int, object] = {0: int(value.status)}
    if value.found:
        body[1] = [location.to_map() for location in value.found]
    return cbor.encode(body)


def decode_query_answer(data: bytes) -> LocationAnswer:
    """The answer in a body; raises WireError."""
    field = "1135-answer"
    reader = cbor.Reader(cbor.decode(data, limit=MAX_FOUND_BODY, field=field), field)
    status = PagingStatus(reader.integer(0, "status", 0, max(PagingStatus)))
    found = tuple(
        Location1212.from_cbor(item, f"{field}.location")
        for item in reader.optional_array(1, "found", MAX_FOUND)
    )
    reader.done()
    return LocationAnswer(status, found)
