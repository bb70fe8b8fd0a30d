"""One outgoing message from the bodies of many packets (A10): JSON, CSV, a template, or the received lines themselves."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from locum.apps.computing.conditions import Results, canonical
from locum.apps.computing.engines import ComputeError

MAX_MESSAGE = 1200
"""Bytes: one packet on every path (RFC 8200 section 5 has 1280 with headers)."""
MAX_TEMPLATE = 1000
"""Characters."""
FORMS = ("json", "csv", "lines")
_FIELD = re.compile(r"\{([^{}]*)\}")


class TooLarge(ComputeError):
    """The message would be longer than MAX_MESSAGE."""


@dataclass(frozen=True, slots=True)
class Form:
    """One of FORMS, or a `template` with results in braces, such as `{group}: {mean(celsius)}`."""

    form: str = "json"
    template: str = ""
    named: Callable[[str], str] = lambda name: name

    def fields(self) -> list[str]:
        """The names in the template."""
        return [self._name(field) for field in _FIELD.findall(self.template)]

    def _name(self, field: str) -> str:
        return self.named(canonical(field.strip()))

    def write(self, rows: int, results: Mapping[str, Results], lines: Sequence[bytes]) -> bytes:
        """Raises TooLarge. `lines` are those received since the last message."""
        if self.template:
            data = "".join(
                self._filled(rows, group, found) + "\n" for group, found in results.items()
            ).encode()
        elif self.form == "csv":
            data = _table(results)
        elif self.form == "lines":
            data = b"".join(line + b"\n" for line in lines)
        else:
            data = json.dumps({"rows": rows, **by_group(results)}, separators=(",", ":")).encode() + b"\n"
        if len(data) > MAX_MESSAGE:
            raise TooLarge(f"a message of {len(data)} bytes is longer than {MAX_MESSAGE}")
        return data

    def _filled(self, rows: int, group: str, results: Results) -> str:
        known = {"rows": rows, "group": group, **results}
        return _FIELD.sub(lambda field: _text(known.get(self._name(field[1]))), self.template)


def by_group(results: Mapping[str, Results]) -> dict[str, Results | Mapping[str, Results]]:
    """`{"results": ...}`, or `{"groups": {group: ...}}` where there are groups."""
    if set(results) <= {""}:
        return {"results": dict(results.get("", {}))}
    return {"groups": {group: dict(found) for group, found in results.items()}}


def _table(results: Mapping[str, Results]) -> bytes:
    names = list(dict.fromkeys(name for found in results.values() for name in found))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    grouped = not set(results) <= {""}
    writer.writerow([*(["group"] if grouped else []), *names])
    for group, found in results.items():
        writer.writerow([*([group] if grouped else []), *(_text(found.get(name)) for name in names)])
    return out.getvalue().encode()


def _text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
