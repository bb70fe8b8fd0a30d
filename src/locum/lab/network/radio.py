"""A radio that listens in slots alone, or loses frames by chance, at the device's end of a radio link (P13).

The programs are `bpf/radio.bpf.c`. Their pins are in the lab's own bpffs, and go when the radio is as before.
"""

import ctypes
import os
import struct
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locum.lab.errors import LabError

OBJECT = Path(__file__).parents[2] / "dataplane" / "objects" / "radio.bpf.o"
STAY = 2.0
"""Seconds without a frame after which a radio that was switched on listens in slots again."""
_PREFERENCE = "77"
_MILLION, _BILLION = 1_000_000, 1_000_000_000
_SETTINGS, _STATE = struct.Struct("=QQQQQQ"), struct.Struct("=QQQQQQ")
_KEY = struct.pack("=I", 0)


@dataclass(frozen=True, slots=True)
class Listening:
    """Slots in milliseconds, as a device tells them; with cycle 0 the radio always listens. `loss` from 0 to 1."""

    cycle: int = 0
    offset: int = 0
    length: int = 0
    loss: float = 0.0
    stay: float = STAY

    def settings(self) -> bytes:
        """The value for the program."""
        ahead = time.clock_gettime_ns(time.CLOCK_TAI) - time.clock_gettime_ns(time.CLOCK_REALTIME)
        return _SETTINGS.pack(
            self.cycle * _MILLION,
            self.offset * _MILLION,
            self.length * _MILLION,
            round(ahead / _BILLION) * _BILLION,  # leap seconds are whole
            round(self.stay * _BILLION),
            round(self.loss * 1000),
        )


@dataclass(frozen=True, slots=True)
class Frames:
    """Frames that a radio has heard and sent, and those that did not pass: outside the slots, and by chance."""

    heard: int
    sent: int
    deaf: int
    mute: int
    lost: int


class SleepyRadio:
    """The programs of one interface. `inside` is the prefix of commands in its namespace, `pins` a folder for this radio."""

    def __init__(self, inside: Sequence[str], interface: str, pins: Path) -> None:
        """Load and attach. Raises LabError."""
        self._inside, self._interface, self._pins = inside, interface, pins
        self._library = _library()
        self._object = self._load()
        self._maps = {name: self._map(name) for name in (b"radio_settings", b"radio_state")}
        self.listen(Listening())
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def listen(self, listening: Listening) -> None:
        """Listen so from now on. A radio that was switched on goes off."""
        self._put(b"radio_settings", listening.settings())
        frames = self.frames()
        self._put(
            b"radio_state",
            _STATE.pack(0, frames.heard, frames.sent, frames.deaf, frames.mute, frames.lost),
        )

    def frames(self) -> Frames:
        """Frames so far."""
        value = ctypes.create_string_buffer(_STATE.size)
        if self._library.bpf_map_lookup_elem(self._maps[b"radio_state"], _KEY, value):
            raise LabError(f"radio of {self._interface}: its state cannot be read")
        return Frames(*_STATE.unpack(value.raw)[1:])

    def close(self) -> None:
        """Take the programs off; the radio hears and sends everything."""
        self._run("ip", "link", "set", "dev", self._interface, "xdpgeneric", "off", must=False)
        self._run("tc", "filter", "del", "dev", self._interface, "egress", "pref", _PREFERENCE, must=False)
        for name in ("in", "out"):
            (self._pins / name).unlink(missing_ok=True)
        if self._pins.exists():
            self._pins.rmdir()
        if self._object is not None:
            self._library.bpf_object__close(self._object)
            self._object = None

    def _attach(self) -> None:
        self._pins.mkdir(parents=True)
        for name in ("in", "out"):
            program = self._library.bpf_object__find_program_by_name(self._object, f"radio_{name}".encode())
            if not program or self._library.bpf_program__pin(program, os.fsencode(self._pins / name)):
                raise LabError(f"radio of {self._interface}: program {name} cannot be pinned")
        device = ("dev", self._interface)
        self._run("ip", "link", "set", *device, "xdpgeneric", "pinned", str(self._pins / "in"))
        self._run("tc", "qdisc", "add", *device, "clsact", must=False)  # it may be there
        pinned = ("bpf", "da", "pinned", str(self._pins / "out"))
        self._run("tc", "filter", "add", *device, "egress", "pref", _PREFERENCE, *pinned)

    def _run(self, *command: str, must: bool = True) -> None:
        done = subprocess.run([*self._inside, *command], capture_output=True, text=True)
        if done.returncode and must:
            raise LabError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")

    def _load(self) -> Any:
        handle = self._library.bpf_object__open_file(os.fsencode(OBJECT), None)
        if not handle or self._library.bpf_object__load(handle):
            raise LabError(
                f"{OBJECT} cannot be loaded: {os.strerror(ctypes.get_errno())}; `make build` makes it"
            )
        return handle

    def _map(self, name: bytes) -> int:
        return int(self._library.bpf_object__find_map_fd_by_name(self._object, name))

    def _put(self, name: bytes, value: bytes) -> None:
        if self._library.bpf_map_update_elem(self._maps[name], _KEY, value, 0):
            raise LabError(f"radio of {self._interface}: {os.strerror(ctypes.get_errno())}")


def _library() -> Any:
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    for name in ("bpf_object__open_file", "bpf_object__find_program_by_name"):
        getattr(library, name).restype = ctypes.c_void_p
    library.bpf_object__open_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
    for name in ("bpf_object__load", "bpf_object__close"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.bpf_object__close.restype = None
    for name in (
        "bpf_object__find_program_by_name",
        "bpf_object__find_map_fd_by_name",
        "bpf_program__pin",
    ):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.bpf_map_lookup_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p]
    library.bpf_map_update_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
    return library
