"""Strict reading of TOML tables: every key is taken by name and type, and the others are errors.

Knows nothing of the keys' meaning. An error names the file, the table and the key, says what is wrong and what
to write instead, because it is read by a person in front of a daemon that did not start.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Any, TypeVar

from locum.node.config.secret_file import SecretFileError, one_line, secret_text

T = TypeVar("T")
_Address = TypeVar("_Address", IPv4Address, IPv6Address, IPv4Address | IPv6Address)

_BROADCAST = IPv4Address("255.255.255.255")

_SIZE = re.compile(r"^(\d+)\s*([KMGT]?)i?B?$", re.IGNORECASE)
_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SHORTEST_SECRET = 16  # bytes; RFC 2865 section 3
_SHORTEST_KEY = 16  # bytes; RFC 5944 section 5.1 and RFC 8613 section 12.3: 128 bits
_LONGEST_KEY = 128  # bytes; that much of a key travels with a context between access nodes


class ConfigError(Exception):
    """A configuration that cannot be used. `str()` is one line for a person."""

    def __init__(self, file: Path | str, table: str, key: str | None, problem: str) -> None:
        self.file, self.table, self.key, self.problem = str(file), table, key, problem
        place = f"[{table}]" if table else "top level" if key else ""
        where = " ".join(word for word in (place, key) if word)
        super().__init__(": ".join(part for part in (self.file, where, problem) if part))


class Table:
    """One TOML table that is read key by key. `close()` refuses keys that were not read.

    Every reader has the key and an optional `default`; without a default the key must be there.
    """

    REQUIRED: Any = object()  # as a default: there is none
    _MISSING: Any = REQUIRED

    def __init__(
        self, file: Path, name: str, content: Mapping[str, Any], warnings: list[str] | None = None
    ) -> None:
        """`warnings` gets those about this table and the tables below it."""
        self.file, self.name = file, name
        self.warnings: list[str] = [] if warnings is None else warnings
        self._content = content
        self._asked: set[str] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """All keys, in the order of the file: of a table whose keys are free."""
        return tuple(self._content)

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def error(self, key: str | None, problem: str) -> ConfigError:
        """The error to raise about `key` of this table."""
        return ConfigError(self.file, self.name, key, problem)

    def warn(self, key: str, problem: str) -> None:
        """Note a problem with which the configuration can be used all the same."""
        self.warnings.append(str(self.error(key, problem)))

    def _read(self, key: str, default: Any, convert: Callable[[Any], T], wanted: str) -> T:
        self._asked.add(key)
        if key not in self._content:
            if default is self._MISSING:
                near = difflib.get_close_matches(key, self._content, 1)
                hint = f" ({near[0]} stands there: a slip?)" if near else ""
                raise self.error(key, f"is missing; write {key} = {wanted}{hint}")
            return default  # type: ignore[no-any-return]
        value = self._content[key]
        try:
            return convert(value)
        except (TypeError, ValueError) as problem:
            said = f" ({problem})" if str(problem) else ""
            raise self.error(key, f"{value!r} is not {wanted}{said}") from None

    def string(self, key: str, default: Any = _MISSING, wanted: str = "a string") -> str:
        return self._read(key, default, _as_string, wanted)

    def integer(self, key: str, default: Any = _MISSING, *, least: int = 0, most: int = 2**63 - 1) -> int:
        def convert(value: Any) -> int:
            if not isinstance(value, int) or isinstance(value, bool):
                raise TypeError
            if not least <= value <= most:
                raise ValueError
            return value

        return self._read(key, default, convert, f"a whole number from {least} to {most}")

    def seconds(self, key: str, default: Any = _MISSING, *, least: float = 0.0, most: float = 1e9) -> float:
        def convert(value: Any) -> float:
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise TypeError
            if not least <= value <= most:
                raise ValueError
            return float(value)

        return self._read(key, default, convert, f"a number of seconds from {least:g} to {most:g}")

    def boolean(self, key: str, default: Any = _MISSING) -> bool:
        def convert(value: Any) -> bool:
            if not isinstance(value, bool):
                raise TypeError
            return value

        return self._read(key, default, convert, "true or false")

    def size(self, key: str, default: Any = _MISSING, *, least: int = 0, most: int = 2**63 - 1) -> int:
        """Bytes, as a whole number or as text such as "64M"."""

        def convert(value: Any) -> int:
            if isinstance(value, int) and not isinstance(value, bool):
                size = value
            else:
                match = _SIZE.match(_as_string(value))
                if match is None:
                    raise ValueError
                size = int(match[1]) * _SIZE_UNITS[match[2].upper()]
            if not least <= size <= most:
                raise ValueError(f"from {least} to {most} bytes")
            return size

        return self._read(key, default, convert, 'a size such as "64M" or "4G"')

    def choice(self, key: str, options: tuple[str, ...], default: Any = _MISSING) -> str:
        def convert(value: Any) -> str:
            if value not in options:
                raise ValueError
            return str(value)

        return self._read(key, default, convert, "one of " + ", ".join(f'"{option}"' for option in options))

    def path(self, key: str, default: Any = _MISSING) -> Path:
        """A path; a relative one is relative to the directory of the config file."""

        def convert(value: Any) -> Path:
            if "\0" in (text := _as_string(value)):
                raise ValueError
            return self.file.parent / text

        return self._read(key, default, convert, "a path")

    def address4(self, key: str, default: Any = _MISSING) -> IPv4Address:
        return self._read(
            key, default, lambda value: _of_a_host(IPv4Address(_as_string(value))), "a host's IPv4 address"
        )

    def address6(self, key: str, default: Any = _MISSING) -> IPv6Address:
        return self._read(
            key, default, lambda value: _of_a_host(IPv6Address(_as_string(value))), "a host's IPv6 address"
        )

    def address(self, key: str, default: Any = _MISSING) -> IPv4Address | IPv6Address:
        return self._read(
            key, default, lambda value: _of_a_host(ip_address(_as_string(value))), "a host's IP address"
        )

    def optional(self, key: str) -> IPv4Address | IPv6Address | None:
        return self.address(key, None)

    def optional4(self, key: str) -> IPv4Address | None:
        return self.address4(key, None)

    def optional6(self, key: str) -> IPv6Address | None:
        return self.address6(key, None)

    def strings(self, key: str, default: Any = _MISSING) -> tuple[str, ...]:
        return self._read(key, default, lambda value: _as_list(value, _as_string), "a list of strings")

    def addresses(self, key: str, default: Any = _MISSING) -> tuple[IPv4Address | IPv6Address, ...]:
        def one(value: Any) -> IPv4Address | IPv6Address:
            return _of_a_host(ip_address(_as_string(value)))

        return self._read(key, default, lambda value: _as_list(value, one), "a list of IP addresses of hosts")

    def prefixes(self, key: str, default: Any = _MISSING) -> tuple[IPv4Network | IPv6Network, ...]:
        def one(value: Any) -> IPv4Network | IPv6Network:
            return ip_network(_as_string(value))

        return self._read(
            key, default, lambda value: _as_list(value, one), 'a list of prefixes such as "10.0.0.0/24"'
        )

    def prefix4(self, key: str, default: Any = _MISSING) -> IPv4Network:
        return self._read(
            key, default, lambda value: IPv4Network(_as_string(value)), 'a prefix such as "10.0.0.0/24"'
        )

    def converted(self, key: str, convert: Callable[[Any], T], wanted: str, default: Any = _MISSING) -> T:
        """Result of `convert` for the value; it raises TypeError or ValueError for an unwanted value."""
        return self._read(key, default, convert, wanted)

    def hexadecimal(self, key: str, default: Any = _MISSING, *, most: int = 255) -> bytes:
        def convert(value: Any) -> bytes:
            data = bytes.fromhex(_as_string(value))
            if len(data) > most:
                raise ValueError(f"at most {most} bytes")
            return data

        return self._read(key, default, convert, "an even number of hexadecimal digits")

    def secret(self, key: str, *, typed: bool = False, short: bool = False) -> bytes:
        """The bytes of the key file that `key` names; the file must not be readable by others.

        `typed`: the file has the key as one line of text, instead of hexadecimal. `short`: fewer than 16 bytes are taken,
        under a warning.
        """
        if typed:
            path, data = self._secret_line(key, "the key there as one line")
        else:
            path, text = self._secret_file(key, "the key there in hexadecimal")
            try:
                data = bytes.fromhex(text)
            except ValueError:
                raise self.error(key, f"{path} is not an even number of hexadecimal digits") from None
        if not data or (len(data) < _SHORTEST_KEY and not short):
            raise self.error(key, f"{path} holds {len(data)} bytes; a key needs at least {_SHORTEST_KEY}")
        if len(data) > _LONGEST_KEY:
            raise self.error(key, f"{path} holds {len(data)} bytes; a key has at most {_LONGEST_KEY}")
        if len(data) < _SHORTEST_KEY:
            self.warn(
                key, f"{path} holds {len(data)} bytes; a key under {_SHORTEST_KEY} can be found by trying"
            )
        elif typed:
            self.warn(key, f"{path} is text; a key that a person can type can be found by trying words")
        return data

    def secret_text(self, key: str) -> bytes:
        """The one line of the secret file that `key` names, as it stands there: others type it as text (RADIUS)."""
        path, data = self._secret_line(key, "the secret there as one line")
        if len(data) < _SHORTEST_SECRET:
            raise self.error(
                key, f"{path} holds {len(data)} bytes; a secret needs at least {_SHORTEST_SECRET}"
            )
        return data

    def password(self, key: str) -> str:
        """The one line of the secret file that `key` names: what a person has chosen, in ASCII, is taken as it is."""
        path, data = self._secret_line(key, "the password there as one line")
        if not data:
            raise self.error(key, f"{path} holds no password")
        return data.decode("ascii")

    def secret_line(self, key: str, wanted: str) -> str:
        """The one line of the secret file that `key` names, in ASCII; `wanted` says what to put there."""
        return self._secret_line(key, wanted)[1].decode("ascii")

    def _secret_line(self, key: str, wanted: str) -> tuple[Path, bytes]:
        path, text = self._secret_file(key, wanted)
        try:
            return path, one_line(text, str(path)).encode("ascii")
        except SecretFileError as problem:
            raise self.error(key, str(problem)) from None

    def _secret_file(self, key: str, wanted: str) -> tuple[Path, str]:
        path = self.path(key)
        try:
            return path, secret_text(path, wanted)
        except SecretFileError as problem:
            raise self.error(key, str(problem)) from None

    def table(self, key: str) -> "Table | None":
        """The table below `key`, or None when the file has none."""
        self._asked.add(key)
        content = self._content.get(key)
        if content is None:
            return None
        if not isinstance(content, Mapping):
            raise self.error(key, f"must be a table; write [{self._below(key)}]")
        return Table(self.file, self._below(key), content, self.warnings)

    def tables(self, key: str) -> "tuple[Table, ...]":
        """The array of tables below `key`; empty when the file has none."""
        self._asked.add(key)
        content = self._content.get(key, [])
        if not isinstance(content, list) or not all(isinstance(item, Mapping) for item in content):
            raise self.error(key, f"must be an array of tables; write [[{self._below(key)}]]")
        return tuple(
            Table(self.file, f"{self._below(key)} #{number}", item, self.warnings)
            for number, item in enumerate(content, 1)
        )

    def _below(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    def close(self) -> None:
        """Refuse every key that no reader asked for."""
        for key in self._content:
            if key not in self._asked:
                near = difflib.get_close_matches(key, self._asked, 1)
                hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(self._asked))}"
                raise self.error(key, f"is not known{hint}")


def _of_a_host(address: _Address) -> _Address:
    """Check for a unicast address; raises ValueError."""
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        raise ValueError
    return address


def _as_string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _as_list(value: Any, one: Callable[[Any], T]) -> tuple[T, ...]:
    if not isinstance(value, list):
        raise TypeError
    return tuple(one(item) for item in value)
