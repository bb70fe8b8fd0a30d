"""Another access node, with a valid association, that makes false claims to one of the nodes.

Run inside its namespace: `python -m locum.lab.forging.neighbour FILE`. Its OSCORE context is genuine, so its messages pass every
signature; they must fail because of their content. Prints the bodies of the answers in hex, as a JSON list.
"""

import asyncio
import json
import sys
from collections.abc import Iterable
from ipaddress import IPv4Address
from pathlib import Path

from locum.node.coap.endpoint import CoapEndPoint
from locum.node.config.settings import ControlAssociation, ControlSettings
from locum.node.store import Store

PORT = 5683
PATIENCE = 10.0


async def say_all(settings: ControlSettings, messages: Iterable[tuple[str, bytes]], store: Path) -> list[str]:
    """Say each of these (path, body) to the peer of the only association. Raises AskFailed when one is not answered."""
    opened = Store(store)
    end = CoapEndPoint(settings, opened, _nobody, lambda _reason: None)
    await end.open()
    peer = settings.associations[0].peer
    try:
        return [(await end.ask(peer, path, body, PATIENCE)).hex() for path, body in messages]
    finally:
        await end.close()
        await opened.close()


async def _nobody(_path: str, _body: bytes, _association: ControlAssociation) -> bytes:
    """Refuse requests: none is expected here."""
    return b""


def main(file: Path) -> None:
    """The file is JSON: address, peer, sender_id, recipient_id, secret_file, store, messages: [[path, body in hex]]."""
    given = json.loads(file.read_text())
    association = ControlAssociation(
        IPv4Address(given["peer"]),
        bytes.fromhex(given["sender_id"]),
        bytes.fromhex(given["recipient_id"]),
        bytes.fromhex(Path(given["secret_file"]).read_text().strip()),
        b"",
        (),
    )
    settings = ControlSettings(IPv4Address(given["address"]), PORT, (association,))
    messages = [(path, bytes.fromhex(body)) for path, body in given["messages"]]
    print(json.dumps(asyncio.run(say_all(settings, messages, Path(given["store"])))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
