"""Hosts of a lab that look like fresh machines: files, host name, pins and control groups of their own.

A command that configures a host, such as `locum server init`, writes to /etc and /run as on a real machine. Each such host has
a mount namespace in which these are layers over the machine's own, so that nothing is written outside and all of it is gone
with the host's last process. There is no service manager and no D-Bus in it.
"""

import os
import subprocess
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.network.place import CGROUPS, LabPlace

LAYERED = ("etc", "run", "var")
"""Directories of the file system's root with a layer of the host's own."""

_PREPARE = """
set -e
mount --make-rprivate /
mount -t tmpfs none /mnt
for name in $0; do
    mkdir -p "/mnt/$name/upper" "/mnt/$name/work"
    mount -t overlay none -o "lowerdir=/$name,upperdir=/mnt/$name/upper,workdir=/mnt/$name/work" "/$name"
done
rm -rf /run/systemd /run/dbus /run/locum /run/wireguard
rm -rf /etc/locum /var/lib/locum /etc/wireguard
mount -t sysfs none /sys
mount -t bpf none /sys/fs/bpf
mount -t cgroup2 none /sys/fs/cgroup
hostname "$1"
echo ready
exec sleep infinity
"""


def _cgroup_root() -> Path:
    for root in (CGROUPS / "unified", CGROUPS):
        if (root / "cgroup.procs").exists():
            return root
    raise LabError("this machine has no control groups of version 2")


def _pid_file(place: LabPlace, node: str) -> Path:
    return place.path / "machines" / node


def cgroup(place: LabPlace, node: str) -> Path:
    """The control group that all programs of such a host are in."""
    return _cgroup_root() / place.machine_group(node)


def make(place: LabPlace, node: str) -> None:
    """Make a node's network namespace, which exists, the one of a fresh machine. Raises LabError."""
    group = cgroup(place, node)
    group.mkdir()
    own = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    command = ["unshare", "--mount", "--uts", "--cgroup", "--", "sh", "-c", _PREPARE, " ".join(LAYERED), node]
    keeper = subprocess.Popen(
        ["sh", "-c", own, "sh", "nsenter", f"--net={place.namespace_path(node)}", "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert keeper.stdout is not None and keeper.stderr is not None
    if keeper.stdout.readline() != "ready\n":
        raise LabError(f"cannot make the machine {node}: {keeper.stderr.read().strip()}")
    file = _pid_file(place, node)
    file.parent.mkdir(exist_ok=True)
    file.write_text(str(keeper.pid))


def enter(place: LabPlace, node: str) -> list[str] | None:
    """The prefix of commands on such a host, which have its files; None for a node that has only a network of its own."""
    try:
        pid = _pid_file(place, node).read_text()
    except FileNotFoundError:
        return None
    own = f'echo $$ > "{cgroup(place, node)}/cgroup.procs" && exec nsenter "$@"'
    ways = ["--net", "--mount", "--uts", "--cgroup"]
    return ["sh", "-c", own, "sh", "--target", pid, *ways, f"--wd={os.getcwd()}", "--"]
