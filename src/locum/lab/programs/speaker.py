"""Sends one control message under an association of its own: `python -m locum.lab.programs.speaker FROM TO ...`.

Arguments: FROM TO SENDER RECIPIENT KEY PATH BODY. FROM and TO are addresses, SENDER and RECIPIENT the identifiers of OSCORE in hex, KEY the file of the secret, PATH that of the
message, BODY its body in hex. The body of the answer goes to standard output likewise. A file beside KEY has the sequence numbers.
"""

import asyncio
import sys
from ipaddress import ip_address
from pathlib import Path

from locum.node.coap.endpoint import CoapEndPoint
from locum.node.config.settings import ControlAssociation, ControlSettings
from locum.node.store import Store

PATIENCE = 30.0
PORT = 5683


async def _nobody(_path: str, _body: bytes, _sender: ControlAssociation) -> bytes:
    return b""


async def speak(arguments: list[str]) -> bytes:
    """The body of the answer. Raises AskFailed."""
    own, peer, sender, recipient, key, path, body = arguments
    secret = bytes.fromhex(Path(key).read_text().strip())
    association = ControlAssociation(
        ip_address(peer), bytes.fromhex(sender), bytes.fromhex(recipient), secret, b"", ()
    )
    store = Store(Path(key).with_suffix(".db"))  # a sequence number is used once
    settings = ControlSettings(ip_address(own), PORT, (association,))
    end = CoapEndPoint(settings, store, _nobody, lambda _reason: None)
    await end.open()
    try:
        return await end.ask(ip_address(peer), path, bytes.fromhex(body), PATIENCE)
    finally:
        await end.close()
        await store.close()


if __name__ == "__main__":
    print(asyncio.run(speak(sys.argv[1:])).hex())
