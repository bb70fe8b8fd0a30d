"""The tables [[mobile_node.app]]: proxies that attend the device's sessions at the stand-in while it sleeps (A1).

The stand-in knows the kinds and their settings: it checks them when the device falls asleep.
"""

from collections import Counter
from typing import Any

from locum.node.config.toml_table import Table
from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.app_orders import MAX_APPS, MAX_NAME, unfit
from locum.roles.action_values.apps import CONSUME, EMISSION, AppOrder, Consume
from locum.roles.action_values.emission import Permit, permits

PASSWORD_FILE = "password_file"
"""The setting of a file with the password in one line; the stand-in gets the password."""
AUTO_TABLE = 'attend = "auto"'
AUTO = AppOrder("auto", "keepalive", {"protocol": "auto"})
"""The proxy of `attend = "auto"`: it comes last, and attends connections that no other proxy does."""


def app_orders(table: Table) -> tuple[AppOrder, ...]:
    """All of them. Raises ConfigError."""
    orders = tuple(_order(item) for item in table.tables("app"))
    if table.choice("attend", ("none", "auto"), "none") == "auto":
        if any(order.name == AUTO.name for order in orders):
            raise table.error("attend", f"needs the name {AUTO.name}, which a table of app has")
        orders += (AUTO,)
    if len(orders) > MAX_APPS:
        raise table.error(
            "app", f"there are at most {MAX_APPS} tables, {AUTO_TABLE} included; these are {len(orders)}"
        )
    names = Counter(order.name for order in orders)
    for name, times in names.items():
        if times > 1:
            raise table.error(
                "app",
                f"{times} tables have the name {name}: give each a name; without it the kind is the name",
            )
    return orders


def _order(table: Table) -> AppOrder:
    kind = table.converted(
        "kind", _word, f'a kind of proxy, such as "keepalive", of at most {MAX_NAME} characters'
    )
    name = table.converted("name", _word, f"a name of at most {MAX_NAME} characters", kind)
    settings: dict[str, JSON] = table.converted("settings", _settings, "a table of settings", {})
    consume = Consume(table.choice(CONSUME, tuple(Consume), Consume.REPLAY))
    emission = emission_rules(table, EMISSION)
    inner = table.table("settings")
    if inner is not None and PASSWORD_FILE in settings:
        if "password" in settings:
            raise inner.error(PASSWORD_FILE, "either this or password")
        settings["password"] = inner.password(PASSWORD_FILE)
        del settings[PASSWORD_FILE]
    if reason := unfit(settings):
        raise table.error("settings", reason)
    table.close()
    return AppOrder(name, kind, settings, consume, emission)


def emission_rules(table: Table, key: str) -> tuple[Permit, ...] | None:
    """Packets that proxies may send; None without the key: all. Raises ConfigError."""
    texts: list[str] | None = table.converted(key, _texts, "a list of rules", None)
    if texts is None:
        return None
    try:
        return permits(texts)
    except ValueError as problem:
        raise table.error(key, str(problem)) from None


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if not 0 < len(value) <= MAX_NAME or not value.isprintable():
        raise ValueError
    return value


def _settings(value: Any) -> dict[str, JSON]:
    if not isinstance(value, dict):
        raise TypeError
    return {str(key): _plain(item) for key, item in value.items()}


def _plain(value: Any) -> JSON:
    match value:
        case bool() | int() | float() | str():
            return value
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
    raise ValueError("dates and times are written as text")
