"""One handover as the stand-in knows it: whose it is, which sessions it has, how far it has come, and its row.

Values only; taking_over.py and giving_back.py move them along.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from typing import Literal

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.app_orders import MAX_APPLICATION
from locum.roles.action_values.apps import CONSUME, EMISSION, WHEN, AppOrder, Consume, When
from locum.roles.action_values.emission import permits
from locum.roles.action_values.sessions import SessionFinal
from locum.roles.actions import Forget, Persist
from locum.roles.flow_rows import TABLE, flow_from_row, flow_to_row
from locum.roles.state_table import StateTable
from locum.wire import cbor
from locum.wire.control import Flow, Handshake, Listener, Policy, SessionStatus, Status
from locum.wire.takes import Takes


@dataclass(frozen=True, slots=True)
class Prepared:
    """Packets of the flows are held; without a transfer it is forgotten at `forget_at`."""

    forget_at: float


@dataclass(frozen=True, slots=True)
class Restoring:
    """The node makes the sessions live here; these exchanges wait for it."""

    exchanges: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Holding:
    """The sessions live here."""


@dataclass(frozen=True, slots=True)
class Releasing:
    """The home agent is being asked to switch; these exchanges wait for it until `give_up_at`."""

    exchanges: tuple[int, ...]
    give_up_at: float


@dataclass(frozen=True, slots=True)
class Stopping:
    """The node stops the sockets; these exchanges wait for it."""

    exchanges: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stopped:
    """The sockets are stopped; they can be resumed until the device confirms that all is back.

    `finals` are None after a restart: they are read again when they are asked for.
    """

    finals: tuple[SessionFinal, ...] | None
    forget_at: float


TakeoverState = Prepared | Restoring | Holding | Releasing | Stopping | Stopped

Event = Literal[
    "prepare",
    "transfer",
    "restored",
    "release",
    "not released",
    "stop",
    "stopped",
    "ask",
    "resume",
    "restart",
    "end",
]
STATES: StateTable[Event] = StateTable(
    "A handover at the stand-in",
    "Sessions that a device has handed over, or is about to. A row of an earlier run begins in the state that it names.",
    {
        None: {"prepare": Prepared},
        Prepared: {"prepare": Prepared, "transfer": Restoring, "end": None},
        Restoring: {"transfer": Restoring, "restored": Holding, "restart": Prepared, "end": None},
        Holding: {"release": Releasing, "stop": Stopping, "end": None},
        # Of a stand-in that registers itself: packets are turned away before the sockets stop.
        Releasing: {"release": Releasing, "not released": Holding, "stop": Stopping, "end": None},
        Stopping: {
            "stop": Stopping,
            "stopped": Stopped,
            "resume": Holding,
            "restart": Holding,
            "end": None,
        },
        Stopped: {"ask": Stopped, "stop": Stopping, "resume": Holding, "restart": Stopped, "end": None},
    },
)


@dataclass(frozen=True, slots=True)
class HeldFlow:
    """A session of the handover by its number."""

    session: int
    flow: Flow
    status: Status = Status.OK
    reason: str = ""  # why it is not held, for users
    accepted: Handshake | None = None  # it was accepted here for a port that the device listens on
    announced: bool = False  # of a newcomer: the device has been told, and takes it with the others
    label: str | None = None  # a proxy handed it over, for the program that waits under this label

    @property
    def kind(self) -> str:
        """The way in which it came here, for users."""
        return "handed" if self.label is not None else "held" if self.accepted is None else "accepted"

    @property
    def newcomer(self) -> bool:
        """It was opened here: the device learns of it when it comes back."""
        return self.accepted is not None or self.label is not None


@dataclass(frozen=True, slots=True)
class TakenOver:
    """`flows` are those that were prepared, `sessions` those that were transferred; accepted ones are in both.

    With `switch` it is the stand-in that tells the home agent, and takes so much (R4); `access_node` is the device's.
    """

    identifier: bytes
    home_addresses: tuple[Addr, ...]
    flows: tuple[Flow, ...]
    state: TakeoverState
    sessions: tuple[HeldFlow, ...] = ()
    switch: Takes | None = None
    access_node: Addr | None = None
    application: Mapping[str, object] = field(default_factory=dict)  # as it came, until a proxy changes it
    listeners: tuple[Listener, ...] = ()  # ports of the device, and what new connections meet meanwhile
    apps: tuple[AppOrder, ...] = ()  # proxies that the device ordered
    attended: bool = False  # they run, or are to
    spoken: Mapping[int, bytes] = field(
        default_factory=dict
    )  # by the proxies, by session, once they have ended
    surplus: Mapping[int, int] = field(default_factory=dict)  # of received bytes for the program, likewise

    def at(self, event: Event, state: TakeoverState) -> "TakenOver":
        """Return it in the state that follows this event."""
        return replace(self, state=STATES.change(self.state, event, state))

    @property
    def held(self) -> tuple[HeldFlow, ...]:
        """The sessions that live here."""
        return tuple(session for session in self.sessions if session.status is Status.OK)

    def holds(self, number: int) -> bool:
        """True if this session lives here."""
        listed = self.sessions
        if number < len(listed) and listed[number].session == number:
            return listed[number].status is Status.OK
        return any(
            session.session == number and session.status is Status.OK for session in listed
        )  # accepted here

    @property
    def unannounced(self) -> tuple[HeldFlow, ...]:
        """Opened here, and the device does not know of them."""
        return tuple(session for session in self.held if session.newcomer and not session.announced)

    @property
    def wants_packets(self) -> bool:
        """True if the home agent is to send its packets here."""
        return isinstance(self.state, Prepared | Restoring | Holding)

    def statuses(self) -> tuple[SessionStatus, ...]:
        """For the answer to a transfer."""
        return tuple(_status(session) for session in self.sessions)

    def not_held(self) -> tuple[SessionStatus, ...]:
        """Of the sessions that do not live here (any more), with the reasons."""
        return tuple(_status(session) for session in self.sessions if session.status is not Status.OK)

    def without(self, numbers: Collection[int], reason: str) -> "TakenOver":
        """These sessions do not live here any more."""
        gone = {session.flow for session in self.held if session.session in numbers}
        state = self.state
        if isinstance(state, Stopped) and state.finals is not None:
            state = replace(state, finals=tuple(final for final in state.finals if final.flow not in gone))
        return replace(
            self,
            state=state,
            flows=tuple(flow for flow in self.flows if flow not in gone),
            sessions=tuple(
                replace(session, status=Status.REFUSED, reason=reason) if session.flow in gone else session
                for session in self.sessions
            ),
        )

    def persist(self) -> Persist:
        """The row."""
        forget_at = self.state.forget_at if isinstance(self.state, Prepared | Stopped) else None
        value: dict[str, JSON] = {
            "state": type(self.state).__name__.lower(),
            "forget_at": forget_at,
            "switch": None if self.switch is None else int(self.switch),
            "access_node": None if self.access_node is None else str(self.access_node),
            "home_addresses": [str(home_address) for home_address in self.home_addresses],
            "flows": [flow_to_row(flow) for flow in self.flows],
            "application": cbor.encode(dict(self.application)).hex() if self.application else None,
            "sessions": [_held_flow_to_row(session) for session in self.sessions],
            "listeners": [_listener_to_row(listener) for listener in self.listeners],
            "apps": [order.to_json() for order in self.apps],
            "attended": self.attended,
            "spoken": {str(number): data.hex() for number, data in self.spoken.items()},
            "surplus": {str(number): count for number, count in self.surplus.items()},
        }
        return Persist(TABLE, self.identifier.hex(), value)

    def forget(self) -> Forget:
        """Its removal."""
        return Forget(TABLE, self.identifier.hex())

    @classmethod
    def from_row(cls, key: str, row: Mapping[str, JSON]) -> "TakenOver":
        """The handover in a row of our own; raises ValueError, KeyError or TypeError for anything else.

        An interrupted step of the node begins anew: a restore is undone (its packets are still held),
        and so is a stop, which is repeated when it is asked for again.
        """
        addresses, flows, sessions, forget_at = (
            row["home_addresses"],
            row["flows"],
            row["sessions"],
            row["forget_at"],
        )
        switch, access_node = row["switch"], row["access_node"]
        if not (
            isinstance(addresses, list | tuple)
            and isinstance(flows, list | tuple)
            and isinstance(sessions, list | tuple)
        ):
            raise ValueError("a handover needs home_addresses, flows and sessions")
        states: dict[JSON, TakeoverState] = {
            "prepared": Prepared(float(forget_at) if isinstance(forget_at, int | float) else 0.0),
            "restoring": Restoring(()),
            "holding": Holding(),
            "releasing": Holding(),
            "stopping": Stopping(()),
            "stopped": Stopped(None, float(forget_at) if isinstance(forget_at, int | float) else 0.0),
        }
        return cls(
            identifier=bytes.fromhex(key),
            home_addresses=tuple(ip_address(str(address)) for address in addresses),
            flows=tuple(flow_from_row(flow) for flow in flows),
            state=states[row["state"]],
            sessions=tuple(_held_flow(session) for session in sessions),
            switch=None if switch is None else Takes(int(str(switch))),
            access_node=None if access_node is None else ip_address(str(access_node)),
            application=_application(row.get("application")),
            listeners=_listeners(row.get("listeners")),
            apps=_apps(row.get("apps")),
            attended=bool(row.get("attended")),
            spoken=_spoken(row.get("spoken")),
            surplus=_surplus(row.get("surplus")),
        )


def _application(row: JSON) -> Mapping[str, object]:
    value = {} if row is None else cbor.decode(bytes.fromhex(str(row)), limit=MAX_APPLICATION, field="row")
    if not isinstance(value, dict):
        raise ValueError("application state is a map")
    return value


def _apps(row: JSON) -> tuple[AppOrder, ...]:
    if row is None:
        return ()
    if not isinstance(row, list | tuple):
        raise ValueError("apps are a list")
    return tuple(_app(item) for item in row)


def _app(row: JSON) -> AppOrder:
    if not isinstance(row, list | tuple) or len(row) not in (3, 4) or not isinstance(row[2], Mapping):
        raise ValueError("an app has name, kind and settings")
    limits = row[3] if len(row) == 4 else {}
    if not isinstance(limits, Mapping):
        raise ValueError("the limits of an app are a map")
    consume = Consume(str(limits.get(CONSUME, Consume.REPLAY)))
    emission = permits(limits[EMISSION]) if EMISSION in limits else None
    when = When(str(limits.get(WHEN, When.ASLEEP)))
    return AppOrder(str(row[0]), str(row[1]), row[2], consume, emission, when)


def _spoken(row: JSON) -> Mapping[int, bytes]:
    if row is None:
        return {}
    if not isinstance(row, Mapping):
        raise ValueError("spoken bytes are listed by session")
    return {int(number): bytes.fromhex(str(data)) for number, data in row.items()}


def _surplus(row: JSON) -> Mapping[int, int]:
    if row is None:
        return {}
    if not isinstance(row, Mapping):
        raise ValueError("the surplus of received bytes is listed by session")
    return {int(number): int(str(count)) for number, count in row.items()}


def _status(held: HeldFlow) -> SessionStatus:
    return SessionStatus(held.session, held.flow, held.status, reason=held.reason, accepted=held.accepted)


def _listener_to_row(listener: Listener) -> JSON:
    window = listener.window
    return [str(listener.address), listener.port, int(listener.policy), listener.most, window]


def _listeners(row: JSON) -> tuple[Listener, ...]:
    if row is None:
        return ()
    if not isinstance(row, list | tuple):
        raise ValueError("listeners are a list")
    return tuple(_listener(item) for item in row)


def _listener(row: JSON) -> Listener:
    if not isinstance(row, list | tuple) or len(row) != 5:
        raise ValueError("a listener has five parts")
    port, policy, most, window = (int(str(field)) for field in row[1:])
    return Listener(ip_address(str(row[0])), port, Policy(policy), most, window)


def _held_flow_to_row(held: HeldFlow) -> dict[str, JSON]:
    row: dict[str, JSON] = {
        "session": held.session,
        "flow": flow_to_row(held.flow),
        "status": int(held.status),
    }
    if held.accepted is not None:
        row["accepted"] = _handshake_to_row(held.accepted)
        row["announced"] = held.announced
    if held.label is not None:
        row |= {"label": held.label, "announced": held.announced}
    return row | {"reason": held.reason} if held.reason else row


def _handshake_to_row(handshake: Handshake) -> JSON:
    return [handshake.local_isn, handshake.peer_isn, handshake.mss, int(handshake.sack), handshake.window]


def _handshake(row: JSON) -> Handshake | None:
    if row is None:
        return None
    if not isinstance(row, list | tuple) or len(row) != 5:
        raise ValueError("a handshake has five parts")
    local_isn, peer_isn, mss, sack, window = (int(str(item)) for item in row)
    return Handshake(local_isn, peer_isn, mss, bool(sack), window)


def _held_flow(row: Mapping[str, JSON]) -> HeldFlow:
    session, status = row["session"], row["status"]
    if not isinstance(session, int) or not isinstance(status, int):
        raise ValueError("session and status are whole numbers")
    reason, accepted = str(row.get("reason", "")), _handshake(row.get("accepted"))
    flow, announced = flow_from_row(row["flow"]), bool(row.get("announced"))
    label = None if row.get("label") is None else str(row["label"])
    return HeldFlow(session, flow, Status(status), reason, accepted, announced, label)
