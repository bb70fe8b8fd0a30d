"""The kind `spreadsheet`: arriving values feed the cells of a workbook (A8, A10). It needs the package formualizer."""

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from locum.apps.computing import workbooks
from locum.apps.computing.keys import Keys
from locum.apps.computing.proxy import Proxy
from locum.apps.computing.rows import MAX_COLUMNS, Csv
from locum.apps.computing.settings import Computation, Settings, row_format, shared
from locum.roles.action_values.addresses import JSON, Randomness
from locum.roles.app_contract import Effect
from locum.roles.app_network import MAX_FILE_NAME, MAX_LOAD, Failed, Files, Happening, Load, Loaded

MAX_INLINE = 12 << 10
"""Characters of a workbook in the settings themselves."""


@dataclass(frozen=True, slots=True)
class SheetSettings(Settings):
    """The workbook is in `content`, or in the file `file` of the order."""

    content: bytes = b""
    file: str = ""


class Spreadsheet(Proxy):
    """Computes with a workbook over rows from sessions of the device and at a port of its home address."""

    def __init__(self, settings: object, randomness: Randomness) -> None:
        super().__init__(settings, randomness)
        assert isinstance(settings, SheetSettings)
        self._content, self._file = settings.content, settings.file
        self._size = 0

    @classmethod
    def settings(cls, table: Mapping[str, JSON]) -> SheetSettings:
        """Raises SettingError."""
        keys = Keys(table)
        content, file = _workbook(keys)
        rows = row_format(keys)
        plan = _plan(keys)
        if isinstance(rows, Csv) and (unknown := sorted(set(plan.feed) - set(rows.columns))):
            raise keys.error("feed", f"{unknown[0]!r} is not in columns")
        found = shared(keys, rows, Computation(partial(workbooks.Workbook, plan), frozenset(plan.results)))
        return SheetSettings(
            found.source,
            found.format,
            found.engine,
            found.when,
            found.again,
            found.until,
            found.end_on_error,
            found.emission,
            found.windows,
            content,
            file,
        )

    def prepare(self) -> list[Effect]:
        return [] if self._file else self._open()

    def happened(self, event: Happening, *, now: float) -> list[Effect]:
        match event:
            case Files(files) if self._file:
                return self._settle(now, self._load(dict(files)))
            case Loaded(file, offset, data) if file == self._file and offset == len(self._content):
                self._content += data
                if data and len(self._content) < self._size:
                    return [Load(self._file, len(self._content), MAX_LOAD)]
                return self._settle(now, self._open())
            case Failed(file, error) if file == self._file:
                return self._settle(now, self.computing.fail(f"{file} cannot be read: {os.strerror(error)}"))
        return super().happened(event, now=now)

    def _load(self, files: Mapping[str, int]) -> list[Effect]:
        size = files.get(self._file)
        if size is None:
            return self.computing.fail(f"the order has no file {self._file}")
        if size > workbooks.MAX_WORKBOOK:
            return self.computing.fail(f"{self._file} has more than {workbooks.MAX_WORKBOOK} bytes")
        self._size, self._content = size, b""
        return [Load(self._file, 0, MAX_LOAD)]

    def _open(self) -> list[Effect]:
        book = self.computing.engine
        assert isinstance(book, workbooks.Workbook)
        content, self._content = self._content, b""
        return self.computing.step(lambda: book.open(content))


def _workbook(keys: Keys) -> tuple[bytes, str]:
    """Content and file name; one of them is empty."""
    if ("workbook" in keys) == ("file" in keys):
        raise keys.error("workbook", "either this, a workbook in Base64, or file is expected")
    if "file" in keys:
        return b"", keys.text("file", MAX_FILE_NAME)
    text = keys.text("workbook", MAX_INLINE)
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        content = b""
    if not content.startswith(b"PK"):
        raise keys.error("workbook", "an .xlsx file in Base64 is expected")
    return content, ""


def _plan(keys: Keys) -> workbooks.Plan:
    feed = _places(keys, "feed", MAX_COLUMNS)
    results = _places(keys, "results", workbooks.MAX_RESULTS)
    if sum(place.cells for place in feed.values()) > workbooks.MAX_FED:
        raise keys.error("feed", f"at most {workbooks.MAX_FED} cells can be fed")
    if large := [name for name, place in results.items() if place.cells > 1]:
        raise keys.error("results", f"{large[0]} is more than one cell")
    return workbooks.Plan(feed, results, keys.flag("wrap"))


def _places(keys: Keys, key: str, most: int) -> dict[str, workbooks.Place]:
    found = {}
    for name, text in keys.mapping(key, most).items():
        try:
            found[name] = workbooks.Place.of(text)
        except ValueError as problem:
            raise keys.error(key, f"{name}: {problem}") from problem
    return found
