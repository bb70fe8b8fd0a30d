"""A co-located device behind a stock masquerade, its home agent, a correspondent, and a host in the visited network.

cn 10.1.0.2 -- 10.1.0.1 ha 10.2.0.1 -- 10.2.0.2 an (masquerade) 10.3.0.1 -- 10.3.0.4 mn (10.36.0.4, fd36::4)
"""

import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.node.conftest import Namespace
from tests.node.test_real_nodes import MN, World

VISITED, CORRESPONDENT, HOME, HOME6 = "10.3.0.4", "10.1.0.2", "10.36.0.4", "fd36::4"
MASQUERADE = "table ip nat {\n chain out {\n  type nat hook postrouting priority srcnat; oifname eth0 masquerade;\n }\n}\n"
DEVICE = MN.replace('links = ["radio0"]', 'links = ["radio0"]\nmode = "colocated"')


class Roaming(World):
    """The access node is a plain router with a masquerade."""

    def __init__(self, folder: Path, make: Callable[[str], Namespace]) -> None:
        self.make = make
        super().__init__(folder, make)

    def connect_agents(self, ha: Namespace, an: Namespace) -> None:
        super().connect_agents(ha, an)
        an.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        ha.run("sysctl", "-q", "net.ipv4.ip_forward=1")
        subprocess.run(
            ["nsenter", f"--net={an.path}", "nft", "-f", "-"], input=MASQUERADE, text=True, check=True
        )

    def visit(self) -> None:
        """Give the device an address and a default route in the visited network."""
        device = self.spaces["mn"]
        device.ip(f"addr add {VISITED}/24 dev radio0")
        device.ip("route add default via 10.3.0.1")

    def configure(self, keys: str, text: str = DEVICE) -> Path:
        """Write the device's file with these keys of [mobile_node]."""
        file = self.folder / "mn.toml"
        file.write_text(text.format(common=self.common("mn")) + keys)
        return file

    def begin(self) -> None:
        """Start home agent and device, until the device is registered."""
        self.start("ha")
        self.start("mn")
        self.until(self.registered, "the registration")

    def registered(self) -> bool:
        """True if the home agent has a binding."""
        return bool(self.care_of())

    def source(self, target: str, *options: str) -> str:
        """The source address and the device that the kernel chooses for packets to this target."""
        done = self.spaces["mn"].run("ip", "-o", "route", "get", target, *options, check=False)
        return done.stdout + done.stderr
