"""Connections that the stand-in accepted, or a proxy opened, while the device slept come to its programs with it (C3, A11).

They are independent of the sessions that were away: their bytes are fetched and put into a program's queue beside those, and
only the end of the whole hand-over waits for them. Their flows are suspended from the reclaim on, for their peers may send
at any moment. One that cannot come is reset at the stand-in. This module must not know how a connection is made.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.action_values.forwarding import ClearFlow, FlowVerdict, ReleaseHeld
from locum.roles.action_values.handed import RestoreHanded
from locum.roles.action_values.listeners import ReplayAccepted, Replayed
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.actions import Action, Answered, Emit, Event, NoAnswer
from locum.roles.flow_rows import set_flows
from locum.roles.mobile_node.handover import StandInDialogue
from locum.roles.session_words import GIVEN_UP
from locum.wire.control import (
    Abandon,
    Fetch,
    FinalState,
    Flow,
    Handed,
    Handshake,
    SessionStatus,
    Status,
    decode_632,
)
from locum.wire.errors import WireError

TCP = 6
AT_ONCE = 1 << 20  # bytes of one fetch; a window without scaling is smaller
ATTEMPTS = 4  # of one request; each takes as long as CoAP tries

NOT_THERE = "the stand-in does not have it any more"


@dataclass(frozen=True, slots=True)
class Expected:
    """A connection that is to come; `data` are its first bytes, as far as they are here."""

    session: int
    flow: Flow
    opened: Handshake | Handed  # by its peer, or by a proxy
    final: FinalState | None = None
    data: bytes = b""

    @property
    def whole(self) -> bool:
        """All that the peer has sent is here."""
        return self.final is not None and len(self.data) >= self.final.received


@dataclass(frozen=True, slots=True)
class Arrived:
    """A connection that is in its program's queue; `session` was its number at the stand-in."""

    session: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A connection that could not come."""

    reason: str


class Receiving:
    """Receives the connections of one return: each is expected, has arrived, or has failed. Every method gives actions."""

    def __init__(
        self,
        dialogue: StandInDialogue,
        handover: bytes,
        home_addresses: Iterable[Addr],
        returned: Iterable[int] = (),
    ) -> None:
        """Connections of other addresses than these are not the stand-in's to accept. Those of the numbers `returned`
        came in an earlier run.
        """
        self._returned = frozenset(returned)
        self._home_addresses = frozenset(home_addresses)
        self._dialogue = dialogue
        self._handover = handover
        self._connections: dict[Flow, Expected | Arrived | Failed] = {}
        self._asked: dict[int, tuple[Fetch | Abandon, int]] = {}  # by request, with the attempt
        self._begun = False

    @property
    def flows(self) -> tuple[Flow, ...]:
        """Flows that are still to come."""
        return tuple(expected.flow for expected in self._expected())

    @property
    def arrived(self) -> dict[Flow, int]:
        """Those that have come, with the stand-in's numbers."""
        return {
            flow: expected.session
            for flow, expected in self._connections.items()
            if isinstance(expected, Arrived)
        }

    @property
    def failed(self) -> dict[Flow, str]:
        """Those that could not come, with the reason."""
        return {
            flow: expected.reason
            for flow, expected in self._connections.items()
            if isinstance(expected, Failed)
        }

    @property
    def busy(self) -> bool:
        """The hand-over has to wait."""
        return self._begun and (bool(self._asked) or any(True for _ in self._expected()))

    def _expected(self) -> Iterator[Expected]:
        return (connection for connection in self._connections.values() if isinstance(connection, Expected))

    def announced(self, sessions: Iterable[SessionStatus]) -> list[Action]:
        """Handle a reclaim's answer: no more connections are accepted from now on."""
        if self._begun:
            return []
        listed = {
            session.flow: Expected(session.session, session.flow, opened)
            for session in sessions
            if (opened := session.accepted or session.handed) is not None
            if session.status is Status.OK and self._is_ours(session.flow)
            if session.session not in self._returned
        }
        new = [flow for flow in listed if flow not in self._connections]
        gone = [flow for flow in self._connections if flow not in listed]
        self._connections = dict(listed)
        return [*set_flows(new, FlowVerdict.SUSPEND), *(released(gone) if gone else ())]

    def _is_ours(self, flow: Flow) -> bool:
        return (
            flow.protocol == TCP
            and flow.local in self._home_addresses
            and flow.peer not in self._home_addresses
        )

    def forget(self) -> list[Action]:
        """The hand-over goes on without them; their flows are this host's as any other."""
        flows = self.flows
        for flow in flows:
            del self._connections[flow]
        self._asked.clear()
        return released(flows) if flows else []

    def begin(self, finals: Mapping[int, FinalState]) -> list[Action]:
        """The last states, by session: the packets of these flows come to this host now."""
        if self._begun:
            return []
        self._begun = True
        actions: list[Action] = []
        for expected in list(self._expected()):
            final = finals.get(expected.session)
            if final is None or final.error:
                actions += self._fail(expected, NOT_THERE if final is None else GIVEN_UP)
                continue
            data = final.tail if final.tail_offset == 0 else b""
            actions += self._advance(replace(expected, final=final, data=data))
        return actions

    def _advance(self, expected: Expected) -> list[Action]:
        """Fetch missing data, or give the connection to its program."""
        assert expected.final is not None
        self._connections[expected.flow] = expected
        if expected.whole:
            return [_put(expected, expected.final)]
        start = len(expected.data)
        return self._ask(
            Fetch(self._handover, expected.session, start, min(expected.final.received - start, AT_ONCE))
        )

    def _ask(self, value: Fetch | Abandon, attempt: int = 1) -> list[Action]:
        asked = self._dialogue.ask(value, bulk=isinstance(value, Fetch))
        self._asked[self._dialogue.last] = value, attempt
        return list(asked)

    def happened(self, event: Event) -> list[Action] | None:
        """Handle an answer, or the result of a replay; None for other events."""
        match event:
            case Answered(request, body) if request in self._asked:
                value, attempt = self._asked.pop(request)
                return self._answered(value, body, attempt)
            case NoAnswer(request, reason) if request in self._asked:
                value, attempt = self._asked.pop(request)
                return self._again(value, attempt, reason)
            case Replayed(flow, error):
                return self._replayed(flow, error)
            case NotPerformed(ReplayAccepted(flow) | RestoreHanded(flow), reason):
                return self._replayed(flow, reason)
        return None

    def _answered(self, value: Fetch | Abandon, body: bytes, attempt: int) -> list[Action]:
        try:
            answer = decode_632(body)
        except WireError as error:
            return self._again(value, attempt, str(error))
        if isinstance(value, Abandon):
            return []
        connection = self._numbered(value.session)
        if connection is None:
            return []
        if answer.status is Status.BUSY:
            return self._again(value, attempt, "it is busy")
        if answer.status is not Status.OK or not answer.data:
            return self._fail(connection, NOT_THERE)
        return self._advance(replace(connection, data=connection.data + answer.data))

    def _again(self, value: Fetch | Abandon, attempt: int, reason: str) -> list[Action]:
        if attempt < ATTEMPTS:
            return self._ask(value, attempt + 1)
        connection = self._numbered(value.session) if isinstance(value, Fetch) else None
        return [] if connection is None else self._fail(connection, f"the stand-in did not answer: {reason}")

    def _numbered(self, session: int) -> Expected | None:
        return next((expected for expected in self._expected() if expected.session == session), None)

    def _replayed(self, flow: Flow, error: str | None) -> list[Action] | None:
        connection = self._connections.get(flow)
        if not isinstance(connection, Expected):
            return None
        if error is not None:
            return self._fail(connection, error)
        self._connections[flow] = Arrived(connection.session)
        label = connection.opened.label if isinstance(connection.opened, Handed) else None
        detail: dict[str, JSON] = {} if label is None else {"label": label}
        return [*released((flow,)), Emit("session-arrived", "632", flow.local, flow, detail)]

    def _fail(self, expected: Expected, reason: str) -> list[Action]:
        """Let the stand-in reset the peer, before packets of the flow meet this host without a connection."""
        self._connections[expected.flow] = Failed(reason)
        return [
            *self._ask(Abandon(self._handover, (expected.session,))),
            *released((expected.flow,)),
            Emit("session-lost", None, expected.flow.local, expected.flow, {"reason": reason}),
        ]


def _put(expected: Expected, final: FinalState) -> Action:
    """Give a whole connection to a program."""
    if isinstance(expected.opened, Handed):
        return RestoreHanded(expected.flow, expected.opened, final, expected.data)
    return ReplayAccepted(expected.flow, expected.opened, expected.data, final.peer_closed)


def released(flows: Iterable[Flow]) -> list[Action]:
    """These flows are this host's again: held packets are delivered in order.

    DELIVER before the entry goes: newcomers wait until the queue is empty. One that overtook it would be acknowledged
    with its younger timestamp, and the older packets would be dropped for theirs (RFC 7323 section 5, PAWS).
    """
    listed = tuple(flows)
    addresses = dict.fromkeys(flow.local for flow in listed)
    return [
        *set_flows(listed, FlowVerdict.DELIVER),
        *(ClearFlow(flow) for flow in listed),
        *(ReleaseHeld(address) for address in addresses),
    ]
