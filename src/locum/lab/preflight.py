"""Requirements of the lab on the machine, checked first, so that missing ones are named in one line."""

import os
import platform
import shutil
from pathlib import Path

from locum.lab.errors import LabError

TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "nsenter": "util-linux",
    "sysctl": "procps",
    "nft": "nftables",
    "ping": "iputils-ping",
    "tcpdump": "tcpdump",
    "tshark": "tshark",
    "nginx": "nginx-light",
    "curl": "curl",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "freeradius": "freeradius",
    "radclient": "freeradius-utils",
    "socat": "socat",
}
"""Command and the Debian package that has it."""


class MissingPrivilege(LabError):
    """The lab makes namespaces and loads programs into the kernel, which only root may do."""


def check() -> None:
    """Raises MissingPrivilege, or LabError naming the packages to install."""
    if platform.system() != "Linux":
        raise LabError(f"the lab runs on Linux (network namespaces, eBPF), not on {platform.system()}")
    if os.geteuid() != 0:
        raise MissingPrivilege("the lab makes network namespaces and loads eBPF programs: run it as root")
    os.environ["PATH"] = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    if missing:
        raise LabError(f"not installed: {', '.join(missing)}; run: apt-get install {' '.join(missing)}")
    if "\tbpf\n" not in Path("/proc/filesystems").read_text():
        raise LabError("this kernel has no bpf filesystem (CONFIG_BPF_SYSCALL)")
