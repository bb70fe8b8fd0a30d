"""Instructions that the verifier goes through: each start of a daemon pays for them, in tests as well."""

import ctypes
import struct

from locum.dataplane.kernel.libbpf import checked, library
from locum.dataplane.kernel.loading import Object
from locum.dataplane.layout.entries import PROGRAM as CHANGES
from locum.dataplane.limits import Limits
from locum.dataplane.plane import OBJECT

PROGRAMS = ("locum_ingress", "locum_egress", "locum_renewed", CHANGES)
BOUND = 100_000
"""Instructions that the verifier goes through for all programs of a daemon: some 67,000 here, 400,000 with static functions."""
_VERIFIED = 216  # offset of verified_insns in struct bpf_prog_info (Linux 5.16)


def _verified(program: int) -> int:
    """Instructions that the verifier went through when it loaded this program."""
    info = ctypes.create_string_buffer(256)
    size = ctypes.c_uint32(len(info))
    checked(library().bpf_obj_get_info_by_fd(program, info, ctypes.byref(size)), "program")
    return int(struct.unpack_from("I", info, _VERIFIED)[0])


def test_the_verifier_goes_through_each_function_few_times() -> None:
    """A static function is verified at each call in each state of its caller; a global one once (bpf/parse.h)."""
    loaded = Object(OBJECT, Limits(bindings=1024).sizes(), None, programs=PROGRAMS)
    try:
        spent = {name: _verified(loaded.program(name)) for name in PROGRAMS}
    finally:
        loaded.close()
    assert all(spent.values()), spent
    assert sum(spent.values()) <= BOUND, spent
