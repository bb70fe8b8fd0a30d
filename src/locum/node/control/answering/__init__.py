"""Answers on a node's control socket: a file for each object, found by the request's name.

A request is answered by a function of (node, arguments) that gives JSON, at once or later; times in it are
wall-clock seconds (`SteadyClock.for_people`). The file is imported when it is asked for. This one must not know what any
request means.
"""

from collections.abc import Mapping
from importlib import import_module
from inspect import isawaitable
from typing import TYPE_CHECKING, Any

from locum.node.control.server import RequestFailed

if TYPE_CHECKING:
    from locum.node.control.view import NodeView

REQUESTS = {
    "status": "status:status",
    "counters": "status:counters",
    "node check": "status:check",
    "shutdown": "status:shutdown",
    "binding list": "bindings:bindings",
    "bindings": "bindings:bindings",
    "binding revoke": "revocations:revoke",
    "binding forget-identification": "revocations:forget_identification",
    "visitors": "bindings:visitors",
    "flow list": "flows:flow_list",
    "flow add": "flows:flow_add",
    "flow remove": "flows:flow_remove",
    "filter list": "filters:filter_list",
    "translation list": "translations:translations",
    "group list": "translations:groups",
    "accept": "accepting:accept",
    "app list": "apps:app_list",
    "app kinds": "apps:app_kinds",
    "app show": "apps:app_show",
    "app log": "apps:app_log",
    "order add": "orders:add",
    "order begin": "orders:begin",
    "order list": "orders:order_list",
    "order show": "orders:show",
    "order cancel": "orders:cancel",
    "order files": "orders:files",
    "order read": "orders:read",
    "order digest": "orders:digest",
    "order write": "orders:write",
    "order commit": "orders:commit",
    "order collected": "orders:collected",
    "context list": "contexts:context_list",
    "explain": "explain:explain",
    "page": "pages:page",
    "page list": "pages:page_list",
    "event list": "paging.events:event_list",
    "event tables": "paging.events:event_tables",
    "event show": "paging.events:event_show",
    "event clear": "paging.events:event_clear",
    "location list": "paging.locations:location_list",
    "location show": "paging.locations:location_show",
    "wake-on add": "paging.wishes:add",
    "wake-on list": "paging.wishes:wish_list",
    "wake-on remove": "paging.wishes:remove",
    "peer list": "peers:peer_list",
    "trigger": "triggers:trigger",
    "tunnel list": "tunnels:tunnels",
    "tunnels": "tunnels:tunnels",
    "session list": "sessions:sessions",
    "sessions": "sessions:sessions",
    "session drop": "sessions:drop",
    "profile list": "profiles:profile_list",
    "profile refresh": "profiles:profile_refresh",
    "sleep": "sessions:sleep",
    "sleep dry-run": "sessions:would_sleep",
    "wake": "sessions:wake",
    "move": "sessions:move",
    "give": "sessions:give",
    "take": "sessions:take",
}
"""Request -> module of this package and the function in it."""


class Answers:
    """The handler of one node's control socket."""

    def __init__(self, node: "NodeView") -> None:
        self._node = node

    async def answer(self, request: str, arguments: Mapping[str, Any]) -> Any:
        """The result of a request. Raises RequestFailed."""
        place = REQUESTS.get(request)
        if place is None:
            raise RequestFailed(f"there is no request {request!r}")
        module, name = place.split(":")
        result = getattr(import_module(f"locum.node.control.answering.{module}"), name)(self._node, arguments)
        return await result if isawaitable(result) else result
