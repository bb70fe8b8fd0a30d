"""Audio by its first bytes. This module must not know who decodes."""

from collections.abc import Callable, Mapping

_STARTS: Mapping[str, Callable[[bytes], bool]] = {
    "flac": lambda data: data.startswith(b"fLaC"),
    "ogg": lambda data: data.startswith(b"OggS"),
    "wav": lambda data: data.startswith(b"RIFF") and data[8:12] == b"WAVE",
    "aiff": lambda data: data.startswith(b"FORM") and data[8:11] == b"AIF",
    "mp4": lambda data: data[4:8] == b"ftyp",
    "aac": lambda data: data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xF6 == 0xF0,
    "mp3": lambda data: (
        data.startswith(b"ID3")
        or (data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xE6 in (0xE2, 0xE4, 0xE6))
    ),
}


def form_of(beginning: bytes) -> str | None:
    """The format of a file that begins so: one of `app_network.AUDIO`."""
    return next((name for name, fits in _STARTS.items() if fits(beginning)), None)
