"""A program at the egress of this process's control group (version 2)."""

import ctypes
import errno
import os
from pathlib import Path

from locum.dataplane.kernel.libbpf import DataPlaneError, library

MOUNTS, OWN = Path("/proc/self/mountinfo"), Path("/proc/self/cgroup")
MISSING = (
    "there is no control group file system (version 2): mount one with `mount -t cgroup2 none /sys/fs/cgroup`"
)


class ControlGroup:
    """`program` is a handle of libbpf (bpf_program). The link ends with this process."""

    def __init__(self, program: int) -> None:
        self._program = program
        self._links: dict[Path, int] = {}
        self.follow()

    def follow(self) -> None:
        """Attach where this process is now, and keep the earlier places: sockets stay where they were made.

        Raises DataPlaneError.
        """
        place = own_directory()
        if place in self._links:
            return
        try:
            group = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DataPlaneError(f"control group {place}: {error.strerror}") from error
        try:
            link = library().bpf_program__attach_cgroup(self._program, group)
        finally:
            os.close(group)
        if not link:
            number = ctypes.get_errno()
            if number in (errno.EPERM, errno.EACCES):
                raise DataPlaneError(
                    f"control group {place}: another program there forbids more; it was attached without"
                    " BPF_F_ALLOW_MULTI, or this process lacks CAP_NET_ADMIN"
                )
            raise DataPlaneError(f"control group {place}: {os.strerror(number)}")
        self._links[place] = link

    def close(self) -> None:
        """Detach."""
        for link in self._links.values():
            library().bpf_link__destroy(link)
        self._links.clear()


def own_directory(mounts: Path = MOUNTS, own: Path = OWN) -> Path:
    """The directory of this process's control group. Raises DataPlaneError if it is not to be seen."""
    inside = next((line[3:] for line in own.read_text().splitlines() if line.startswith("0::")), None)
    if inside is None:
        raise DataPlaneError(MISSING)
    for line in mounts.read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[:1] != ["cgroup2"]:
            continue
        root, point = (word.replace("\\040", " ") for word in before.split()[3:5])
        if inside == root or inside.startswith(root.rstrip("/") + "/"):
            return Path(point) / inside[len(root.rstrip("/")) :].lstrip("/")
    raise DataPlaneError(MISSING)
