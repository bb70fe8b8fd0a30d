"""Reads the settings that all computations share: where rows come from, when results matter, and where they go."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from locum.apps.computing.conditions import Condition, ConditionError, read
from locum.apps.computing.engines import Engine
from locum.apps.computing.keys import Keys
from locum.apps.computing.messages import FORMS, MAX_TEMPLATE, Form
from locum.apps.computing.rows import MAX_COLUMNS, MAX_NAME, Csv, JsonLines
from locum.roles.app_network import MAX_HOST_NAME, TCP, UDP

MAX_PORTS = 64
MAX_ROWS = 10**9
MAX_SECONDS = 31 * 86400.0
MAX_MARK = 64
_FOREIGN = set("()\"'{}")
"""A condition or a template could not name a column with them."""
_PROTOCOLS = {"udp": UDP, "tcp": TCP}
ON = ("complete", "condition", "window")


@dataclass(frozen=True, slots=True)
class Source:
    """Peers' ports of attended sessions, and a port of the home address to listen at. `take_first`: also a first line
    whose beginning may have come while the device was awake."""

    ports: frozenset[int]
    port: int | None
    protocol: int
    take_first: bool


@dataclass(frozen=True, slots=True)
class Until:
    """When the computation is complete; None and the empty mark: never for this reason."""

    rows: int | None = None
    seconds: float | None = None
    mark: bytes = b""


@dataclass(frozen=True, slots=True)
class Emission:
    """`to` is `correspondent`, `device` or `host`. Occasions: some of ON, each so many rows, each so many seconds."""

    to: str
    host: str
    port: int
    protocol: int
    on: frozenset[str]
    rows: int | None
    seconds: float | None
    form: Form


@dataclass(frozen=True, slots=True)
class Settings:
    """`engine` makes what computes."""

    source: Source
    format: Csv | JsonLines
    engine: Callable[[], Engine]
    when: Condition | None
    again: Condition | None
    until: Until
    end_on_error: bool
    emission: Emission | None
    windows: bool


@dataclass(frozen=True, slots=True)
class Computation:
    """A kind of computation: `names` are its results, None if they follow from its run.

    `named` gives the name of a result that is called so. `windows`: it has tumbling ones.
    """

    make: Callable[[], Engine]
    names: frozenset[str] | None
    named: Callable[[str], str] = lambda name: name
    windows: bool = False


def shared(keys: Keys, rows: Csv | JsonLines, computation: Computation) -> Settings:
    """The rest of the settings. Raises SettingError."""
    when = _condition(keys, "when", computation)
    again = _condition(keys, "again", computation)
    if again is not None and when is None:
        raise keys.error("again", "needs when")
    found = Settings(
        _source(keys),
        rows,
        computation.make,
        when,
        again,
        _until(keys),
        keys.choice("on_error", ("skip", "end"), "skip") == "end",
        _emission(keys, computation, when is not None),
        computation.windows,
    )
    keys.end()
    emission = found.emission
    if emission is not None and emission.to == "host" and emission.protocol == UDP:
        source = found.source
        if source.port is None or source.protocol != UDP:
            raise keys.error("emit.to", "UDP goes out from the port of listen, which has to be UDP")
    return found


def row_format(keys: Keys) -> Csv | JsonLines:
    """Raises SettingError."""
    name = keys.choice("format", ("csv", "json"), "csv")
    if name == "json":
        return JsonLines()
    columns = keys.texts("columns", MAX_COLUMNS, MAX_NAME)
    if columns is None:
        raise keys.error("columns", "is missing: the names of the columns in their order")
    if bad := [column for column in columns if _FOREIGN & set(column) or column != column.strip()]:
        raise keys.error("columns", f"{bad[0]!r} has brackets, quotes, braces or spaces around it")
    separator = keys.text("separator", 1, ",")
    if separator in '"\r\n' or not separator.isascii():
        raise keys.error("separator", "a comma, a semicolon, a tabulator or the like is expected")
    return Csv(columns, separator)


def _source(keys: Keys) -> Source:
    ports = keys.ports("ports", MAX_PORTS)
    listen = keys.table("listen")
    port, protocol = None, UDP
    if listen is not None:
        port = listen.whole("port", 1, 65535)
        if port is None:
            raise listen.error("port", "is missing")
        protocol = _PROTOCOLS[listen.choice("protocol", _PROTOCOLS, "udp")]
        listen.end()
    if not ports and listen is None:
        raise keys.error("ports", "is missing; either this, for the device's sessions, or listen")
    return Source(ports, port, protocol, keys.choice("first_line", ("take", "skip"), "take") == "take")


def _condition(keys: Keys, key: str, computation: Computation) -> Condition | None:
    text = keys.take(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise keys.error(key, "a text such as 'mean > 30' is expected")
    try:
        condition = read(text, computation.named)
    except ConditionError as problem:
        raise keys.error(key, str(problem)) from problem
    _known(keys, key, condition.names, computation)
    return condition


def _known(keys: Keys, key: str, names: tuple[str, ...] | list[str], computation: Computation) -> None:
    if computation.names is None:
        return
    if unknown := [name for name in names if name not in computation.names]:
        known = ", ".join(sorted(computation.names)) or "none"
        raise keys.error(key, f"{unknown[0]} is no result; there are {known}")


def _until(keys: Keys) -> Until:
    table = keys.table("until")
    if table is None:
        return Until()
    rows = table.whole("rows", 1, MAX_ROWS)
    seconds = table.seconds("seconds", 0.1, MAX_SECONDS)
    mark = table.text("mark", MAX_MARK, "").encode()
    table.end()
    return Until(rows, seconds, mark)


def _emission(keys: Keys, computation: Computation, has_condition: bool) -> Emission | None:
    table = keys.table("emit")
    if table is None:
        return None
    to = table.text("to", MAX_HOST_NAME + 8)
    host, port = "", 0
    if to not in ("correspondent", "device"):
        host, port = _address(table, to)
        to = "host"
    protocol = _PROTOCOLS[table.choice("protocol", _PROTOCOLS, "udp")]
    form = _form(table, computation)
    rows, seconds = table.whole("rows", 1, MAX_ROWS), table.seconds("seconds", 0.1, MAX_SECONDS)
    on = table.texts("on", len(ON), 16)
    if on is None:
        on = () if rows or seconds else ON
    if unknown := sorted(set(on) - set(ON)):
        raise table.error("on", f"{unknown[0]} is not known; there are {', '.join(ON)}")
    table.end()
    if on == ("condition",) and not has_condition:
        raise table.error("on", "condition needs when")
    if on == ("window",) and not computation.windows:
        raise table.error("on", "window needs a tumbling window")
    return Emission(to, host, port, protocol, frozenset(on), rows, seconds, form)


def _form(table: Keys, computation: Computation) -> Form:
    template = table.text("template", MAX_TEMPLATE, "") if "template" in table else ""
    if template and "form" in table:
        raise table.error("template", "either this or form")
    made = Form(table.choice("form", FORMS, "json"), template, computation.named)
    fields = [field for field in made.fields() if field not in ("rows", "group")]
    _known(table, "template", fields, computation)
    return made


def _address(table: Keys, text: str) -> tuple[str, int]:
    """Host and port of `192.0.2.1:5005`, `[2001:db8::1]:5005` or `host.example:5005`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise table.error("to", "correspondent, device or HOST:PORT is expected")
    try:
        return str(ip_address(host)), int(port)
    except ValueError:
        return host, int(port)
