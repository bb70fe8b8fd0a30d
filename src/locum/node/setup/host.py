"""Facts of this host for `locum doctor`; nothing is changed."""

import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from locum.node.setup.findings import Facts

SERVER = Path("/etc/locum/server.toml")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_SECONDS = 10.0


def facts(server: bool) -> Facts:
    """Read what this host has; `server` if it is or will be one."""
    return Facts(
        root=os.geteuid() == 0,
        libbpf=_libbpf(),
        wireguard_tools=shutil.which("wg") is not None,
        wireguard=_wireguard(),
        server=server,
        forwarding=_forwarding(),
        ruleset=_ruleset() if server else (),
    )


def _libbpf() -> bool:
    try:
        ctypes.CDLL("libbpf.so.1")
    except OSError:
        return False
    return True


def _wireguard() -> bool:
    if Path("/sys/module/wireguard").exists() or shutil.which("wireguard-go") is not None:
        return True
    return _output("modprobe", "--dry-run", "--quiet", "wireguard") is not None


def _forwarding() -> bool | None:
    try:
        return FORWARDING.read_text().strip() != "0"
    except OSError:
        return None


def _ruleset() -> Sequence[Mapping[str, Any]] | None:
    if shutil.which("nft") is None:
        return ()
    text = _output("nft", "-j", "list", "ruleset")
    if text is None:
        return None
    try:
        return list(json.loads(text)["nftables"])
    except (ValueError, KeyError, TypeError):
        return None


def _output(*command: str) -> str | None:
    """The text that a command prints; None if it fails, is missing or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
