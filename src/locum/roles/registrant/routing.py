"""Routing of a mobile node in every registration (RFC 7629; features R3, R8).

The binding identifier and the weight of its care-of address, by which rules and shares find it, and where its packets go
when it has none. It must not know rules, nor when a request is sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.registration import BindingIdentifier, Options, ReceivedAnswer
from locum.roles.actions import Action
from locum.roles.registrant.attachment import Attachment

_NOWHERE = IPv4Address(0)  # as a default care-of address: the one that was registered is taken back


@dataclass(frozen=True, slots=True)
class Routing:
    """Routing to register; None leaves a value out, or withdraws an earlier one."""

    binding: int | None = None  # identifier of the dynamic care-of address, no other registrant's
    weight: int = 1  # of the dynamic care-of address among equals
    default: IPv4Address | None = None  # default care-of address; 0.0.0.0 takes back whichever is registered

    def to_row(self) -> Mapping[str, JSON]:
        """The part of a row."""
        default = None if self.default is None else str(self.default)
        return {"binding": self.binding, "weight": self.weight, "default": default}

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "Routing":
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        binding, weight, default = row["binding"], row["weight"], row["default"]
        if not isinstance(binding, int | None) or not isinstance(weight, int):
            raise ValueError("binding and weight are whole numbers")
        return cls(binding, weight, None if default is None else IPv4Address(str(default)))


NO_ROUTING = Routing()


class OwnRouting:
    """Puts `wanted` into every request.

    The home agent keeps the default care-of address for good; therefore we store ours until we withdraw it. The rest ends
    with the registration.
    """

    def __init__(self, wanted: Routing) -> None:
        self.wanted = wanted
        self._there: Routing | None = NO_ROUTING  # the home agent's; None: a request was not answered
        self._left: IPv4Address | None = None  # the default care-of address that it may have of ours

    @property
    def holds(self) -> bool:
        """True if a registration in force has the wanted routing."""
        return self._there == self.wanted

    @property
    def binding(self) -> int | None:
        """The identifier of our care-of address."""
        return self.wanted.binding

    def fill(self, options: Options, attachment: Attachment, lifetime: int) -> Options:
        """None when all is cancelled. We have one care-of address: it replaces others (O, section 4.1)."""
        if not lifetime:
            return options
        wanted = self.wanted
        binding = None if wanted.binding is None else BindingIdentifier(wanted.binding, overwrite=True)
        default = _NOWHERE if wanted.default is None and self._left is not None else wanted.default
        if wanted.default not in (None, _NOWHERE):
            self._left = wanted.default
        if not self.holds:
            self._there = None
        return replace(options, binding=binding, weight=wanted.weight, default=default)

    def replied(self, reply: ReceivedAnswer, attachment: Attachment) -> Sequence[Action]:
        """The requested routing is in force, or nothing has changed."""
        if reply.accepted and reply.lifetime:
            self._there = self.wanted
            if self.wanted.default in (None, _NOWHERE):
                self._left = None
        return ()

    def to_row(self) -> JSON:
        """The part of a row, which is written before a request is sent."""
        return {
            "there": None if self._there is None else self._there.to_row(),
            "left": None if self._left is None else str(self._left),
        }

    def from_row(self, row: JSON) -> None:
        """From part of a row of our own; raises ValueError, KeyError or TypeError for anything else."""
        if not isinstance(row, Mapping):
            return
        there, left = row["there"], row["left"]
        self._there = Routing.from_row(there) if isinstance(there, Mapping) else None
        self._left = None if left is None else IPv4Address(str(left))
