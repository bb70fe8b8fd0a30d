"""Programs of an object with mutants, on the maps of a data plane that is open: all but the programs stays as it is."""

import ctypes
import os
import struct
from pathlib import Path

from locum.dataplane.kernel.libbpf import DataPlaneError, Map, checked, library, log_lines
from tests.dataplane.mutants.schema import CHOSEN

HOOKS = ("ingress", "egress")
# Bytes. The kernel's log is not wanted, and libbpf would try again and again with more room for it.
_LOG = 4096


class Programs:
    """The programs at ingress and egress. Raises DataPlaneError if the kernel refuses one of them."""

    def __init__(self, path: Path, maps: dict[str, Map], pins: Path) -> None:
        lib = library()
        lib.bpf_program__set_log_buf.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
        log = ctypes.create_string_buffer(_LOG)
        log_lines.clear()
        self._handle = lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            raise DataPlaneError(f"{path} is no object")
        numbers = None
        handle = lib.bpf_object__next_map(self._handle, None)
        while handle:
            name = lib.bpf_map__name(handle).decode()
            if name in maps:
                checked(lib.bpf_map__set_max_entries(handle, maps[name].max_entries), name)
                checked(lib.bpf_map__set_pin_path(handle, os.fsencode(pins / name)), name)
            else:
                numbers = handle
            handle = lib.bpf_object__next_map(self._handle, handle)
        program = lib.bpf_object__next_program(self._handle, None)
        while program:
            wanted = lib.bpf_program__name(program).decode() in {f"locum_{hook}" for hook in HOOKS}
            lib.bpf_program__set_autoload(program, wanted)
            lib.bpf_program__set_log_buf(program, log, _LOG)
            program = lib.bpf_object__next_program(self._handle, program)
        if lib.bpf_object__load(self._handle) < 0:
            self.close()
            raise DataPlaneError("refused")
        self.fds = {}
        for hook in HOOKS:
            program = lib.bpf_object__find_program_by_name(self._handle, f"locum_{hook}".encode())
            self.fds[hook] = int(lib.bpf_program__fd(program))
        self._numbers = Map(CHOSEN, lib.bpf_map__fd(numbers)) if numbers else None

    def choose(self, number: int) -> None:
        """Be the mutant of this number; 0: the programs as they are."""
        if self._numbers is not None:
            self._numbers.put(bytes(4), struct.pack("I", number))

    def close(self) -> None:
        if self._handle:
            library().bpf_object__close(self._handle)
            self._handle = None
