"""Settings of the `publish` proxy, as an order of a device has them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from locum.apps.values import number, seconds, whole
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError
from locum.roles.app_network import MAX_CONNECTIONS

MAX_PATTERNS = 64
"""Entries of `cache` and of `types`."""
MAX_TEXT = 200
"""Characters of one text."""
_PRINTABLE = re.compile(r"[\x20-\x7e]+")
_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+(;[\x20-\x7e]*)?", re.ASCII)
_FILE = re.compile(r"[^/\x00-\x1f]+")


@dataclass(frozen=True, slots=True)
class Settings:
    """`cache` are pairs of a pattern and a Cache-Control; times in seconds."""

    port: int
    index: tuple[str, ...]
    not_found: str
    cache_control: str
    cache: tuple[tuple[str, str], ...]
    types: Mapping[str, str]
    charset: str
    head_seconds: float
    idle_seconds: float
    stall_seconds: float
    connections: int
    connections_per_peer: int
    lines: float

    def cache_of(self, path: str) -> str:
        """The Cache-Control of this path: that of the first pattern that matches."""
        for pattern, value in self.cache:
            if fnmatchcase(path, pattern):
                return value
        return self.cache_control


KEYS = tuple(Settings.__dataclass_fields__)


def read(table: Mapping[str, JSON]) -> Settings:
    """The settings of an order. Raises SettingError."""
    if unknown := sorted(set(table) - set(KEYS)):
        raise SettingError(unknown[0], f"is not known; there are {', '.join(KEYS)}")
    connections = whole(table.get("connections", 200), "connections", 1, MAX_CONNECTIONS - 1)
    share = table.get("connections_per_peer", max(connections // 4, 1))
    return Settings(
        port=whole(table.get("port", 80), "port", 1, 65535),
        index=_index(table.get("index", ["index.html"])),
        not_found=_text(table, "not_found", ""),
        cache_control=_text(table, "cache_control", "no-cache"),
        cache=tuple(_pairs(table, "cache", _PRINTABLE).items()),
        types=_types(table),
        charset=_text(table, "charset", "utf-8"),
        head_seconds=seconds(table.get("head_seconds", 10.0), "head_seconds", 1.0, 300.0),
        idle_seconds=seconds(table.get("idle_seconds", 60.0), "idle_seconds", 1.0, 3600.0),
        stall_seconds=seconds(table.get("stall_seconds", 60.0), "stall_seconds", 1.0, 3600.0),
        connections=connections,
        connections_per_peer=whole(share, "connections_per_peer", 1, connections),
        lines=number(table.get("lines", 5.0), "lines", 0.0, 50.0),
    )


def _text(table: Mapping[str, JSON], key: str, otherwise: str) -> str:
    value = table.get(key, otherwise)
    if value == "":
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT or not _PRINTABLE.fullmatch(value):
        raise SettingError(key, f"a text of at most {MAX_TEXT} printable ASCII characters is expected")
    return value


def _index(value: JSON) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_PATTERNS:
        raise SettingError("index", "a list of file names is expected")
    names = [name for name in value if isinstance(name, str) and _FILE.fullmatch(name)]
    if len(names) < len(value):
        raise SettingError("index", "a list of file names without a slash is expected")
    return tuple(names)


def _pairs(table: Mapping[str, JSON], key: str, valid: re.Pattern[str]) -> dict[str, str]:
    value = table.get(key, {})
    if not isinstance(value, dict) or len(value) > MAX_PATTERNS:
        raise SettingError(key, f"a table of at most {MAX_PATTERNS} texts is expected")
    pairs: dict[str, str] = {}
    for name, text in value.items():
        if not isinstance(text, str) or len(text) > MAX_TEXT or not valid.fullmatch(text):
            raise SettingError(f"{key}.{name[:MAX_TEXT]}", "has a value that a header field cannot have")
        pairs[name] = text
    return pairs


def _types(table: Mapping[str, JSON]) -> dict[str, str]:
    pairs = _pairs(table, "types", _TYPE)
    for name in pairs:
        if not name.startswith(".") or "/" in name:
            raise SettingError(f"types.{name[:MAX_TEXT]}", "is no extension: one begins with a dot")
    return {name.lower(): value for name, value in pairs.items()}
