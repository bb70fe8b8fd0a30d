"""libbpf.so.1 through ctypes: objects, maps, links, pins, the ring buffer and test runs.

Bytes and file descriptors only; it knows nothing of the maps' meaning.
"""

import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Callable
from pathlib import Path

from locum.dataplane.kernel.btf import Layout, Types

NOEXIST = 1
HASH = 1  # BPF_MAP_TYPE_HASH
WARNING = 0  # LIBBPF_WARN
READ_BYTES = 1 << 20  # values of a map that are read in one call
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}  # numbers of the system call
_MEMBARRIER_GLOBAL = 1
_GRACE = 0.05  # seconds; far longer than a program runs


class DataPlaneError(RuntimeError):
    """An error of the kernel; the message gives the reason and a remedy."""


class TestRunOptions(ctypes.Structure):
    """`struct bpf_test_run_opts`."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

log_lines: list[str] = []


def _collect(level: int, form: bytes, arguments: int) -> int:
    if level > WARNING:
        return 0
    line = ctypes.create_string_buffer(1 << 22)  # the reason for a refusal is at the end of the log
    _libc.vsnprintf(line, len(line), form, ctypes.c_void_p(arguments))
    log_lines.append(line.value.decode(errors="replace"))
    return 0


_collector = _PRINT(_collect)
_libc = ctypes.CDLL(None, use_errno=True)


def _open_library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise DataPlaneError("libbpf.so.1 is missing: install the package libbpf1") from error
    pointer, number = ctypes.c_void_p, ctypes.c_int
    signatures = {
        "bpf_object__open_file": (pointer, [ctypes.c_char_p, pointer]),
        "bpf_object__load": (number, [pointer]),
        "bpf_object__close": (None, [pointer]),
        "bpf_object__next_map": (pointer, [pointer, pointer]),
        "bpf_object__next_program": (pointer, [pointer, pointer]),
        "bpf_program__name": (ctypes.c_char_p, [pointer]),
        "bpf_program__set_autoload": (number, [pointer, ctypes.c_bool]),
        "bpf_map__name": (ctypes.c_char_p, [pointer]),
        "bpf_map__fd": (number, [pointer]),
        "bpf_map__reuse_fd": (number, [pointer, number]),
        "bpf_map__set_max_entries": (number, [pointer, ctypes.c_uint32]),
        "bpf_map__set_pin_path": (number, [pointer, ctypes.c_char_p]),
        "bpf_map__type": (number, [pointer]),
        "bpf_map__key_size": (ctypes.c_uint32, [pointer]),
        "bpf_map__value_size": (ctypes.c_uint32, [pointer]),
        "bpf_map__max_entries": (ctypes.c_uint32, [pointer]),
        "bpf_map__map_flags": (ctypes.c_uint32, [pointer]),
        "bpf_map__btf_key_type_id": (ctypes.c_uint32, [pointer]),
        "bpf_map__btf_value_type_id": (ctypes.c_uint32, [pointer]),
        "bpf_object__btf": (pointer, [pointer]),
        "btf__raw_data": (pointer, [pointer, ctypes.POINTER(ctypes.c_uint32)]),
        "bpf_btf_get_fd_by_id": (number, [ctypes.c_uint32]),
        "bpf_object__find_program_by_name": (pointer, [pointer, ctypes.c_char_p]),
        "bpf_program__fd": (number, [pointer]),
        "bpf_program__attach_cgroup": (pointer, [pointer, number]),
        "bpf_link__destroy": (number, [pointer]),
        "bpf_prog_attach": (number, [number, number, number, ctypes.c_uint]),
        "bpf_obj_get": (number, [ctypes.c_char_p]),
        "bpf_obj_pin": (number, [number, ctypes.c_char_p]),
        "bpf_obj_get_info_by_fd": (number, [number, pointer, pointer]),
        "bpf_link_detach": (number, [number]),
        "bpf_prog_get_fd_by_id": (number, [ctypes.c_uint32]),
        "bpf_link_update": (number, [number, number, pointer]),
        "bpf_map_update_elem": (number, [number, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]),
        "bpf_map_lookup_elem": (number, [number, ctypes.c_char_p, ctypes.c_char_p]),
        "bpf_map_delete_elem": (number, [number, ctypes.c_char_p]),
        "bpf_map_update_batch": (number, [number, ctypes.c_char_p, ctypes.c_char_p, pointer, pointer]),
        "bpf_map_delete_batch": (number, [number, ctypes.c_char_p, pointer, pointer]),
        "bpf_map_lookup_batch": (
            number,
            [number, pointer, pointer, pointer, pointer, pointer, pointer],
        ),
        "bpf_prog_test_run_opts": (number, [number, pointer]),
        "ring_buffer__new": (pointer, [number, _SAMPLE, pointer, pointer]),
        "ring_buffer__consume": (number, [pointer]),
        "ring_buffer__epoll_fd": (number, [pointer]),
        "ring_buffer__free": (None, [pointer]),
        "libbpf_num_possible_cpus": (number, []),
        "libbpf_set_print": (pointer, [_PRINT]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.libbpf_set_print(_collector)
    return library


_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """libbpf, opened once. Raises DataPlaneError when it is not installed."""
    global _library
    if _library is None:
        _library = _open_library()
    return _library


def possible_cpus() -> int:
    return int(library().libbpf_num_possible_cpus())


def checked(result: int, doing: str) -> int:
    """`result` of a libbpf call, or DataPlaneError with the reason."""
    if result >= 0:
        return result
    number = ctypes.get_errno() or -result
    if number in (errno.EPERM, errno.EACCES):
        raise DataPlaneError(f"{doing}: not permitted; this needs root, or CAP_BPF and CAP_NET_ADMIN")
    raise DataPlaneError(f"{doing}: {os.strerror(number)}")


def wait_for_programs() -> None:
    """Return when no program that runs now runs any more: some milliseconds, an RCU grace period (membarrier(2))."""
    number = _MEMBARRIER.get(platform.machine())
    if number is None or _libc.syscall(number, _MEMBARRIER_GLOBAL, 0, 0) < 0:
        time.sleep(_GRACE)


class Map:
    """One map: bytes in, bytes out."""

    def __init__(self, name: str, fd: int) -> None:
        self.name, self.fd = name, fd
        info = (ctypes.c_uint32 * 64)()
        size = ctypes.c_uint32(ctypes.sizeof(info))
        checked(library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)), f"map {name}")
        self.type, _, self.key_size, self.value_size, self.max_entries, self.flags = info[0:6]
        self._types = tuple(info[16:19])  # id of the BTF, and the types of key and value in it
        self._lib = library()

    def layout(self) -> tuple[Layout, Layout] | None:
        """Layouts of key and value; None if the map does not say."""
        number, key, value = self._types
        if not (number and key and value):
            return None
        fd = checked(library().bpf_btf_get_fd_by_id(number), f"types of table {self.name}")
        try:
            types = Types(_btf_bytes(fd))
        finally:
            os.close(fd)
        return types.layout(key), types.layout(value)

    def put(self, key: bytes, value: bytes, flags: int = 0) -> None:
        """Add or replace; with NOEXIST an entry that is there is left alone."""
        result = self._lib.bpf_map_update_elem(self.fd, key, value, flags)
        if result < 0:
            number = ctypes.get_errno() or -result
            if number == errno.EEXIST and flags == NOEXIST:
                return
            if number in (errno.E2BIG, errno.ENOSPC):
                raise DataPlaneError(
                    f"the table {self.name} is full ({self.max_entries} entries): raise its limit"
                )
            checked(result, f"write to table {self.name}")

    def put_many(self, entries: list[tuple[bytes, bytes]], flags: int = 0) -> None:
        """The same for many, in few system calls."""
        if flags or len(entries) < 2:
            for key, value in entries:
                self.put(key, value, flags)
            return
        keys = b"".join([key for key, _ in entries])
        values = b"".join([value for _, value in entries])
        count = ctypes.c_uint32(len(entries))
        result = self._lib.bpf_map_update_batch(self.fd, keys, values, ctypes.byref(count), None)
        if result < 0:
            for key, value in entries[count.value :] if count.value < len(entries) else entries:
                self.put(key, value)

    def get(self, key: bytes) -> bytes | None:
        value = ctypes.create_string_buffer(self.value_size)
        if self._lib.bpf_map_lookup_elem(self.fd, key, value) < 0:
            return None
        return value.raw

    def get_per_cpu(self, key: bytes) -> bytes:
        """The values of all CPUs of a per-CPU map, each padded to 8 bytes; zeros for a key that is not there."""
        value = ctypes.create_string_buffer((self.value_size + 7 & ~7) * possible_cpus())
        self._lib.bpf_map_lookup_elem(self.fd, key, value)
        return value.raw

    def sum_per_cpu(self, key: bytes) -> int:
        """The sum over all CPUs of a 64-bit value of a per-CPU map."""
        return sum(struct.unpack(f"{possible_cpus()}Q", self.get_per_cpu(key)))

    def delete(self, key: bytes) -> bool:
        return int(self._lib.bpf_map_delete_elem(self.fd, key)) == 0

    def delete_many(self, keys: list[bytes]) -> None:
        """Delete these keys in few system calls; missing ones are skipped."""
        if len(keys) < 2:
            for key in keys:
                self.delete(key)
            return
        count = ctypes.c_uint32(len(keys))
        if self._lib.bpf_map_delete_batch(self.fd, b"".join(keys), ctypes.byref(count), None) < 0:
            for key in keys[count.value :] if count.value < len(keys) else keys:
                self.delete(key)

    def items(self) -> list[tuple[bytes, bytes]]:
        """All entries; one that is deleted meanwhile is left out."""
        room = max(16, min(8192, READ_BYTES // self.value_size))
        found: list[tuple[bytes, bytes]] = []
        keys = ctypes.create_string_buffer(self.key_size * room)
        values = ctypes.create_string_buffer(self.value_size * room)
        token, following = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
        started = False
        while True:
            count = ctypes.c_uint32(room)
            result = self._lib.bpf_map_lookup_batch(
                self.fd, token if started else None, following, keys, values, ctypes.byref(count), None
            )
            number = (ctypes.get_errno() or -result) if result < 0 else 0
            if number not in (0, errno.ENOENT):
                checked(result, f"read table {self.name}")
            key_bytes, value_bytes = keys.raw, values.raw
            found += [
                (
                    key_bytes[i * self.key_size : (i + 1) * self.key_size],
                    value_bytes[i * self.value_size : (i + 1) * self.value_size],
                )
                for i in range(count.value)
            ]
            if number:
                return found
            token, following, started = following, token, True


def _btf_bytes(fd: int) -> bytes:
    """The bytes of a BTF that the kernel has."""
    data = ctypes.create_string_buffer(1)
    for _ in range(2):  # the first call tells the size
        info = (ctypes.c_uint64 * 4)(ctypes.addressof(data), len(data))  # struct bpf_btf_info
        size = ctypes.c_uint32(ctypes.sizeof(info))
        result = library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size))
        length = info[1] & 0xFFFFFFFF
        if length <= len(data):
            checked(result, "types of a table")
            break
        data = ctypes.create_string_buffer(length)
    return data.raw


class RingBuffer:
    """The consumer of a ring buffer map; `sample` is called with the bytes of each record, and answers whether to go on."""

    def __init__(self, fd: int, sample: Callable[[bytes], bool]) -> None:
        def take(_context: int | None, data: int, size: int) -> int:
            return 0 if sample(ctypes.string_at(data, size)) else -errno.ECANCELED

        self._callback = _SAMPLE(take)
        self._ring: int | None = library().ring_buffer__new(fd, self._callback, None, None)
        if not self._ring:
            raise DataPlaneError(f"ring buffer: {os.strerror(ctypes.get_errno())}")

    def fileno(self) -> int:
        return int(library().ring_buffer__epoll_fd(self._ring))

    def consume(self) -> bool:
        """Take records until there are no more, or `sample` ends it; returns true if there are no more."""
        result = library().ring_buffer__consume(self._ring)
        if result == -errno.ECANCELED:
            return False
        checked(result, "ring buffer")
        return True

    def close(self) -> None:
        if self._ring:
            library().ring_buffer__free(self._ring)
            self._ring = None


def pin(fd: int, path: Path) -> None:
    checked(library().bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def pinned(path: Path) -> int:
    """File descriptor of the object pinned at `path`."""
    return checked(library().bpf_obj_get(os.fsencode(path)), f"pin {path}")


def link_ifindex(fd: int) -> int:
    """Interface of a tcx link; 0 when the interface is gone."""
    info = (ctypes.c_uint32 * 32)()
    size = ctypes.c_uint32(ctypes.sizeof(info))
    checked(library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)), "link")
    return int(info[4])


def update_link(link: int, program: int) -> None:
    checked(library().bpf_link_update(link, program, None), "replace the program of a link")


class ProgramRun:
    """BPF_PROG_TEST_RUN of one program, with buffers that are used again. A packet starts with its Ethernet header."""

    CONTEXT = 192  # sizeof(struct __sk_buff)
    MARK = 8  # offset of its mark
    GSO_SIZE = 176  # in it

    def __init__(self, program: int) -> None:
        self.program = program
        self._out = ctypes.create_string_buffer(1 << 14)
        self._context = ctypes.create_string_buffer(self.CONTEXT)
        self._options = TestRunOptions(sz=ctypes.sizeof(TestRunOptions))
        self._run = library().bpf_prog_test_run_opts

    def run(
        self,
        packet: bytes,
        *,
        ifindex: int = 0,
        ingress_ifindex: int = 0,
        mark: int = 0,
        gso_size: int = 0,
        repeat: int = 1,
    ) -> tuple[int, bytes, bytes, int]:
        """(return value, packet after, `struct __sk_buff` after, nanoseconds of one run)."""
        context = bytearray(self.CONTEXT)
        struct.pack_into("I", context, self.MARK, mark)
        struct.pack_into("II", context, 36, ingress_ifindex, ifindex)
        struct.pack_into("I", context, self.GSO_SIZE, gso_size)
        options = self._options
        source = ctypes.create_string_buffer(bytes(context), self.CONTEXT)
        options.data_in = ctypes.cast(ctypes.c_char_p(packet), ctypes.c_void_p)
        options.data_size_in = len(packet)
        options.data_out = ctypes.cast(self._out, ctypes.c_void_p)
        options.data_size_out = len(self._out)
        options.ctx_in = ctypes.cast(source, ctypes.c_void_p)
        options.ctx_size_in = self.CONTEXT
        options.ctx_out = ctypes.cast(self._context, ctypes.c_void_p)
        options.ctx_size_out = self.CONTEXT
        options.repeat = repeat
        checked(self._run(self.program, ctypes.byref(options)), "test run")
        return (
            int(options.retval),
            self._out.raw[: options.data_size_out],
            self._context.raw,
            int(options.duration),
        )
