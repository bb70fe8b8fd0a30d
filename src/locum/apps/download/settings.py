"""Settings of the download proxy, read from the table of an order."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from locum.apps.decode.limits import Limits, limits
from locum.apps.download.address import Address, address, plain_name
from locum.apps.values import whole
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError
from locum.roles.app_network import MAX_FILE_NAME

MAX_DOWNLOADS = 32
"""In one order."""
MAX_PARALLEL = 8
"""Downloads at the same time; browsers have six connections to one host."""
MAX_SIZE = 1 << 40
"""Bytes of a file that any order may ask for; the room of the proxy is smaller."""
AT_ONCE, ON_REQUEST, STATUS = "at-once", "on-request", "status"
_NUMBERS = {
    # key: default, least, most
    "max_size": (1 << 30, 1, MAX_SIZE),
    "parallel": (2, 1, MAX_PARALLEL),
    "retries": (8, 0, 1000),
    "redirects": (5, 0, 20),
    "least_rate": (100, 0, 1 << 40),
    "patience": (60, 1, 3600),
    "time_limit": (86400, 1, 30 * 86400),
}
_WORDS = {
    "deliver": (AT_ONCE, ON_REQUEST, STATUS),
    "no_room": ("fail", "wait"),
}
_OF_ONE = ("sha256", "size", "name")
_KEYS = ("url", *_OF_ONE, *_NUMBERS, *_WORDS, "downgrade", "decode", "ports", "quiet")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file: `name` is its name at the stand-in; `sha256` is empty if it is not known."""

    address: Address
    name: str
    sha256: bytes = b""
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Sizes in bytes, `least_rate` in bytes a second (0: none), `patience`, `time_limit`, `quiet` in seconds (0: never).

    `ports`: ports of the servers whose connections it follows. `decode` None: files are not unpacked.
    """

    files: tuple[Wanted, ...]
    max_size: int
    parallel: int
    retries: int
    redirects: int
    least_rate: int
    patience: float
    time_limit: float
    deliver: str
    wait_for_room: bool
    downgrade: bool
    decode: Limits | None
    ports: frozenset[int]
    quiet: float


def settings(table: Mapping[str, JSON]) -> Settings:
    """Read the table. Raises SettingError."""
    if unknown := sorted(set(table) - set(_KEYS)):
        raise SettingError(unknown[0], f"is not known; there are {', '.join(_KEYS)}")
    numbers = {
        key: whole(table.get(key, default), key, least, most)
        for key, (default, least, most) in _NUMBERS.items()
    }
    words = {key: _word(table.get(key, choice[0]), key, choice) for key, choice in _WORDS.items()}
    files = _files(table)
    ports = _ports(table.get("ports", []))
    if not files and not ports:
        raise SettingError(
            "url", "is missing: the address of a file, or ports for the device's own downloads"
        )
    for wanted in files:
        if wanted.size is not None and wanted.size > numbers["max_size"]:
            raise SettingError("size", "is more than max_size")
    return Settings(
        files,
        numbers["max_size"],
        numbers["parallel"],
        numbers["retries"],
        numbers["redirects"],
        numbers["least_rate"],
        numbers["patience"],
        numbers["time_limit"],
        words["deliver"],
        words["no_room"] == "wait",
        _truth(table.get("downgrade", False), "downgrade"),
        limits(table.get("decode", False)),
        ports,
        whole(table.get("quiet", 0), "quiet", 0, 3600),
    )


def _files(table: Mapping[str, JSON]) -> tuple[Wanted, ...]:
    url = table.get("url", [])
    if isinstance(url, str):
        rows: list[Mapping[str, JSON]] = [{key: table[key] for key in ("url", *_OF_ONE) if key in table}]
    else:
        for key in _OF_ONE:
            if key in table:
                raise SettingError(key, "stands beside one url; in a list each file is a table of its own")
        if not isinstance(url, list) or len(url) > MAX_DOWNLOADS:
            raise SettingError("url", f"an address is expected, or a list of at most {MAX_DOWNLOADS}")
        rows = [_row(item) for item in url]
    names: set[str] = set()
    files: list[Wanted] = []
    for number, row in enumerate(rows):
        wanted = _wanted(row)
        name = wanted.name
        if name in names:
            name = f"{number}-{name}"
        if name in names:
            raise SettingError("name", f"{name} is there twice")
        names.add(name)
        files.append(Wanted(wanted.address, name, wanted.sha256, wanted.size))
    return tuple(files)


def _row(item: JSON) -> Mapping[str, JSON]:
    if isinstance(item, str):
        return {"url": item}
    if not isinstance(item, dict) or (unknown := sorted(set(item) - {"url", *_OF_ONE})):
        word = f"{unknown[0]} is not known: " if isinstance(item, dict) else ""
        raise SettingError("url", f"{word}each is an address, or a table of url, sha256, size, name")
    return item


def _wanted(row: Mapping[str, JSON]) -> Wanted:
    url = row.get("url")
    if not isinstance(url, str):
        raise SettingError("url", "a text is expected")
    try:
        where = address(url)
    except ValueError as problem:
        raise SettingError("url", str(problem)) from problem
    sha256 = row.get("sha256", "")
    if not isinstance(sha256, str) or not re.fullmatch(r"([0-9A-Fa-f]{64})?", sha256):
        raise SettingError("sha256", "64 hexadecimal digits are expected")
    size = row.get("size")
    name = row.get("name", where.name)
    if not isinstance(name, str) or not name or name != plain_name(name):
        raise SettingError("name", "letters, digits, dot, hyphen and underscore are expected, no dot first")
    if name.endswith(".part") or len(name) > MAX_FILE_NAME:
        raise SettingError("name", f"at most {MAX_FILE_NAME} characters, and not .part at its end")
    return Wanted(
        where, name, bytes.fromhex(sha256), None if size is None else whole(size, "size", 0, MAX_SIZE)
    )


def _ports(value: JSON) -> frozenset[int]:
    if not isinstance(value, list) or not all(type(port) is int and 0 < port < 65536 for port in value):
        raise SettingError("ports", "a list of ports is expected")
    return frozenset(int(str(port)) for port in value)


def _word(value: JSON, key: str, choice: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in choice:
        raise SettingError(key, f"one of {', '.join(choice)} is expected")
    return value


def _truth(value: JSON, key: str) -> bool:
    if not isinstance(value, bool):
        raise SettingError(key, "true or false is expected")
    return value
