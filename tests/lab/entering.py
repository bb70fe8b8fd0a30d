"""A test's own sockets in the network of a lab's node."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

from locum.lab.world import Lab

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(lab: Lab, node: str) -> Iterator[None]:
    """This thread is in the node's network for a while."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(lab.place.namespace_path(node), os.O_RDONLY)
    try:
        assert _libc.setns(there, 0) == 0
        yield
    finally:
        assert _libc.setns(before, 0) == 0
        os.close(there)
        os.close(before)
