"""The baseline of `registrations`: a bare asyncio UDP echo that checks a message's authenticator and signs its answer.

Run as `python -m bench.echo ADDRESS PORT KEY_FILE`; prints `ready` and answers until it is terminated. It keeps nothing, decides
nothing and stores nothing: no registration server in Python can avoid its work for a message.
"""

import asyncio
import socket
import sys
from pathlib import Path
from typing import cast

from bench.registrar import SPI
from locum.security.association import Association, digest, verify

_AUTHENTICATOR_BYTES = 32
_SO_RCVBUFFORCE, _BUFFER = 33, 4 << 20  # as much as the home agent's socket has
_ACCEPTED = b"\x03\x00"  # type and code of a registration reply


class Echo(asyncio.DatagramProtocol):
    """Answers requests signed with the association's key, with a new signature."""

    def __init__(self, association: Association) -> None:
        self._association = association

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where to answer."""
        self._transport = cast(asyncio.DatagramTransport, transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)

    def datagram_received(self, data: bytes, peer: tuple[str | int, ...]) -> None:
        """Check and answer one message."""
        covered, authenticator = data[:-_AUTHENTICATOR_BYTES], data[-_AUTHENTICATOR_BYTES:]
        if verify(self._association, covered, authenticator):
            answer = _ACCEPTED + covered[2:12] + covered[16:]  # a reply has no care-of address
            self._transport.sendto(answer + digest(self._association, answer), peer)


async def serve(address: str, port: int, association: Association) -> None:
    """Answer at `address`, for ever."""
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Echo(association), local_addr=(address, port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    key = bytes.fromhex(Path(sys.argv[3]).read_text())
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), Association(SPI, key)))
