"""A stand-in that takes and releases because others ask it to (C8, C11): access nodes, home agents, correspondents' agents.

A triggered takeover has no captured sessions: services of this host answer for the home address, and live connections of
the device are let alone (the guard). A device that is reported lost is asked first: a device that has moved is not lost.
The answer is given when the home agent has switched. It must not know who sends triggers, nor how packets are guarded.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from itertools import count
from typing import Final

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.flows import Selector
from locum.roles.actions import (
    Action,
    Answer,
    Answered,
    Ask,
    Asked,
    Count,
    Emit,
    Event,
    Forget,
    NoAnswer,
    Persist,
)
from locum.roles.mnps.parts import WaitingPart
from locum.roles.mnps.registration import MAX_FLOWS, Standing, StandInRegistration
from locum.roles.parts import readable
from locum.wire.control import Notice618, encode_618
from locum.wire.control.answer import Status
from locum.wire.control.trigger import PATH, Operation, Reason, Trigger, decode_trigger, encode_trigger_answer
from locum.wire.cursor import Cursor
from locum.wire.errors import WireError
from locum.wire.takes import Takes
from locum.wire.traffic_selector import UnknownSelector, decode_selector, selector_format

TABLE: Final = "triggered"
ASKING_DEVICE = 0.5  # seconds for a lost device to say that it is not
PATIENCE = 6.0  # seconds for the home agent to switch; the sender waits a little longer
FIRST_REQUEST = 1 << 33  # of the numbers of requests to devices


@dataclass(frozen=True, slots=True)
class Triggered:
    """Packets taken for a device by triggers: all, or those of these selectors."""

    home_addresses: tuple[Addr, ...]  # the IPv4 one first
    selectors: tuple[Selector, ...]  # none: everything
    reason: Reason
    by: Addr
    access_node: Addr | None = None  # the device's, if the trigger named it
    released: bool = False  # the home agent is being told; until it has answered the guard stays

    @property
    def takes(self) -> Takes:
        """Takes as in the registration."""
        return Takes.RULED if self.selectors else Takes.ALL

    def persist(self) -> Persist:
        """The row; one that is being released is still taken after a restart, and will be released again."""
        value: dict[str, JSON] = {
            "home_addresses": [str(home_address) for home_address in self.home_addresses],
            "selectors": [
                [selector_format(selector), selector.encode().hex()] for selector in self.selectors
            ],
            "reason": int(self.reason),
            "by": str(self.by),
            "access_node": None if self.access_node is None else str(self.access_node),
        }
        return Persist(TABLE, str(self.home_addresses[0]), value)

    @classmethod
    def from_row(cls, row: Mapping[str, JSON]) -> "Triggered":
        """Read a row of our own; raises ValueError, KeyError or TypeError for malformed rows."""
        homes, selectors, reason = row["home_addresses"], row["selectors"], row["reason"]
        if not isinstance(homes, list | tuple) or not isinstance(selectors, list | tuple) or not homes:
            raise ValueError("a trigger needs home_addresses and selectors")
        if not isinstance(reason, int):
            raise ValueError("reason is a number")
        return cls(
            home_addresses=tuple(ip_address(str(home)) for home in homes),
            selectors=tuple(_selector(selector) for selector in selectors),
            reason=Reason(reason),
            by=ip_address(str(row["by"])),
            access_node=None if (at := row.get("access_node")) is None else ip_address(str(at)),
        )


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Exchanges that are answered when the home agent has switched for this device."""

    exchanges: tuple[int, ...]
    give_up_at: float  # steady seconds


@dataclass(frozen=True, slots=True)
class _Doubted:
    """A device that was reported lost, while it is asked."""

    trigger: Trigger
    event: Asked


class Triggering(WaitingPart):
    """The triggers of one stand-in. `want(home_addresses, now)` makes the registration follow, `guard()` the data plane."""

    def __init__(
        self,
        address: IPv4Address,
        registration: StandInRegistration | None,
        want: Callable[[Iterable[Addr], float], list[Action]],
        guard: Callable[[], list[Action]],
    ) -> None:
        self._address = address
        self._registration = registration
        self._want, self._guard = want, guard
        self._taken: dict[Addr, Triggered] = {}
        self._waiting: dict[Addr, _Waiting] = {}
        self._doubted: dict[int, _Doubted] = {}
        self._numbers = count(FIRST_REQUEST)

    # Targets ---------------------------------------------------------------------------------------------------------

    def wanted(self, home_addresses: Iterable[Addr]) -> tuple[Takes | None, tuple[Selector, ...]]:
        """Packets of one of these addresses that triggers ask for; None: none."""
        found = self._find(home_addresses)
        return (None, ()) if found is None or found.released else (found.takes, found.selectors)

    def device_at(self, home_addresses: Iterable[Addr]) -> Addr | None:
        """The device's access node, if a trigger named it: held packets and the context follow (C4, C5)."""
        found = self._find(home_addresses)
        return None if found is None or found.released else found.access_node

    def guarded(self) -> list[Addr]:
        """Home addresses of which packets come here; in-flight ones of those that are being released among them."""
        return [home_address for taken in self._taken.values() for home_address in taken.home_addresses]

    def taken(self) -> Collection[Triggered]:
        """Taken addresses, for users."""
        return self._taken.values()

    def restore(self, rows: Sequence[Persist], *, now: float) -> list[Action]:
        """Continue with the taken addresses."""
        found, actions = readable(rows, TABLE, lambda row: Triggered.from_row(row.value))
        for _row, taken in found:
            self._taken[taken.home_addresses[0]] = taken
        actions += self._guard()
        for taken in self._taken.values():
            actions += self._want(taken.home_addresses, now)
        return actions

    # Triggers --------------------------------------------------------------------------------------------------------

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """Handle triggers, and answers of devices reported lost; None for other events."""
        if isinstance(event, Asked):
            return self.asked(event, now=now) if event.path == PATH else None
        return self._answered(event, now) if isinstance(event, Answered | NoAnswer) else None

    def asked(self, event: Asked, *, now: float) -> list[Action]:
        """A trigger came; every refusal leaves everything as it was."""
        try:
            trigger = decode_trigger(event.body)
        except WireError as error:
            return [Count(f"trigger-{error.reason}"), _answer(event.exchange, Status.MALFORMED)]
        refusal = self._refusal(trigger, event)
        if refusal is not None:
            return [
                Count(f"trigger-{refusal.name.lower().replace('_', '-')}"),
                _answer(event.exchange, refusal),
            ]
        if trigger.operation is Operation.RELEASE:
            return self._release(trigger, event, now)
        known = self._find(trigger.home_addresses)
        if known is None and trigger.reason in (Reason.LOST, Reason.EXPIRED) and self._sleeps(trigger):
            return [_answer(event.exchange, Status.OK)]
        if trigger.reason is Reason.LOST and (known is None or known.released):
            return self._doubt(trigger, event)
        return self._take(trigger, event, now)

    def _refusal(self, trigger: Trigger, event: Asked) -> Status | None:
        """Reason of a refusal; None if it is permitted. A device may trigger for itself."""
        homes = set(trigger.home_addresses)
        itself = event.peer in homes
        if not homes <= set(event.authorised) or not (event.may_trigger or itself):
            return Status.NOT_AUTHORISED
        if any(isinstance(selector, UnknownSelector) for selector in trigger.selectors):
            return Status.MALFORMED
        standing = self._standing(trigger.home_addresses)
        if standing is None:
            # Without a registration of its own it can stand in only where the default care-of address leads here.
            return None if trigger.reason is Reason.EXPIRED or not self._takes(trigger) else Status.REFUSED
        device = {standing.device.home_address, standing.device.home_address_v6}
        if not homes <= device:
            return Status.MALFORMED  # of one device at a time
        known = self._find(trigger.home_addresses)
        if not self._takes(trigger) and trigger.selectors and known is not None and not known.selectors:
            return Status.REFUSED  # everything less something is no selector
        return None

    def _sleeps(self, trigger: Trigger) -> bool:
        """True if the device has handed everything over: it is out of reach on purpose, and will end that."""
        standing = self._standing(trigger.home_addresses)
        return standing is not None and standing.takes is Takes.ALL

    @staticmethod
    def _takes(trigger: Trigger) -> bool:
        return trigger.operation is Operation.TAKE

    def _take(self, trigger: Trigger, event: Asked, now: float) -> list[Action]:
        homes = self._homes(trigger)
        known = self._find(homes)
        live = known is not None and not known.released
        selectors = _known(trigger.selectors)
        if known is not None and live:
            everything = not known.selectors or not selectors
            selectors = () if everything else tuple(dict.fromkeys((*known.selectors, *selectors)))
        if len(selectors) > MAX_FLOWS:
            return [Count("trigger-limit"), _answer(event.exchange, Status.LIMIT)]
        if known is not None and live and known.selectors == selectors:
            return self._wait(homes[0], event.exchange, now)
        access_node = trigger.access_node or (known.access_node if known is not None and live else None)
        taken = Triggered(homes, selectors, trigger.reason, event.peer, access_node)
        self._taken[homes[0]] = taken
        return [
            taken.persist(),
            *self._guard(),
            *self._want(homes, now),
            self._told("take", taken, event.peer),
            *self._wait(homes[0], event.exchange, now),
        ]

    def _release(self, trigger: Trigger, event: Asked, now: float) -> list[Action]:
        known = self._find(trigger.home_addresses)
        self._doubted = {
            number: doubted
            for number, doubted in self._doubted.items()
            if not set(doubted.trigger.home_addresses) & set(trigger.home_addresses)
        }
        if known is None or (
            trigger.reason is Reason.BACK and known.reason not in (Reason.LOST, Reason.EXPIRED)
        ):
            return [_answer(event.exchange, Status.OK)]  # a returned device ends takeovers of its absence
        home_address = known.home_addresses[0]
        gone = set(_known(trigger.selectors))
        left = tuple(selector for selector in known.selectors if gone and selector not in gone)
        if known.released or (gone and left == known.selectors):
            return self._wait(home_address, event.exchange, now)
        after = replace(known, selectors=left) if left else replace(known, released=True)
        self._taken[home_address] = after
        row = [] if after.released else [after.persist()]
        return [
            *row,
            *self._want(known.home_addresses, now),
            self._told("release", replace(after, reason=trigger.reason), event.peer),
            *self._wait(home_address, event.exchange, now),
        ]

    def _homes(self, trigger: Trigger) -> tuple[Addr, ...]:
        """Of the whole device: its care-of address is one for both families."""
        standing = self._standing(trigger.home_addresses)
        if standing is None:
            return tuple(sorted(trigger.home_addresses, key=lambda address: address.version))
        device = standing.device
        return (device.home_address, *([device.home_address_v6] if device.home_address_v6 else []))

    # Is it lost? -----------------------------------------------------------------------------------------------------

    def _doubt(self, trigger: Trigger, event: Asked) -> list[Action]:
        """Ask the device, by the path of its stand-in's packets (618: it is still responsible)."""
        number = next(self._numbers)
        self._doubted[number] = _Doubted(trigger, event)
        home_address = trigger.home_addresses[0]
        body = encode_618(Notice618(home_address, True, self._address))
        return [Ask(number, home_address, "618", body, ASKING_DEVICE)]

    def _answered(self, event: Answered | NoAnswer, now: float) -> list[Action] | None:
        """The reaction to a lost device's answer; None for an answer to another part."""
        if event.request < FIRST_REQUEST:
            return None
        doubted = self._doubted.pop(event.request, None)
        if doubted is None:
            return []
        if isinstance(event, NoAnswer):
            return self._take(doubted.trigger, doubted.event, now)
        detail: dict[str, JSON] = {"from": str(doubted.event.peer)}
        return [
            Count("trigger-not-lost"),
            Emit("not-lost", PATH, doubted.trigger.home_addresses[0], None, detail),
            _answer(doubted.event.exchange, Status.WRONG_STATE),
        ]

    # Answers ---------------------------------------------------------------------------------------------------------

    def _wait(self, home_address: Addr, exchange: int, now: float) -> list[Action]:
        waiting = self._waiting.get(home_address, _Waiting((), now + PATIENCE))
        self._waiting[home_address] = _Waiting((*waiting.exchanges, exchange), waiting.give_up_at)
        return []

    def follow(self, *, now: float) -> list[Action]:
        """Answer triggers whose target is in force, or was refused."""
        actions: list[Action] = []
        for home_address, taken in tuple(self._taken.items()):
            standing = self._standing(taken.home_addresses)
            if standing is None or standing.holds:
                actions += self._settled(home_address, taken)
            elif standing.refused is not None and home_address in self._waiting and not taken.released:
                actions += self._refused(home_address, taken, standing.refused, now)
        return actions

    def timeout(self, *, now: float) -> list[Action]:
        """The home agent is silent. The target stays; a repeated trigger waits again."""
        actions: list[Action] = []
        for home_address, waiting in tuple(self._waiting.items()):
            if waiting.give_up_at <= now:
                actions += self._answer_all(home_address, Status.BUSY)
        return actions

    def deadline(self) -> float | None:
        """Steady seconds."""
        return min((waiting.give_up_at for waiting in self._waiting.values()), default=None)

    def _settled(self, home_address: Addr, taken: Triggered) -> list[Action]:
        actions = self._answer_all(home_address, Status.OK)
        if not taken.released:
            return actions
        # The home agent's answer came behind everything that it had sent here before.
        del self._taken[home_address]
        return [Forget(TABLE, str(home_address)), *self._guard(), *actions]

    def _refused(self, home_address: Addr, taken: Triggered, code: int, now: float) -> list[Action]:
        self._taken[home_address] = replace(taken, released=True)
        detail: dict[str, JSON] = {"reason": f"refused with {code}"}
        return [
            Count("trigger-not-registered"),
            Emit("switch-failed", "601''", home_address, None, detail),
            *self._want(taken.home_addresses, now),
            *self._answer_all(home_address, Status.REFUSED),
        ]

    def _answer_all(self, home_address: Addr, status: Status) -> list[Action]:
        waiting = self._waiting.pop(home_address, None)
        return [] if waiting is None else [_answer(exchange, status) for exchange in waiting.exchanges]

    def _told(self, operation: str, taken: Triggered, peer: Addr) -> Emit:
        detail: dict[str, JSON] = {
            "operation": operation,
            "from": str(peer),
            "reason": taken.reason.name.lower(),
            "selectors": len(taken.selectors),
        }
        return Emit("triggered", PATH, taken.home_addresses[0], None, detail)

    def _find(self, home_addresses: Iterable[Addr]) -> Triggered | None:
        wanted = set(home_addresses)
        return next((taken for taken in self._taken.values() if wanted & set(taken.home_addresses)), None)

    def _standing(self, home_addresses: Iterable[Addr]) -> Standing | None:
        return None if self._registration is None else self._registration.standing(home_addresses)


def _answer(exchange: int, status: Status) -> Answer:
    return Answer(exchange, encode_trigger_answer(status))


def _known(selectors: Iterable[object]) -> tuple[Selector, ...]:
    return tuple(selector for selector in selectors if isinstance(selector, Selector))


def _selector(row: JSON) -> Selector:
    """The selector in a row; raises ValueError, TypeError or WireError."""
    if not isinstance(row, list | tuple) or len(row) != 2 or not isinstance(row[0], int):
        raise ValueError("a selector has a format and its bytes")
    found = decode_selector(row[0], Cursor(bytes.fromhex(str(row[1]))))
    if isinstance(found, UnknownSelector):
        raise ValueError(f"selectors of format {row[0]} are not known")
    return found
