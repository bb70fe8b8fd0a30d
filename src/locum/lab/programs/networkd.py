"""Debian's systemd-networkd as a process of one node: it has mounts of its own, so that nothing of the machine is touched."""

from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.processes import Processes, Program

DAEMON = Path("/lib/systemd/systemd-networkd")
_USER = "systemd-network"
# /sys without write access tells it that there is no udev to wait for.
_SCRIPT = f"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /etc/systemd
mkdir /etc/systemd/network
cp "$1"/*.network /etc/systemd/network/
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R {_USER}:{_USER} /run/systemd
mount -o remount,ro,bind /sys
exec {DAEMON}
"""


def start(processes: Processes, node: str, folder: Path, files: dict[str, str]) -> Program:
    """Start it at a node with these .network files, by name; they are written to `folder`, which is made.

    Raises LabError where it is not installed.
    """
    if not DAEMON.exists():
        raise LabError(f"{DAEMON} is missing: apt-get install systemd")
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text)
    command = ["unshare", "--mount", "sh", "-c", _SCRIPT, "networkd", str(folder)]
    return processes.start(
        node,
        f"networkd-{node}",
        command,
        environment={"SYSTEMD_LOG_TARGET": "console", "SYSTEMD_LOG_LEVEL": "debug"},
    )
