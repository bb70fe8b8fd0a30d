"""The end of one of several nodes in a network namespace: settings that others need stay, and their records go to another."""

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pyroute2 import IPRoute

from locum.dataplane.kernel.device import device_name
from locum.dataplane.kernel.host.numbering import others
from locum.dataplane.kernel.host.sysctls import Sysctls, put_record, shared
from locum.dataplane.kernel.libbpf import Map, pinned

_LINKS, _RECORDS = "links", "maps/found_sysctls"


def hand_over(route: IPRoute, directory: Path, device: int, sysctls: Sysctls) -> None:
    """Restore the sysctls of the node with this directory and re-injection device, but for those that others need.

    A node whose directory is below another bpffs is no heir; what it may need stays as it is.
    """
    remaining = others(route, device)
    for heir in _heirs(directory, remaining):
        with _records(heir) as records:
            sysctls.bequeath(records, _interfaces(heir))
    sysctls.restore(spare=lambda name: bool(remaining) and shared(name, ()))


def give_to_heir(route: IPRoute, directory: Path, device: int, name: str, found: str) -> bool:
    """Record the found value of a sysctl at another node that needs it; false if there is none."""
    for heir in _heirs(directory, others(route, device)):
        if shared(name, _interfaces(heir)):
            with _records(heir) as records:
                put_record(records, name, found)
            return True
    return False


def _heirs(directory: Path, devices: Collection[str]) -> list[Path]:
    """Directories of the nodes in this namespace, whose re-injection devices these are."""
    return [
        heir
        for heir in sorted(directory.parent.iterdir())
        if heir != directory and _device(heir) in devices and (heir / _RECORDS).exists()
    ]


@contextmanager
def _records(heir: Path) -> Iterator[Map]:
    """The node's records of sysctls as they were found."""
    fd = pinned(heir / _RECORDS)
    try:
        yield Map("found_sysctls", fd)
    finally:
        os.close(fd)


def _device(heir: Path) -> str:
    """The re-injection device of the node with this directory, in whose name a colon stands for a dot."""
    return device_name(heir.name.replace(":", "."))


def _interfaces(heir: Path) -> set[str]:
    """Interfaces with pinned programs of the node."""
    names = (path.name.rpartition("-")[0] for path in (heir / _LINKS).iterdir())
    return {name.replace(":", ".") for name in names}
