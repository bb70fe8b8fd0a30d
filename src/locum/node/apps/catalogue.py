"""The kinds of application proxies on this host, by the entry-point group `locum.apps` (A1).

A kind that cannot be loaded is listed with its reason, and refused; it harms no other.
"""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points

from locum.roles.action_values.apps import AppOrder, When
from locum.roles.app_contract import GROUP, App, Port, SettingError
from locum.roles.app_network import TCP, UDP
from locum.wire.control import Flow

log = logging.getLogger("locum.apps")
_PROTOCOLS = {TCP: "TCP", UDP: "UDP"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of proxy. `problem` is why it cannot run here."""

    name: str
    origin: str
    app: type[App] | None = None
    problem: str = ""


class Catalogue:
    """All kinds; read once, when the node starts."""

    def __init__(self) -> None:
        self._kinds: dict[str, Kind] = {}
        for point in entry_points(group=GROUP):
            try:
                self._kinds[point.name] = Kind(point.name, point.value, point.load())
            except Exception as problem:  # code of others
                log.warning("the proxy %s cannot be loaded: %r", point.name, problem)
                self._kinds[point.name] = Kind(point.name, point.value, problem=_words(problem))

    def kinds(self) -> list[Kind]:
        """By name."""
        return sorted(self._kinds.values(), key=lambda kind: kind.name)

    def check(self, order: AppOrder, others: Iterable[AppOrder] = ()) -> str | None:
        """Why this order cannot be run beside the others, naming the device's table and key; None if it can."""
        place = f"[[mobile_node.app]] {order.name}"
        kind = self._kinds.get(order.kind)
        if kind is None:
            known = ", ".join(sorted(self._kinds)) or "none"
            return (
                f"{place}: kind: {order.kind!r} is not known to the stand-in, which has {known}; "
                "it knows packages that were installed before it started"
            )
        if kind.app is None:
            return f"{place}: kind: {order.kind} cannot be loaded at the stand-in: {kind.problem}"
        try:
            kind.app.settings(order.settings)
        except SettingError as problem:
            return f"{place}: settings.{problem}"
        except Exception as problem:  # code of others
            return f"{place}: settings: {problem!r}"
        if order.when is not When.ASLEEP and not hasattr(kind.app, "happened"):
            return f"{place}: when: proxies of kind {order.kind} only attend sessions of a sleeping device"
        if order.when is not When.ASLEEP and self._only_asleep(kind.app, order):
            return (
                f"{place}: when: a proxy of kind {order.kind} with these settings works only while the device sleeps; "
                'choose "asleep"'
            )
        taken = {port: other for other in others for port in self.ports(other).values()}
        for key, port in self.ports(order).items():
            if (other := taken.get(port)) is not None:
                name = f"{_PROTOCOLS.get(port[0], port[0])} port {port[1]}"
                return f"{place}: settings.{key}: {name} is the port of {other.name} ({other.kind}) already; choose another"
        return None

    @staticmethod
    def _only_asleep(app: type[App], order: AppOrder) -> bool:
        only = getattr(app, "only_asleep", None)
        try:
            return only is not None and bool(only(app.settings(order.settings)))
        except Exception as problem:  # code of others
            log.warning("the proxy %s cannot tell when it works: %r", order.name, problem)
            return False

    def ports(self, order: AppOrder) -> Mapping[str, Port]:
        """Ports at which a proxy of this order listens, by key, as far as its kind says so."""
        kind = self._kinds.get(order.kind)
        ports = None if kind is None else getattr(kind.app, "ports", None)
        if ports is None or kind is None or kind.app is None:
            return {}
        try:
            return dict(ports(kind.app.settings(order.settings)))
        except Exception as problem:  # code of others
            log.warning("the proxy %s cannot tell its ports: %r", order.name, problem)
            return {}

    def has_network(self, order: AppOrder) -> bool:
        """True if the proxy of this order has connections or files of its own (`app_contract.NetworkApp`)."""
        kind = self._kinds.get(order.kind)
        if kind is None or (app := kind.app) is None or not hasattr(app, "happened"):
            return False
        needs = getattr(app, "needs_network", None)
        try:
            return needs is None or bool(needs(app.settings(order.settings)))
        except Exception as problem:  # code of others
            log.warning("the proxy %s cannot tell whether it needs a network: %r", order.name, problem)
            return False

    def takes_uploads(self, kind: str) -> bool:
        """True if a proxy of this kind is told of files that the device sends while it runs."""
        found = self._kinds.get(kind)
        return found is not None and bool(getattr(found.app, "takes_uploads", False))

    def reads_all(self, kind: str) -> bool:
        """True if a proxy of this kind reads its sessions to their ends."""
        found = self._kinds.get(kind)
        return found is not None and bool(getattr(found.app, "reads_all", False))

    def tells(self, kind: str) -> bool:
        """True if a proxy of this kind can tell a correspondent a text (`App.tell`)."""
        found = self._kinds.get(kind)
        return found is not None and hasattr(found.app, "tell")

    def choice(self, order: AppOrder) -> Callable[[Flow], bool]:
        """True for the sessions that a proxy of this order attends: none, if its settings cannot be read."""
        kind = self._kinds.get(order.kind)
        if kind is None or (app := kind.app) is None:
            return lambda _flow: False
        try:
            settings = app.settings(order.settings)
        except Exception as problem:  # code of others
            log.warning("the settings of the proxy %s cannot be read: %r", order.name, problem)
            return lambda _flow: False

        def wants(flow: Flow) -> bool:
            try:
                return app.wants(settings, flow)
            except Exception as problem:  # code of others
                log.warning("the proxy %s cannot tell whether it wants %s: %r", order.name, flow, problem)
                return False

        return wants


@cache
def catalogue() -> Catalogue:
    """The one of this process."""
    return Catalogue()


def _words(problem: Exception) -> str:
    if isinstance(problem, ModuleNotFoundError):
        return f"no Python module {problem.name}: install its package there, and start the stand-in again"
    return repr(problem)
