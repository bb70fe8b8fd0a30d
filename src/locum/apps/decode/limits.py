"""Bounds of unpacking: a small file may unpack to a huge one."""

from dataclasses import dataclass

from locum.apps.values import whole
from locum.roles.action_values.addresses import JSON
from locum.roles.app_contract import SettingError

MAX_MEMBERS = 200
"""Members of an archive: a proxy has 256 files (`app_network.MAX_FILES`)."""
FREE = 16 << 20
"""Bytes that any file may unpack to, whatever the ratio: short files of one repeated byte are common and harmless."""
_NUMBERS = {
    # key: default, least, most
    "max_size": (1 << 30, 1, 1 << 40),
    "max_ratio": (250, 1, 100_000),
    "max_members": (100, 1, MAX_MEMBERS),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_size` in bytes of all members together; `max_ratio` of these to the bytes of the packed file."""

    max_size: int = 1 << 30
    max_ratio: int = 250
    max_members: int = 100
    audio: bool = False  # a file of audio is decoded


def limits(value: JSON) -> Limits | None:
    """Read the setting `decode`: false, true, or a table. Raises SettingError."""
    if isinstance(value, bool):
        return Limits() if value else None
    if not isinstance(value, dict):
        raise SettingError("decode", "true, false or a table is expected")
    keys = (*_NUMBERS, "audio")
    if unknown := sorted(set(value) - set(keys)):
        raise SettingError(f"decode.{unknown[0]}", f"is not known; there are {', '.join(keys)}")
    audio = value.get("audio", False)
    if not isinstance(audio, bool):
        raise SettingError("decode.audio", "true or false is expected")
    return Limits(
        audio=audio,
        **{
            key: whole(value.get(key, default), f"decode.{key}", least, most)
            for key, (default, least, most) in _NUMBERS.items()
        },
    )
