"""Proxies that a device orders, as a 634 carries them, read into values (control.cddl, rule app)."""

from collections.abc import Iterable, Mapping
from typing import Any

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.apps import CONSUME, EMISSION, WHEN, AppOrder, Consume, When
from locum.roles.action_values.emission import Permit, permits
from locum.wire import cbor

APPS = "apps"
"""Key of the proxies in a 634's configuration and application state, and in a 632's."""
MAX_APPS = 16
MAX_NAME = 64
MAX_SETTINGS = 16 << 10  # bytes of one proxy's, as CBOR
MAX_APPLICATION = (1 << 20) + (64 << 10)
"""Bytes of application state in one handover: room for the states of MAX_APPS proxies."""


class OrderError(ValueError):
    """The configuration of a 634 that names no proxies that could be run; the message is for users.

    `app` is the name of the proxy that is to blame; empty if none is, or none can be told.
    """

    def __init__(self, message: str, app: str = "") -> None:
        super().__init__(message)
        self.app = app


def orders(configuration: Mapping[str, object]) -> tuple[AppOrder, ...]:
    """The proxies in a 634's configuration (control.cddl, rule app). Raises OrderError."""
    if unknown := sorted(set(configuration) - {APPS}):
        raise OrderError(f"configuration: {unknown[0]} is not known")
    listed = configuration.get(APPS, [])
    if not isinstance(listed, list) or len(listed) > MAX_APPS:
        raise OrderError(f"apps: a list of at most {MAX_APPS} is expected")
    found = tuple(read_order(item) for item in listed)
    names = [order.name for order in found]
    if len(set(names)) != len(names):
        raise OrderError("apps: two have the same name")
    return found


def read_order(item: object) -> AppOrder:
    """One proxy of such a list. Raises OrderError."""
    if not isinstance(item, list) or len(item) not in (3, 4):
        raise OrderError("app: name, kind and settings are expected")
    name, kind, settings = item[:3]
    for word in (name, kind):
        if not isinstance(word, str) or not 0 < len(word) <= MAX_NAME or not word.isprintable():
            raise OrderError(f"app: names and kinds have 1 to {MAX_NAME} characters")
    if not isinstance(settings, dict) or not all(isinstance(key, str) for key in settings):
        raise OrderError(f"app {name}: settings are a table", name)
    if reason := unfit(settings):
        raise OrderError(f"app {name}: {reason}", name)
    limits = item[3] if len(item) == 4 else {}
    if not isinstance(limits, dict) or limits.keys() - {CONSUME, EMISSION, WHEN}:
        raise OrderError(f"app {name}: the only limits are {CONSUME}, {EMISSION} and {WHEN}", name)
    consume, emission = _consume(limits, name), _emission(limits, name)
    return AppOrder(name, kind, _json(settings, name), consume, emission, _when(limits, name))


def unfit(settings: Mapping[str, object]) -> str:
    """Why no 634 can carry these settings; empty if one can. One with a part that nobody reads would stop every sleep."""
    try:
        encoded = cbor.encode([[[[settings]]]])  # as deep as in a 634
        if len(encoded) > MAX_SETTINGS + 4:
            return f"settings have at most {MAX_SETTINGS} bytes"
        cbor.decode(encoded, limit=len(encoded), field="settings")
    except (ValueError, RecursionError):  # WireError is a ValueError, UnicodeEncodeError as well
        return f"settings nest at most {cbor.MAX_DEPTH - 4} deep, with whole numbers of 64 bits and texts of Unicode"
    return ""


def _emission(limits: Mapping[str, object], name: str) -> tuple[Permit, ...] | None:
    if EMISSION not in limits:
        return None
    try:
        return permits(limits[EMISSION])
    except ValueError as problem:
        raise OrderError(f"app {name}: {EMISSION}: {problem}", name) from None


def _consume(limits: Mapping[str, Any], name: str) -> Consume:
    try:
        return Consume(limits.get(CONSUME, Consume.REPLAY))
    except ValueError:
        raise OrderError(f"app {name}: {CONSUME}: {_one_of(Consume)} is expected", name) from None


def _when(limits: Mapping[str, Any], name: str) -> When:
    try:
        return When(limits.get(WHEN, When.ASLEEP))
    except ValueError:
        raise OrderError(f"app {name}: {WHEN}: {_one_of(When)} is expected", name) from None


def _one_of(words: Iterable[str]) -> str:
    *first, last = [f'"{word}"' for word in words]
    return f"{', '.join(first)} or {last}"


def _json(settings: Mapping[str, object], name: str) -> Mapping[str, JSON]:
    return {key: _value(value, name) for key, value in settings.items()}


def _value(value: object, name: str) -> JSON:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case list():
            return [_value(item, name) for item in value]
        case dict() if all(isinstance(key, str) for key in value):
            return _json(value, name)
    raise OrderError(f"app {name}: settings hold numbers, texts, lists and tables", name)
