"""Options of a program's socket that travel in its record, so that the stand-in serves the connection as the program would.

A value and its CBOR by session.cddl. It must not know sockets.
"""

import re
from dataclasses import dataclass

from locum.wire import cbor
from locum.wire.errors import WireError

_TRAFFIC_CLASS, _HOP_LIMIT, _NO_DELAY, _CONGESTION, _USER_TIMEOUT = range(1, 6)
_NAME = re.compile(r"[a-z0-9_-]{1,15}")  # TCP_CA_NAME_MAX with its zero byte is 16
_LONGEST = 0x7FFFFFFF


@dataclass(frozen=True, slots=True)
class CarriedOptions:
    """Socket options that the program has set; every default is the kernel's own choice."""

    traffic_class: int = 0  # IP_TOS or IPV6_TCLASS, without the two bits of ECN
    hop_limit: int | None = None  # IP_TTL or IPV6_UNICAST_HOPS
    no_delay: bool = False  # TCP_NODELAY
    congestion: str | None = None  # TCP_CONGESTION, a name such as "cubic"
    user_timeout: int = 0  # TCP_USER_TIMEOUT, milliseconds

    def to_cbor(self) -> dict[int, object]:
        """The CDDL rule `socket-options`; options that the program has not set are left out."""
        body: dict[int, object] = {}
        if self.traffic_class:
            body[_TRAFFIC_CLASS] = self.traffic_class
        if self.hop_limit is not None:
            body[_HOP_LIMIT] = self.hop_limit
        if self.no_delay:
            body[_NO_DELAY] = True
        if self.congestion is not None:
            body[_CONGESTION] = self.congestion
        if self.user_timeout:
            body[_USER_TIMEOUT] = self.user_timeout
        return body

    @classmethod
    def from_cbor(cls, value: object, name: str) -> "CarriedOptions":
        """The options that a decoded CBOR map stands for; raises WireError for anything that does not fit."""
        reader = cbor.Reader(value, name)
        absent = reader.absent
        options = cls(
            traffic_class=0
            if absent(_TRAFFIC_CLASS)
            else reader.integer(_TRAFFIC_CLASS, "traffic-class", 0, 255),
            hop_limit=None if absent(_HOP_LIMIT) else reader.integer(_HOP_LIMIT, "hop-limit", 1, 255),
            no_delay=False if absent(_NO_DELAY) else reader.boolean(_NO_DELAY, "no-delay"),
            congestion=None
            if absent(_CONGESTION)
            else _congestion(reader.value(_CONGESTION, "congestion"), name),
            user_timeout=0
            if absent(_USER_TIMEOUT)
            else reader.integer(_USER_TIMEOUT, "user-timeout", 0, _LONGEST),
        )
        reader.done()
        return options


NO_OPTIONS = CarriedOptions()


def _congestion(value: object, name: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise WireError(f"{name}.congestion", 0, "range")
    return value
