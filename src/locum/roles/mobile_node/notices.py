"""Answers 618 at the mobile node: an access node or stand-in says who is responsible for a home address (C6)."""

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Answer, Asked, Count, Emit
from locum.roles.mobile_node.release_after_return import Returning
from locum.wire.control import Answer632, Status, decode_618, encode_632
from locum.wire.errors import WireError


def notified(event: Asked, home_addresses: tuple[Addr, ...], returning: Returning) -> list[Action]:
    """The answer to a request of another node, and all that follows from it."""
    if event.path != "618":
        return _refused(event, "request-unknown", Status.MALFORMED)
    try:
        notice = decode_618(event.body)
    except WireError as error:
        return _refused(event, f"notice-{error.reason}", Status.MALFORMED)
    if notice.home_address not in home_addresses:
        return _refused(event, "notice-foreign", Status.NOT_AUTHORISED)
    if notice.home_address not in event.authorised:
        return _refused(event, "notice-not-authorised", Status.NOT_AUTHORISED)
    detail: dict[str, JSON] = {"responsible": notice.responsible, "node": str(notice.node)}
    return [
        Answer(event.exchange, encode_632(Answer632(Status.OK))),
        Emit("notified", "618", notice.home_address, None, detail),
        *returning.asked_by(notice.node, home_addresses),
    ]


def _refused(event: Asked, reason: str, status: Status) -> list[Action]:
    return [Count(reason), Answer(event.exchange, encode_632(Answer632(status)))]
