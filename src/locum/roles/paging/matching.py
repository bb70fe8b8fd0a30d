"""Comparison of application events with the patterns of an event table (P3, P15). Pure functions; no state."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import LEFT, Condition, Operator, Pattern

_MISSING = object()


def matches(pattern: Pattern, event: ApplicationEvent, information: Mapping[str, object]) -> bool:
    """True if the event is of the pattern's apps and kinds and meets every condition.

    `information` is what the device left: a condition may be about it ("left.NAME"), or compare a field with it.
    """
    return (
        glob(pattern.app, event.app)
        and glob(pattern.kind, event.kind)
        and all(_meets(condition, event, information) for condition in pattern.conditions)
    )


def glob(pattern: str, text: str) -> bool:
    """True if the whole text matches; * stands for any characters and ? for one, nothing else is special."""
    return fnmatchcase(text, pattern.replace("[", "[[]"))


def _meets(condition: Condition, event: ApplicationEvent, information: Mapping[str, object]) -> bool:
    """A field that is missing meets `!=` alone; a piece of information that is missing fits nothing."""
    value: object = condition.value
    if condition.left:
        value = information.get(str(value), _MISSING)
        if value is _MISSING:
            return False
    found = _field(condition.field, event.detail, information)
    if found is _MISSING:
        return condition.operator is Operator.NOT_EQUAL
    return _compared(found, condition.operator, value)


def _field(name: str, detail: Mapping[str, object], information: Mapping[str, object]) -> object:
    """The value of a field; a name with dots is a key, or leads through maps."""
    if name.startswith(LEFT):
        return information.get(name[len(LEFT) :], _MISSING)
    found: object = detail
    if name in detail:
        return detail[name]
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _MISSING
        found = found[part]
    return found


def _compared(found: object, operator: Operator, value: object) -> bool:
    match operator:
        case Operator.EQUAL:
            return _equal(found, value)
        case Operator.NOT_EQUAL:
            return not _equal(found, value)
        case Operator.CONTAINS:
            if isinstance(found, str):
                return isinstance(value, str) and value in found
            return isinstance(found, list) and any(_equal(item, value) for item in found)
        case Operator.GLOB:
            return isinstance(found, str) and isinstance(value, str) and glob(value, found)
    return _ordered(found, operator, value)


def _equal(found: object, value: object) -> bool:
    """Numbers equal numbers, and everything else its like: true is not 1."""
    if _number(found) and _number(value):
        return found == value
    return type(found) is type(value) and found == value


def _ordered(found: object, operator: Operator, value: object) -> bool:
    """True if two numbers, or two texts, are in this order; nothing else has one."""
    if isinstance(found, str) and isinstance(value, str):
        less, equal = found < value, found == value
    elif (
        isinstance(found, int | float)
        and isinstance(value, int | float)
        and _number(found)
        and _number(value)
    ):
        less, equal = found < value, found == value
        if found != found or value != value:  # NaN has no order
            return False
    else:
        return False
    match operator:
        case Operator.LESS:
            return less
        case Operator.AT_MOST:
            return less or equal
        case Operator.GREATER:
            return not less and not equal
    return not less


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
