"""Peers of a proxy on this host's loopback, for tests."""

import asyncio
import socket

from tests.node.apps.driven import Driven


class Server:
    """A listener of the test, and its first connection."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]

    async def accept(self) -> "Peer":
        sock, _ = await asyncio.get_running_loop().sock_accept(self.socket)
        return Peer(sock)


class Peer:
    """The other end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        sock.setblocking(False)

    async def hears(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 1 << 20), 30)
            if not more:
                break
            data += more
        return data

    async def says(self, data: bytes) -> None:
        await asyncio.wait_for(asyncio.get_running_loop().sock_sendall(self.socket, data), 30)


async def dialled(port: int) -> Peer:
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    return Peer(sock)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


async def connected(driven: Driven, server: Server, number: int = 1) -> Peer:
    driven.do(["Connect", number, "127.0.0.1", server.port])
    peer = await server.accept()
    await driven.wait("Opened", connection=number, peer="127.0.0.1")
    return peer
