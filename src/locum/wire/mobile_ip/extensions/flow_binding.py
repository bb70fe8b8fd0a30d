"""Several care-of addresses and flow rules, 154 (RFC 7629 section 4).

The RFC gives 154 the long format and calls it non-skippable, although its number lies among the skippable ones: so it is
read here, and a sub-type that is not known condemns the message.
"""

from dataclasses import dataclass
from enum import IntEnum

from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions.framing import Extension, Frame, long
from locum.wire.traffic_selector import TrafficSelector, decode_selector, selector_format

MULTIPATH = 154
MIN_BINDING = 1  # binding identifiers 0 and 255 are reserved (section 4.1)
MAX_BINDING = 254
MAX_BINDINGS = 8  # of one rule (section 4.2)

_MULTIPATH, _FLOW_BINDING = 1, 2
_NO_BINDING = 255  # what stands for the one binding of a rule that drops
_BULK, _OVERWRITE = 0x80, 0x40


class AccessTechnology(IntEnum):
    """Technology of the registered interface's link (RFC 5213 section 8.5)."""

    VIRTUAL = 1
    PPP = 2
    IEEE_802_3 = 3
    IEEE_802_11 = 4
    IEEE_802_16E = 5


_TECHNOLOGIES = {int(technology): technology for technology in AccessTechnology}


class FlowAction(IntEnum):
    """Action for packets that match a rule (section 4.2)."""

    DROP = 0
    FORWARD = 1


@dataclass(frozen=True, slots=True)
class Multipath(Extension):
    """The care-of address of this request is one of many, known as `binding` (section 4.1).

    At most one stands in a request, before the mobile-home authentication extension; none in a reply.
    """

    binding: int  # binding identifier, 1 to 254
    access_technology: AccessTechnology | int = AccessTechnology.VIRTUAL
    label: int = 1  # of the interface, 1 to 255
    bulk: bool = False  # B: every binding of the mobile node gets this request's lifetime
    overwrite: bool = False  # O: this binding replaces all others; never with `bulk`, never with lifetime 0

    def encode(self) -> bytes:
        """The whole extension."""
        flags = (_BULK if self.bulk else 0) | (_OVERWRITE if self.overwrite else 0)
        return long(MULTIPATH, _MULTIPATH, bytes((self.access_technology, self.label, self.binding, flags)))


@dataclass(frozen=True, slots=True)
class FlowBinding(Extension):
    """One flow rule (section 4.2): the packets that `selector` takes go to the first of `bindings` that is registered.

    A rule that drops has no bindings. There may be many in a message; all before its mobile-home authentication.
    """

    action: FlowAction
    bindings: tuple[int, ...]  # binding identifiers, 1 to 8 of them, best first
    selector: TrafficSelector

    def encode(self) -> bytes:
        """The whole extension."""
        if self.action is FlowAction.FORWARD and not 1 <= len(self.bindings) <= MAX_BINDINGS:
            raise ValueError(
                f"a flow rule forwards to 1 to {MAX_BINDINGS} bindings, not {len(self.bindings)}"
            )
        bindings = self.bindings if self.action is FlowAction.FORWARD else (_NO_BINDING,)
        head = bytes((self.action, len(bindings), *bindings, selector_format(self.selector)))
        return long(MULTIPATH, _FLOW_BINDING, head + self.selector.encode())


def decode_flow_binding(frame: Frame) -> Multipath | FlowBinding:
    """Type 154, both sub-types."""
    cursor = frame.cursor()
    if frame.subtype == _MULTIPATH:
        return _multipath(cursor)
    if frame.subtype == _FLOW_BINDING:
        return _flow_binding(cursor)
    raise WireError("extension", frame.start, "unknown-extension", number=frame.type)


def _multipath(cursor: Cursor) -> Multipath:
    technology = cursor.u8("if-att")
    label = cursor.u8("if-label")
    if not label:
        raise WireError("if-label", cursor.offset - 1, "range")
    binding = _binding(cursor)
    flags = cursor.u8("multipath.flags")
    cursor.done("multipath")
    bulk, overwrite = bool(flags & _BULK), bool(flags & _OVERWRITE)
    if bulk and overwrite:
        raise WireError("multipath.flags", cursor.offset - 1, "bulk-and-overwrite")
    return Multipath(binding, _TECHNOLOGIES.get(technology, technology), label, bulk, overwrite)


def _flow_binding(cursor: Cursor) -> FlowBinding:
    number = cursor.u8("action")
    if number not in (FlowAction.DROP, FlowAction.FORWARD):
        raise WireError("action", cursor.offset - 1, "range")
    action = FlowAction(number)
    count = cursor.u8("bid-count")
    if not 1 <= count <= (1 if action is FlowAction.DROP else MAX_BINDINGS):
        raise WireError("bid-count", cursor.offset - 1, "range")
    bindings: tuple[int, ...] = ()
    if action is FlowAction.DROP:
        cursor.take(1, "binding-id")  # its value is ignored
    else:
        bindings = tuple(_binding(cursor) for _ in range(count))
    return FlowBinding(action, bindings, decode_selector(cursor.u8("ts-format"), cursor))


def _binding(cursor: Cursor) -> int:
    binding = cursor.u8("binding-id")
    if not MIN_BINDING <= binding <= MAX_BINDING:
        raise WireError("binding-id", cursor.offset - 1, "range")
    return binding
