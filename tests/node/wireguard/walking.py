"""A server and a device that walks between two networks behind NATs, with real daemons.

sv 198.51.100.2 -- core -- 203.0.113.2 home (NAT) 192.168.1.1 -- wlan0 dv eth1 -- 192.168.2.1 cafe (NAT) 203.0.113.6 -- core
"""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from locum.node.config.wireguard.values import public_key_of
from locum.node.control.client import NodeClient, NodeUnreachable
from locum.node.wireguard.key_change import new_private_key
from tests.node.conftest import Namespace, join

SERVER, DEVICE = "10.77.1.1", "10.77.1.2"
_numbers = itertools.count()
_NAT = (
    'table ip nat {{ chain post {{ type nat hook postrouting priority srcnat; oifname "{}" masquerade; }}; }}'
)


class Walk:
    """The namespaces, the files and the daemons `sv` and `dv`."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        self.folder = folder
        self.spaces = {name: make(name) for name in ("sv", "core", "home", "cafe", "dv")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.interfaces = {name: f"lw{os.getpid()}{next(_numbers)}" for name in ("sv", "dv")}
        self._links()
        self.bpf = folder / "bpf"
        self.bpf.mkdir()
        subprocess.run(["mount", "-t", "bpf", "none", str(self.bpf)], check=True)
        self.keys = {name: new_private_key() for name in ("sv", "dv")}
        for name, key in self.keys.items():
            (folder / f"{name}.key").touch(mode=0o600)
            (folder / f"{name}.key").write_text(key + "\n")
        self.configure("sv", f"{SERVER}/24", "listen_port = 51820", "dv", DEVICE)
        self.configure(
            "dv", f"{DEVICE}/24", "", "sv", SERVER, 'endpoint = "198.51.100.2:51820"\nkeepalive = 20'
        )

    def _links(self) -> None:
        core, home, cafe, dv = (self.spaces[name] for name in ("core", "home", "cafe", "dv"))
        join(self.spaces["sv"], "eth0", core, "sv")
        join(home, "wan", core, "home")
        join(cafe, "wan", core, "cafe")
        join(home, "lan", dv, "wlan0")
        join(cafe, "lan", dv, "eth1")
        for name, link, address in (
            ("sv", "eth0", "198.51.100.2/24"), ("core", "sv", "198.51.100.1/24"), ("core", "home", "203.0.113.1/30"),
            ("home", "wan", "203.0.113.2/30"), ("core", "cafe", "203.0.113.5/30"), ("cafe", "wan", "203.0.113.6/30"),
            ("home", "lan", "192.168.1.1/24"), ("cafe", "lan", "192.168.2.1/24"),
        ):  # fmt: skip
            self.spaces[name].ip(f"addr add {address} dev {link}")
        self.spaces["sv"].ip("route add default via 198.51.100.1")
        home.ip("route add default via 203.0.113.1")
        cafe.ip("route add default via 203.0.113.5")
        for space in (core, home, cafe):
            space.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for space in (home, cafe):
            space.run("nft", _NAT.format("wan"))
            for timer in ("udp_timeout", "udp_timeout_stream"):
                space.run("sysctl", "-qw", f"net.netfilter.nf_conntrack_{timer}=30")
        dv.ip("link set eth1 down")
        self.enter("home")

    def enter(self, network: str) -> None:
        """The device gets an address and a default route there, better than those it has."""
        link, number = {"home": ("wlan0", 1), "cafe": ("eth1", 2)}[network]
        self.spaces["dv"].ip(f"link set {link} up")
        self.spaces["dv"].ip(f"addr add 192.168.{number}.9/24 dev {link}")
        metric = 200 - next(_numbers)
        self.spaces["dv"].ip(f"route add default via 192.168.{number}.1 dev {link} metric {metric}")

    def leave(self, network: str) -> None:
        """The link goes down, and the address goes with it."""
        link = {"home": "wlan0", "cafe": "eth1"}[network]
        self.spaces["dv"].ip(f"link set {link} down")
        self.spaces["dv"].ip(f"addr flush dev {link}")

    def configure(
        self, name: str, address: str, more: str, peer: str, peer_address: str, of_peer: str = ""
    ) -> None:
        text = f"""[node]
name = "{name}"
interfaces = ["{"eth0" if name == "sv" else "wlan0"}"]
state_dir = "{self.folder}/state"
run_dir = "{self.folder}/run"
bpf_dir = "{self.bpf}"
log_events = "{self.folder}/{name}.jsonl"

[wireguard]
interface = "{self.interfaces[name]}"
private_key_file = "{self.folder}/{name}.key"
address = "{address}"
{more}

[[wireguard.peer]]
public_key = "{public_key_of(self.keys[peer])}"
address = "{peer_address}"
{of_peer}
"""
        (self.folder / f"{name}.toml").write_text(text)

    def start(self, *names: str) -> None:
        for name in names:
            self.daemons[name] = subprocess.Popen(
                ["nsenter", f"--net={self.spaces[name].path}", sys.executable, "-m", "locum", "node", "run",
                 str(self.folder / f"{name}.toml")],
                stderr=(self.folder / f"{name}.err").open("ab"),
            )  # fmt: skip
        for name in names:
            self.until(lambda name=name: self.ask(name, "status"), f"{name} to start")  # type: ignore[misc]

    def ask(self, name: str, request: str, **arguments: Any) -> Any:
        try:
            with NodeClient(self.folder / "run" / f"{name}.sock") as client:
                return client.request(request, **arguments)
        except NodeUnreachable:
            assert self.daemons[name].poll() is None, self.complaints()
            return None

    def until(self, true: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        end = time.monotonic() + seconds
        while not (found := true()):
            assert time.monotonic() < end, f"waited in vain for {what}\n{self.complaints()}"
            time.sleep(0.02)
        return found

    def complaints(self) -> str:
        return "\n".join(path.read_text() for path in self.folder.glob("*.err"))

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        path = self.folder / f"{name}.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wg(self, name: str, *arguments: str) -> str:
        return self.spaces[name].run("wg", "show", self.interfaces[name], *arguments).stdout

    def back(self, number: int) -> dict[str, Any]:
        """Detail of the device's event of that number, from 1 on, which says that its server answers."""

        def found() -> dict[str, Any] | None:
            events = self.events("dv", "wireguard-back")
            return events[number - 1]["detail"] if len(events) >= number else None

        return dict(self.until(found, f"answer {number} of the server"))

    def ping(self, source: str, target: str, count: int = 3) -> bool:
        done = self.spaces[source].run("ping", "-c", str(count), "-i", "0.05", "-W", "2", target, check=False)
        return done.returncode == 0

    def lost(self, seconds: float, during: Callable[[], None]) -> int:
        """Pings lost from device to server, at 100 a second, while something happens after a third of the time."""
        count = int(seconds * 100)
        running = subprocess.Popen(
            ["nsenter", f"--net={self.spaces['dv'].path}", "ping", "-q", "-c", str(count), "-i", "0.01", "-W", "2", SERVER],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(seconds / 3)
        during()
        said = running.communicate(timeout=seconds + 20)[0]
        received = re.search(r"(\d+) received", said)
        assert received is not None, said
        return count - int(received[1])

    def kill(self, name: str) -> None:
        self.daemons[name].kill()
        self.daemons.pop(name).wait()

    def terminate(self, name: str) -> int:
        daemon = self.daemons.pop(name)
        daemon.send_signal(signal.SIGTERM)
        return daemon.wait(20)

    def close(self) -> None:
        for name in tuple(self.daemons):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.terminate(name)
        for name, interface in self.interfaces.items():
            self.spaces[name].run("ip", "link", "del", interface, check=False)
        subprocess.run(["umount", "-l", str(self.bpf)], check=False)
