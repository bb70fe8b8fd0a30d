"""A connected UDP socket when it travels (A12): one value, and its CBOR by session.cddl (rule datagram-record)."""

from dataclasses import dataclass

from locum.sessions.datagram_flows import unfit
from locum.wire import cbor
from locum.wire.control import Flow
from locum.wire.errors import WireError

MAX_REPEATED = 1500  # bytes of a datagram that is repeated as a keep-alive
_NAME = "datagram-record"


@dataclass(frozen=True, slots=True)
class Repeated:
    """A keep-alive: the last datagram that the program sent, and how often the stand-in repeats it."""

    payload: bytes
    seconds: int
    discard_answers: bool = False  # datagrams that arrive within a second of a repetition are not kept


@dataclass(frozen=True, slots=True)
class DatagramRecord:
    """A connected UDP socket at the moment of its capture; the flow's local address is the home address."""

    flow: Flow
    ttl: int  # of sent packets: IPv4 time to live, IPv6 hop limit
    traffic_class: int  # IPv4 TOS, IPv6 traffic class
    repeated: Repeated | None = None

    def to_cbor(self) -> dict[int, object]:
        """The CDDL rule `datagram-record`."""
        body: dict[int, object] = {0: self.flow.to_cbor(), 1: self.ttl, 2: self.traffic_class}
        if (again := self.repeated) is not None:
            body[3] = [again.payload, again.seconds, again.discard_answers]
        return body

    @classmethod
    def from_cbor(cls, value: object) -> "DatagramRecord":
        """The record that a decoded CBOR map stands for; raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, _NAME)
        flow = Flow.from_cbor(reader.value(0, "flow"), f"{_NAME}.flow")
        if (reason := unfit(flow)) is not None:
            raise WireError(f"{_NAME}.flow.{reason}", 0, "range")
        record = cls(
            flow=flow,
            ttl=reader.integer(1, "ttl", 1, 255),
            traffic_class=reader.integer(2, "traffic-class", 0, 255),
            repeated=None if reader.absent(3) else _repeated(reader.array(3, "repeated", 3)),
        )
        reader.done()
        return record


def _repeated(items: list[object]) -> Repeated:
    field = f"{_NAME}.repeated"
    if len(items) != 3:
        raise WireError(field, 0, "truncated")
    payload, seconds, discard = items
    if not isinstance(payload, bytes) or len(payload) > MAX_REPEATED:
        raise WireError(f"{field}.payload", 0, "range")
    if not isinstance(discard, bool):
        raise WireError(f"{field}.discard", 0, "not-a-boolean")
    return Repeated(payload, cbor.integer(seconds, f"{field}.seconds", 1, 86400), discard)
