"""Loads the object file of the programs: sizes of maps, pinned maps of an earlier daemon, the verifier's complaints."""

import ctypes
import errno
import os
import re
from collections.abc import Collection
from pathlib import Path

from locum.dataplane.kernel.btf import Types
from locum.dataplane.kernel.libbpf import HASH, DataPlaneError, Map, checked, library, log_lines, pinned

_OF_ENTRIES = ("own_addresses",)  # arrays that tell of entries in hash tables


def verifier_message(log: list[str]) -> str:
    """The verifier's complaint and the source line it is about, out of libbpf's log."""
    lines = [line.rstrip() for text in log for line in text.splitlines()]
    source, complaint = "", ""
    for line in lines:
        if line.startswith("; "):
            source = line[2:]
        elif re.match(r"(processed \d+ insns|libbpf:|-- END|verification time|stack depth)", line):
            continue
        elif line.strip() and not re.match(r"\s*\d+: |\s*from \d+|R\d+\w*=", line):
            complaint = line.strip()
    if source:
        return f"{complaint} (at `{source}`)"
    return "; ".join(line for line in lines if line)[-300:]


class Object:
    """A loaded BPF object, of which only `programs` (None: all) are verified and loaded.

    Maps that are pinned under `pins` are taken over, the others are pinned there. Before anything is loaded, a map that
    `sizes` or `needed` names and the object has not raises DataPlaneError: the object was built from older sources.

    A pinned map of another size or layout is not taken over; it is in `superseded`. It keeps its size if its entries would
    not fit. If a hash table has another layout, none is taken over but those in `kept`: their entries belong together,
    with the arrays that tell of them.
    """

    BESIDE = "+new"  # ends the name of a pin that is to take the place of an earlier one

    def __init__(
        self,
        path: Path,
        sizes: dict[str, int],
        pins: Path | None,
        *,
        programs: tuple[str, ...] | None = None,
        needed: Collection[str] = (),
        kept: Collection[str] = (),
        shared: "Object | None" = None,
    ) -> None:
        """`shared`: another object whose maps are this one's too, by their names, and which closes this one with itself."""
        self._sharing: list[Object] = []
        self.maps: dict[str, Map] = {}
        self._path = path
        self.superseded: dict[str, Map] = {}
        self.incomparable: set[str] = set()  # those of them whose entries cannot be copied
        if not path.exists():
            raise DataPlaneError(f"{path} is missing: build it with `python -m locum.dataplane.build`")
        lib = library()
        log_lines.clear()
        self._handle = lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._handle:
            raise DataPlaneError(f"{path}: {os.strerror(ctypes.get_errno())}")
        handles = {}
        handle = lib.bpf_object__next_map(self._handle, None)
        while handle:
            handles[lib.bpf_map__name(handle).decode()] = handle
            handle = lib.bpf_object__next_map(self._handle, handle)
        missing = {*sizes, *needed} - handles.keys()
        if missing:
            self.close()
            raise self._outdated(f"table {', '.join(sorted(missing))}")
        common = handles.keys() & shared.maps.keys() if shared is not None else set()
        for name in common:
            assert shared is not None
            checked(lib.bpf_map__reuse_fd(handles[name], shared.maps[name].fd), f"table {name}")
        own = {name: handle for name, handle in handles.items() if name not in common}
        self._find_pinned(own, sizes, pins, kept)
        for name, handle in handles.items():
            if pins is not None and name not in self.superseded:
                place = os.fsencode(pins / name)
                checked(lib.bpf_map__set_pin_path(handle, place), f"pin {pins / name}")
        program = lib.bpf_object__next_program(self._handle, None)
        while program:
            wanted = programs is None or lib.bpf_program__name(program).decode() in programs
            lib.bpf_program__set_autoload(program, wanted)
            program = lib.bpf_object__next_program(self._handle, program)
        result = lib.bpf_object__load(self._handle)
        if result < 0:
            number = ctypes.get_errno() or -result
            log = list(log_lines)
            self.close()
            if number == errno.EPERM or (number == errno.EACCES and not any("insns" in text for text in log)):
                raise DataPlaneError(
                    "loading eBPF is not permitted; this needs root, or CAP_BPF and CAP_NET_ADMIN"
                )
            raise DataPlaneError(f"the kernel refused {path.name}: {verifier_message(log)}")
        self.maps = {name: Map(name, lib.bpf_map__fd(handle)) for name, handle in handles.items()}
        if shared is not None:
            shared._sharing.append(self)

    def _find_pinned(
        self, handles: dict[str, int], sizes: dict[str, int], pins: Path | None, kept: Collection[str]
    ) -> None:
        """Set the size of each map, and find the pinned ones that cannot be taken over."""
        lib = library()
        pinned_maps: dict[str, Map] = {}
        for name in handles if pins is not None else ():
            assert pins is not None
            (pins / f"{name}{self.BESIDE}").unlink(
                missing_ok=True
            )  # of a replacement that did not come to its end
            if (pins / name).exists():
                pinned_maps[name] = Map(name, pinned(pins / name))
        types = self._types()
        relaid = {name for name, found in pinned_maps.items() if not _alike(found, handles[name], types)}
        self.relaid = any(lib.bpf_map__type(handles[name]) == HASH for name in relaid)
        if self.relaid:
            own = {name for name, found in pinned_maps.items() if found.type == HASH or name in _OF_ENTRIES}
            relaid |= own - {*kept}
        for name, handle in handles.items():
            entries = sizes.get(name, lib.bpf_map__max_entries(handle))
            earlier = pinned_maps.get(name)
            if earlier is not None and name not in relaid and earlier.max_entries > entries:
                full = earlier.type == HASH and len(earlier.items()) > entries
                entries = earlier.max_entries if full else entries
            if earlier is not None and (name in relaid or earlier.max_entries != entries):
                self.superseded[name] = earlier
            elif earlier is not None:
                os.close(earlier.fd)
            checked(lib.bpf_map__set_max_entries(handle, entries), f"size of table {name}")
        self.incomparable = relaid

    def _types(self) -> Types | None:
        """The types of the object file; None if it has none."""
        lib, size = library(), ctypes.c_uint32()
        btf = lib.bpf_object__btf(self._handle)
        data = lib.btf__raw_data(btf, ctypes.byref(size)) if btf else None
        return Types(ctypes.string_at(data, size.value)) if data else None

    def _outdated(self, lacking: str) -> DataPlaneError:
        return DataPlaneError(
            f"{self._path} has no {lacking}: it was built from older sources; run `make setup` to build it again"
        )

    def program(self, name: str) -> int:
        """File descriptor of a program."""
        return int(library().bpf_program__fd(self.program_handle(name)))

    def program_handle(self, name: str) -> int:
        """The program as libbpf has it (struct bpf_program)."""
        found = library().bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise self._outdated(f"program {name}")
        return int(found)

    def close(self) -> None:
        """Let go of programs and maps; what is pinned, or attached, stays. Objects that share the maps do the same."""
        for other in self._sharing:
            other.close()
        if self._handle:
            library().bpf_object__close(self._handle)
            self._handle = None


def _alike(found: Map, handle: int, types: Types | None) -> bool:
    """True if the pinned map has the kind, keys and values of the object's."""
    lib = library()
    shape = (
        lib.bpf_map__type(handle),
        lib.bpf_map__key_size(handle),
        lib.bpf_map__value_size(handle),
        lib.bpf_map__map_flags(handle),
    )
    if shape != (found.type, found.key_size, found.value_size, found.flags):
        return False
    key, value = lib.bpf_map__btf_key_type_id(handle), lib.bpf_map__btf_value_type_id(handle)
    layout = found.layout()
    if layout is None or types is None or not (key and value):
        return True  # nothing more is known of one of them
    return layout == (types.layout(key), types.layout(value))
