"""Values of settings that several kinds of proxies read alike. Each raises SettingError naming the key."""

from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError

MAX_TEXT = 255
"""Characters of a text."""
QUOTES = """ (in a shell as KEY='"8"')"""


def text(value: JSON, key: str, most: int = MAX_TEXT) -> str:
    """A printable text that is not empty; None is a missing key."""
    if value is None:
        raise SettingError(key, "is missing")
    if isinstance(value, bool | int | float):
        raise SettingError(key, "a text is expected: write the value in quotes" + QUOTES)
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
        raise SettingError(key, f"a text of 1 to {most} printable characters is expected")
    return value


def whole(value: JSON, key: str, least: int, most: int) -> int:
    """A whole number between these bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SettingError(key, f"a whole number from {least} to {most} is expected")
    return value


def number(value: JSON, key: str, least: float, most: float) -> float:
    """A number between these bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SettingError(key, f"a number from {least:g} to {most:g} is expected")
    return float(value)


def seconds(value: JSON, key: str, least: float, most: float) -> float:
    """A time between these bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise SettingError(key, f"a number of seconds from {least:g} to {most:g} is expected")
    return float(value)
