"""The written forms of wishes to be woken (`locum wake-on`), and the wish that each means.

A form is a word with options, as keys of a table. Kinds of events and their fields are those in docs/apps.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

from locum.node.config.paging.event_table import OPERATORS, actions, limits, scalar
from locum.node.config.rule_table import selectors
from locum.node.config.toml_table import ConfigError, Table
from locum.roles.app_results import TOPIC_LEVELS
from locum.roles.mobile_node.paging.wishes import MAX_TEXT, Wish
from locum.wire.control.paging.cause import MAX_APP, MAX_KIND
from locum.wire.control.paging.entry import (
    LEFT,
    MAX_CONDITIONS,
    MAX_FIELD,
    MAX_VALUE,
    Condition,
    Entry,
    Operator,
    Pattern,
)

PACKETS = ("ssh", "tcp", "udp", "ping", "packets")
EVENTS = ("mail", "download", "mqtt", "call", "event")
FORMS = (*PACKETS, *EVENTS)
MAX_PORT = 65535
ORDERS = {
    "mail": "`locum order watch-mail HOST --user USER --password-file FILE`",
    "download": "`locum order download URL`",
    "keepalive": "`locum order add keepalive NAME protocol=mqtt 'ports=[1883]' on_data=event`",
    "call": "`locum order add call NAME contact=USER@HOST 'callers=[\"*\"]'`",
}
"""Commands that order a proxy of the kind."""
_SELECTOR = (
    "source",
    "destination",
    "source_port",
    "destination_port",
    "protocol",
    "dscp",
    "spi",
    "flow_label",
    "family",
)
_LIMITS = ("every", "quiet", "later", "actions", "order", "tell")
_SIP = re.compile(r"^sips?:", re.IGNORECASE)
_PORTS = re.compile(r"^(0x[0-9a-f]{1,4}|[0-9]{1,5}(-[0-9]{1,5})?)$", re.ASCII)
_SIP_TAIL = re.compile(r"(?::[0-9]+)?(?:[;?].*)?$")
"""Port, parameters and headers of a SIP URI, which an event does not name."""
_WHERE = re.compile(r"^\s*([^\s=!<>]+)\s*(!=|<=|>=|=|<|>|\scontains\s|\sglob\s)\s*(.*?)\s*$")


def wish(keys: Mapping[str, Any]) -> Wish:
    """The wish that these keys say: form, value, and options. Raises ConfigError, whose key is the option."""
    table = Table(Path("wish"), "", keys)
    form = table.choice("form", FORMS)
    made = _packets if form in PACKETS else _events
    found = made(table, form)
    table.close()
    return replace(found, text=_text(table, form, keys))


# Packets --------------------------------------------------------------------------------------------------------------


def _packets(table: Table, form: str) -> Wish:
    for key in (*_LIMITS, "subject", "topic", "app", "where"):
        if key in table:
            raise table.error(
                key,
                f"is for events at the stand-in ({', '.join(EVENTS)}); pages by packets are limited at the home agent",
            )
    chosen = {key: table.converted(key, _any, "a value") for key in _SELECTOR if key in table}
    if "from" in table:
        if "source" in chosen:
            raise table.error("from", "either this or source")
        chosen["source"] = table.string("from")
    match form:
        case "ssh":
            fixed = {"protocol": "tcp", "destination_port": _port(table, 22)}
        case "tcp" | "udp":
            fixed = {"protocol": form, "destination_port": _port(table, None)}
        case "ping":
            fixed = {"protocol": "icmp"}
            _no_value(table)
        case _:
            fixed = {}
            _no_value(table)
            if not chosen:
                raise table.error(
                    "form", "packets needs options that select some; every packet would wake the device"
                )
    for key in fixed.keys() & chosen.keys():
        raise table.error(key, f"is given by {form}")
    try:
        return Wish(0, form, selectors(Table(table.file, "", {**chosen, **fixed})))
    except ConfigError as problem:
        if problem.key == "source" and "from" in table:
            raise table.error("from", problem.problem) from None
        raise


def _port(table: Table, default: int | None) -> int | str:
    """A port or a range of ports, as a rule has it."""

    def convert(value: Any) -> int | str:
        if not isinstance(value, str) or not _PORTS.match(value):
            raise TypeError
        first, _, last = value.partition("-")
        if not 0 < int(first, 0) <= int(last or first, 0) <= MAX_PORT:
            raise ValueError(f"ports are 1 to {MAX_PORT}, the lower one first")
        return value if last else int(first, 0)

    if default is None and "value" not in table:
        raise table.error("value", "a port is missing, such as 8080")
    return table.converted("value", convert, "a port, or a range such as 8000-8099", default)


# Events ---------------------------------------------------------------------------------------------------------------


def _events(table: Table, form: str) -> Wish:
    for key in _SELECTOR:
        if key in table:
            raise table.error(key, f"is for packets ({', '.join(PACKETS)})")
    proxy, patterns = _FORMS[form](table)
    if form != "event":
        _no_value(table)
        for key in ("app", "where"):
            if key in table:
                raise table.error(key, "is for the form event")
    for key, forms in (("from", ("mail", "call")), ("subject", ("mail",)), ("topic", ("mqtt",))):
        if key in table and form not in forms:
            raise table.error(
                key,
                f"is for {' and '.join(forms)}, and from also for packets"
                if key == "from"
                else f"is for {forms[0]}",
            )
    entry = Entry(1, patterns, actions(table), None, limits(table), form)
    return Wish(0, form, entry=entry, proxy=proxy)


def _mail(table: Table) -> tuple[str, tuple[Pattern, ...]]:
    """Messages; several that are told by one event may be of any sender."""
    sender, subject = _word(table, "from"), _word(table, "subject")
    about = () if subject is None else (Condition("subject", Operator.CONTAINS, subject),)
    kind = "message_available"
    if sender is None and subject is None:
        return "mail", (Pattern("*", kind),)
    folded = Pattern("*", kind, (Condition("messages", Operator.AT_LEAST, 0),))
    if sender is None:
        return "mail", (Pattern("*", kind, about), folded)
    spellings = dict.fromkeys((("sender", sender), ("sender", sender.lower()), ("name", sender)))
    named = tuple(
        Pattern("*", kind, (Condition(field, Operator.CONTAINS, text), *about)) for field, text in spellings
    )
    return "mail", (*named, folded)


def _download(table: Table) -> tuple[str, tuple[Pattern, ...]]:
    return "download", (Pattern("*", "delivered"), Pattern("*", "download_failed"))


def _mqtt(table: Table) -> tuple[str, tuple[Pattern, ...]]:
    """Messages of a broker; those that a proxy could only count may be of any topic."""
    topic = _word(table, "topic")
    if topic is not None:
        unread = Condition("unread", Operator.AT_LEAST, 1)
        return "keepalive", (
            Pattern("*", "published", _topic(table, topic)),
            Pattern("*", "published", (unread,)),
        )
    return "keepalive", (Pattern("*", "message_available", (Condition("protocol", Operator.EQUAL, "mqtt"),)),)


def _topic(table: Table, written: str) -> tuple[Condition, ...]:
    """The conditions of a topic filter (MQTT 5 section 4.7) on the levels of a message's topic."""
    levels = written.split("/")
    for number, level in enumerate(levels, 1):
        if ("#" in level and (level != "#" or number < len(levels))) or ("+" in level and level != "+"):
            raise table.error(
                "topic", f"{written!r}: + stands for a whole level, and # for all levels at the end"
            )
    if levels[0] == "$share":
        raise table.error("topic", f"{written!r}: write the filter alone, without $share and its group")
    if not {"+", "#"} & {*levels}:
        return (Condition("topic", Operator.EQUAL, written),)
    named = [(number, level) for number, level in enumerate(levels, 1) if level not in ("+", "#")]
    found = [Condition(f"level.{number}", Operator.EQUAL, level) for number, level in named]
    if levels[-1] == "#":
        found.append(Condition("levels", Operator.AT_LEAST, max(len(levels) - 1, 1)))
    else:
        found.append(Condition("levels", Operator.EQUAL, len(levels)))
    if levels[0] in ("+", "#"):
        found.append(Condition("system", Operator.EQUAL, False))
    if len(found) > MAX_CONDITIONS or any(number > TOPIC_LEVELS for number, _level in named):
        raise table.error(
            "topic",
            f"{written!r} has more than {MAX_CONDITIONS - 2} names beside wildcards, or one behind level {TOPIC_LEVELS}",
        )
    return tuple(found)


def _call(table: Table) -> tuple[str, tuple[Pattern, ...]]:
    caller = _word(table, "from")
    if caller is None:
        return "call", (Pattern("*", "call_from"),)
    address = _SIP_TAIL.sub("", _SIP.sub("", caller), count=1).lower()
    host = address.rpartition("@")[2]
    if not host or not ("@" in address or _SIP.match(caller)) or re.search(r"[\s<>]", address):
        raise table.error(
            "from", f"{caller!r} is neither USER@HOST, as in sip:friend@example.org, nor @DOMAIN"
        )
    operator, text = (Operator.GLOB, f"*{address}") if address.startswith("@") else (Operator.EQUAL, address)
    return "call", (Pattern("*", "call_from", (Condition("caller", operator, text),)),)


def _event(table: Table) -> tuple[str, tuple[Pattern, ...]]:
    if "value" not in table:
        raise table.error("value", "a kind of event is missing, such as computed; * and ? are allowed")
    kind = table.converted(
        "value", _short(MAX_KIND), "a kind of event, such as computed; * and ? are allowed"
    )
    app = table.converted("app", _short(MAX_APP), "the name of a proxy or an order", "*")
    where = table.strings("where", ())
    if len(where) > MAX_CONDITIONS:
        raise table.error("where", f"there are at most {MAX_CONDITIONS} conditions")
    return "", (Pattern(app, kind, tuple(_condition(table, text) for text in where)),)


_FORMS: Mapping[str, Callable[[Table], tuple[str, tuple[Pattern, ...]]]] = {
    "mail": _mail,
    "download": _download,
    "mqtt": _mqtt,
    "call": _call,
    "event": _event,
}


def _condition(table: Table, text: str) -> Condition:
    """Such as "size > 1000" or "price < left.limit"."""
    match = _WHERE.match(text)
    if match is None or len(match[1]) > MAX_FIELD or match[3].startswith(("=", "<", ">", "!")):
        words = ", ".join(OPERATORS)
        raise table.error(
            "where", f"{text!r} is no condition such as 'size > 1000'; the comparisons are {words}"
        )
    operator, written = OPERATORS[match[2].strip()], match[3]
    if not written:
        raise table.error("where", f'{text!r} has no value to compare with; the empty text is ""')
    if written.startswith(LEFT):
        name = written.removeprefix(LEFT)
        if not 0 < len(name) <= MAX_FIELD:
            raise table.error("where", f"{text!r}: {LEFT} needs a name of at most {MAX_FIELD} characters")
        return Condition(match[1], operator, name, True)
    try:
        value = json.loads(written)
    except ValueError:
        value = written
    try:
        return Condition(match[1], operator, scalar(value))
    except (TypeError, ValueError):
        problem = (
            f"{written!r} is neither a number, true, false, nor a text of at most {MAX_VALUE} characters"
        )
        raise table.error("where", problem) from None


# Parts of both ----------------------------------------------------------------------------------------------------------


def _text(table: Table, form: str, keys: Mapping[str, Any]) -> str:
    """The form as it is written at the command line."""
    words = [form, *([quote(str(keys["value"]))] if "value" in keys else [])]
    for key, value in keys.items():
        match key:
            case "form" | "value":
                continue
            case "later":
                words += [] if value else ["--not-later"]
            case "actions":
                words += [f"--{word}" for word in value if word != "page"]
            case _:
                listed = value if isinstance(value, list) else [value]
                words += [f"--{key.replace('_', '-')} {quote(str(item))}" for item in listed]
    text = " ".join(words)
    if len(text) > MAX_TEXT:
        raise table.error("form", f"is longer than {MAX_TEXT} characters with its options")
    return text


def _no_value(table: Table) -> None:
    if "value" in table:
        raise table.error("value", f"{table.string('value')!r} is one word too many")


def _word(table: Table, key: str) -> str | None:
    found: str | None = table.converted(
        key, _short(MAX_VALUE), f"a text of 1 to {MAX_VALUE} characters", None
    )
    return found


def _short(most: int) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError
        if not 0 < len(value) <= most:
            raise ValueError
        return value

    return convert


def _any(value: Any) -> Any:
    return value
