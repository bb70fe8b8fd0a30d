"""Reads the keys of a table of settings strictly: every error names its key."""

from collections.abc import Collection, Mapping

from locum.apps import values
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError


class Keys:
    """The keys of a table that are still unread. `place` stands before their names in errors."""

    def __init__(self, table: Mapping[str, JSON], place: str = "") -> None:
        self._left, self._place = dict(table), place
        self._known: list[str] = []

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def error(self, key: str, expected: str) -> SettingError:
        """To be raised."""
        return SettingError(self._place + key, expected)

    def take(self, key: str) -> JSON:
        """The value, None if it is missing."""
        self._known.append(key)
        return self._left.pop(key, None)

    def text(self, key: str, most: int, default: str | None = None) -> str:
        value = self.take(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not 0 < len(value) <= most:
            raise self.error(key, f"a text of 1 to {most} characters is expected")
        return value

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        value = self.take(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in choices:
            raise self.error(key, f"one of {', '.join(choices)} is expected")
        return value

    def flag(self, key: str) -> bool:
        value = self.take(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(key, "true or false is expected")
        return value is True

    def whole(self, key: str, least: int, most: int) -> int | None:
        value = self.take(key)
        return None if value is None else values.whole(value, self._place + key, least, most)

    def seconds(self, key: str, least: float, most: float) -> float | None:
        value = self.take(key)
        return None if value is None else values.seconds(value, self._place + key, least, most)

    def texts(self, key: str, most: int, longest: int) -> tuple[str, ...] | None:
        """Different texts."""
        value = self.take(key)
        if value is None:
            return None
        if (
            not isinstance(value, list)
            or not 0 < len(value) <= most
            or not all(isinstance(item, str) and 0 < len(item) <= longest for item in value)
            or len(set(map(str, value))) < len(value)
        ):
            raise self.error(key, f"a list of 1 to {most} different texts is expected")
        return tuple(map(str, value))

    def ports(self, key: str, most: int) -> frozenset[int]:
        """Empty if it is missing."""
        value = self.take(key)
        if value is None:
            return frozenset()
        if (
            not isinstance(value, list)
            or not 0 < len(value) <= most
            or not all(isinstance(port, int) and 0 < port < 65536 for port in value)
        ):
            raise self.error(key, f"a list of 1 to {most} ports is expected")
        return frozenset(int(str(port)) for port in value)

    def table(self, key: str) -> "Keys | None":
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, "a table is expected")
        return Keys(value, f"{self._place}{key}.")

    def mapping(self, key: str, most: int) -> dict[str, str]:
        """A table of texts."""
        value = self.take(key)
        if (
            not isinstance(value, dict)
            or not 0 < len(value) <= most
            or not all(isinstance(item, str) for item in value.values())
        ):
            raise self.error(key, f"a table of 1 to {most} texts is expected")
        return {name: str(item) for name, item in value.items()}

    def end(self) -> None:
        """Raises SettingError for a key that nobody has read."""
        if self._left:
            raise self.error(min(self._left), f"is not known; there are {', '.join(self._known)}")
