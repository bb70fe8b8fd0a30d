"""Orders of devices at their stand-in, asked about while the device is awake: their check, and their files (C2, A4, A5).

An order runs as a proxy of a handover (`attending.py`). This module must not know how files are kept.
"""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.app_orders import OrderError
from locum.roles.action_values.apps import AppDataUsed, UseAppData
from locum.roles.action_values.sessions import NotPerformed
from locum.roles.actions import Action, Answer, Asked, Count, Emit, Event
from locum.roles.mnps.attending import Attending
from locum.roles.mnps.handovers import Holdings
from locum.roles.mnps.parts import WaitingPart
from locum.wire.control.answer import Status
from locum.wire.control.order import (
    PATH,
    Operation,
    OrderAnswer,
    OrderRequest,
    decode_order,
    encode_order_answer,
)
from locum.wire.errors import WireError

RUNS = "the order runs at the moment; wake the device first"
_TOLD = {Operation.COMMIT: "order-received", Operation.REMOVE: "order-removed"}


class Ordering(WaitingPart):
    """Answers the requests of authorised devices; `attending` checks orders."""

    def __init__(
        self, holdings: Holdings, attending: Attending, home_prefixes: Iterable[IPv4Network | IPv6Network]
    ) -> None:
        self._holdings, self._attending, self._home_prefixes = holdings, attending, tuple(home_prefixes)

    def happened(self, event: Event, *, now: float) -> list[Action] | None:
        """A request, or that its files were used."""
        match event:
            case Asked(path=path) if path == PATH:
                return self._asked(event)
            case AppDataUsed():
                return self._used(event)
            case NotPerformed(action=UseAppData() as action):
                return [_answer(action.exchange, Status.BUSY, event.reason)]
        return None

    def _asked(self, event: Asked) -> list[Action]:
        try:
            request = decode_order(event.body)
        except WireError as error:
            return [Count(f"order-{error.reason}"), _answer(event.exchange, Status.MALFORMED)]
        home = request.home_address
        if home not in event.authorised or not any(home in prefix for prefix in self._home_prefixes):
            return [Count("order-not-authorised"), _answer(event.exchange, Status.NOT_AUTHORISED)]
        if request.operation is Operation.CHECK:
            return [self._check(request, event.exchange)]
        if request.operation is Operation.REMOVE and self._runs(request):
            return [_answer(event.exchange, Status.BUSY, RUNS)]
        return [UseAppData(event.exchange, request)]

    def _check(self, request: OrderRequest, exchange: int) -> Action:
        try:
            self._attending.fits(list(request.app), map(list, request.others))
        except OrderError as problem:
            return _answer(exchange, Status.REFUSED, str(problem))
        return _answer(exchange, Status.OK)

    def _runs(self, request: OrderRequest) -> bool:
        return any(
            taken.attended and request.name in {order.name for order in taken.apps}
            for taken in self._holdings.of((request.home_address,))
        )

    @staticmethod
    def _used(event: AppDataUsed) -> list[Action]:
        request, answer = event.request, event.answer
        answered = Answer(event.exchange, encode_order_answer(answer))
        kind = _TOLD.get(request.operation)
        if kind is None or answer.status is not Status.OK:
            return [answered]
        detail: dict[str, JSON] = {"order": request.name}
        if request.operation is Operation.COMMIT:
            detail |= {"file": request.file, "bytes": request.size}
        return [answered, Emit(kind, PATH, request.home_address, None, detail)]


def _answer(exchange: int, status: Status, reason: str = "") -> Answer:
    return Answer(exchange, encode_order_answer(OrderAnswer(status, reason)))
