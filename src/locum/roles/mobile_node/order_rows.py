"""An order as the device knows it, the removal of its files, states of proxies, and their rows in the store. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.app_orders import read_order
from locum.roles.action_values.apps import AppOrder
from locum.roles.app_contract import MAX_STATE
from locum.wire import cbor

ORDER, STATE, REMOVAL = "order", "state", "removal"
"""The first part of a row's key says which of these it is."""
_LONGEST = 4 * MAX_STATE  # bytes of a state in a row


class Condition(Enum):
    """How an order stands."""

    WAITING = "waiting"  # it runs when the device sleeps
    RUNNING = "running"  # at the stand-in
    DONE = "done"
    FAILED = "failed"
    COLLECTED = "collected"  # done, and its files are here


@dataclass(frozen=True, slots=True)
class Order:
    """One order. `state` is what its proxy returned last, `stand_ins` may have files of it, the last one first.

    `at` is when the condition changed, in steady seconds; `reason` is of one that has failed, in part if it is done.
    """

    app: AppOrder
    condition: Condition
    at: float
    state: Mapping[str, object] = field(default_factory=dict)
    reason: str = ""
    stand_ins: tuple[Addr, ...] = ()

    @property
    def name(self) -> str:
        """Of the proxy."""
        return self.app.name


@dataclass(frozen=True, slots=True)
class Removal:
    """Files of a cancelled or collected order that a stand-in may still have; since steady seconds."""

    name: str
    stand_in: Addr
    since: float

    @property
    def key(self) -> str:
        """Of its row."""
        return f"{REMOVAL} {self.stand_in} {self.name}"


def order_row(order: Order) -> tuple[str, Mapping[str, JSON]]:
    """Key and value."""
    return f"{ORDER} {order.name}", {
        "app": order.app.to_json(),
        "condition": order.condition.value,
        "at": order.at,
        "state": cbor.encode(dict(order.state)).hex(),
        "reason": order.reason,
        "stand_ins": [str(stand_in) for stand_in in order.stand_ins],
    }


def order_from_row(name: str, row: Mapping[str, JSON]) -> Order:
    """The order in a row of our own; raises ValueError, KeyError or TypeError for anything else."""
    stand_ins, app = row["stand_ins"], read_order(row["app"])
    if app.name != name or not isinstance(stand_ins, list):
        raise ValueError("an order has its name and stand-ins")
    return Order(
        app,
        Condition(row["condition"]),
        _seconds(row["at"]),
        state_from_row(row),
        str(row["reason"]),
        tuple(ip_address(str(item)) for item in stand_ins),
    )


def state_row(name: str, state: Mapping[str, object]) -> tuple[str, Mapping[str, JSON]]:
    """Key and value of the state of a proxy of the configuration."""
    return f"{STATE} {name}", {"state": cbor.encode(dict(state)).hex()}


def state_from_row(row: Mapping[str, JSON]) -> Mapping[str, object]:
    """The state in a row; raises ValueError, KeyError or TypeError."""
    state = cbor.decode(bytes.fromhex(str(row["state"])), limit=_LONGEST, field="row")
    if not isinstance(state, dict):
        raise ValueError("a state is a map")
    return state


def removal_row(removal: Removal) -> tuple[str, Mapping[str, JSON]]:
    """Key and value."""
    return removal.key, {"name": removal.name, "stand_in": str(removal.stand_in), "since": removal.since}


def removal_from_row(row: Mapping[str, JSON]) -> Removal:
    """The removal in a row; raises ValueError or KeyError."""
    return Removal(str(row["name"]), ip_address(str(row["stand_in"])), _seconds(row["since"]))


def _seconds(value: JSON) -> float:
    if not isinstance(value, int | float):
        raise ValueError("a time is a number of seconds")
    return float(value)
