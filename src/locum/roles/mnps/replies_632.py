"""632: a stand-in's answers, and their events. It must not know the reasons."""

from collections.abc import Callable, Mapping

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Answer, Emit
from locum.roles.mnps.handover import TakenOver
from locum.wire.control import Answer632, FinalState, SessionStatus, Status, encode_632


class Replies:
    """`access_node` serves the stand-in; a device learns of it from every OK."""

    def __init__(self, access_node: Addr) -> None:
        self._access_node = access_node
        self.events: Callable[[TakenOver], Mapping[str, object]] = lambda _taken: {}
        """Events that are stored for the device, as application state."""

    def answer(
        self,
        exchange: int,
        status: Status,
        handover: bytes | None = None,
        *,
        sessions: tuple[SessionStatus, ...] = (),
        reason: str = "",
        app: str = "",
    ) -> Answer:
        """A status, and one for each session where that is asked for; `reason` of a refusal is for users.

        `app`: the proxy that is refused.
        """
        access_node = self._access_node if status is Status.OK else None
        value = Answer632(status, handover, access_node, sessions, reason=reason, app=app)
        return Answer(exchange, encode_632(value))

    def measured(self, exchange: int, taken: TakenOver, sessions: tuple[SessionStatus, ...]) -> Answer:
        """Answer a reclaim, with the states and results of the proxies (1079)."""
        value = Answer632(
            Status.OK,
            taken.identifier,
            self._access_node,
            sessions,
            application={**taken.application, **self.events(taken)},
        )
        return Answer(exchange, encode_632(value))

    def wrong(self, exchange: int, taken: TakenOver) -> Answer:
        """The request does not fit the state of the handover."""
        return self.answer(exchange, Status.WRONG_STATE, taken.identifier)

    def data(self, exchange: int, handover: bytes, data: bytes, *, more: bool) -> Answer:
        """Answer with the fetched data."""
        return Answer(exchange, encode_632(Answer632(Status.OK, handover, data=data, more=more)))

    def final(self, exchange: int, taken: TakenOver, states: tuple[FinalState, ...]) -> Answer:
        """The last states."""
        return Answer(
            exchange,
            encode_632(Answer632(Status.OK, taken.identifier, final=states, application=taken.application)),
        )

    def sent(self, request: str, taken: TakenOver, peer: Addr | None) -> Emit:
        """The event of an answered request."""
        detail: dict[str, JSON] = {"request": request, "sessions": len(taken.held)}
        if peer is not None:
            detail["to"] = str(peer)
        return Emit("sent", "632", taken.home_addresses[0], None, detail)
