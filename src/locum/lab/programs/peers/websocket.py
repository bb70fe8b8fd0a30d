"""A stock WebSocket server at the correspondent and a stock client at the device, both with pings and time limits of their own.

Both are a few lines around Debian's python3-websockets, which sends and answers pings by itself.
"""

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab

PORT = 8080
PYTHON = "/usr/bin/python3"

SERVER = """
import asyncio, sys, websockets
clients = set()
async def serve(client, *_):
    clients.add(client)
    print("opened", flush=True)
    async for message in client:
        print("heard", message, flush=True)
    print("closed", client.close_code, flush=True)
async def main(port, interval, patience):
    async with websockets.serve(serve, "", port, ping_interval=interval, ping_timeout=patience):
        print("listens", flush=True)
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            websockets.broadcast(clients, line.strip())
asyncio.run(main(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])))
"""
CLIENT = """
import asyncio, sys, websockets
async def main(url, address, interval, patience):
    options = {"ping_interval": interval, "ping_timeout": patience, "local_addr": (address, 0)}
    async with websockets.connect(url, **options) as server:
        async for message in server:
            print(message, flush=True)
            await server.send(message)
asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
"""


@dataclass(slots=True)
class WebSockets:
    """Both ping each `interval` seconds, and close when there is no pong for `patience` seconds."""

    lab: Lab
    interval: float
    patience: float
    server: Program = field(init=False)
    client: Program = field(init=False)
    received: Path = field(init=False)

    def start(self) -> None:
        """Start both; returns when they are connected. Raises LabError."""
        times = (str(self.interval), str(self.patience))
        command = [PYTHON, "-c", SERVER, str(PORT), *times]
        self.server = self.lab.processes.start("cn", "websocket-server", command, stdin=subprocess.PIPE)
        wait_until("the WebSocket server to listen", lambda: "listens" in self.log)
        self.received = self.lab.output / "websocket-received"
        url = f"ws://{self.lab.topology.address4('cn')}:{PORT}/"
        with self.received.open("wb") as sink:
            command = [PYTHON, "-c", CLIENT, url, str(HOME_ADDRESS4), *times]
            self.client = self.lab.processes.start("mn", "websocket-client", command, stdout=sink.fileno())
        wait_until("the WebSocket to be open", lambda: "opened" in self.log)

    @property
    def log(self) -> list[str]:
        """Lines of the server."""
        return self.server.log.read_text(errors="replace").splitlines()

    @property
    def lines(self) -> list[str]:
        """Messages that the client has received."""
        return self.received.read_text().splitlines()

    @property
    def echoes(self) -> list[str]:
        """Messages that the client has sent back, as the server heard them."""
        return [line.removeprefix("heard ") for line in self.log if line.startswith("heard ")]

    def publish(self, text: str) -> None:
        """Have the server send a message."""
        assert self.server.process.stdin is not None
        self.server.process.stdin.write(text.encode() + b"\n")
        self.server.process.stdin.flush()

    def wait_for(self, text: str) -> None:
        """Wait until the client has this message, and the server its echo. Raises LabError."""
        wait_until(f"the message {text} and its echo", lambda: text in self.lines and text in self.echoes)
