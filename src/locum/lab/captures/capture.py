"""Captures every node's packets to pcap files, by tcpdump, one process and one file a node.

Snapping keeps the files small and still holds every header and every registration whole. Segments that it cut short
are cut to their headers at the end (`trim.py`).
"""

import time
from pathlib import Path

from locum.lab.captures.trim import trim
from locum.lab.network.topology import Place, Topology
from locum.lab.processes import Processes, Program, wait_until

SNAP = 320
"""Bytes: Ethernet and two IPv6 headers, TCP with all options, or a whole registration with three authentications."""
READ_EVERY = 1.2
"""Seconds that tcpdump needs to read the kernel's ring; packets that it has not read at its end are lost."""


class Captures:
    """tcpdump on every node of a lab, all interfaces of it."""

    def __init__(self, processes: Processes, topology: Topology, folder: Path) -> None:
        self.folder = folder
        self.processes = processes
        self.nodes = [node.name for node in topology.nodes]
        self.routers = {node.name for node in topology.nodes if node.place is Place.ROUTER}
        self._running: list[Program] = []

    @property
    def files(self) -> dict[str, Path]:
        return {node: self.folder / f"{node}.pcap" for node in self.nodes}

    def start(self) -> None:
        """Returns when every capture listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for node, file in self.files.items():
            command = ["tcpdump", "-i", "any", "-n", "-U", "-Z", "root", "-B", "8192", "-s", str(SNAP)]
            if node in self.routers:
                command += ["-Q", "in"]  # a router forwards packets that came in; the next node has them too
            program = self.processes.start(node, f"tcpdump-{node}", [*command, "-w", str(file)])
            self._running.append(program)
        for program in self._running:
            wait_until(
                f"{program.name} to listen; {program.log}",
                lambda log=program.log: "listening on" in log.read_text(),  # type: ignore[misc]
            )

    def stop(self) -> None:
        """End the captures; their files are whole afterwards."""
        if self._running:
            time.sleep(READ_EVERY)
        for program in self._running:
            program.process.terminate()
        for program in self._running:
            program.stop()
        if self._running:
            for file in self.files.values():
                trim(file)
        self._running.clear()
