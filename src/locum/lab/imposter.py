"""Another mobile node, with a valid association of its own, asks the stand-in for what is not its own.

Run inside the stranger's namespace: `python -m locum.lab.imposter CONFIG COUNT`. Its OSCORE context is genuine, so
these requests pass every signature; they must fail for what they ask. Prints the statuses of the answers as JSON.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from itertools import cycle
from pathlib import Path
from random import Random

from locum.node.coap import AskFailed, CoapEndPoint
from locum.node.settings import ControlAssociation, ControlSettings
from locum.node.store import Store
from locum.wire.control import (
    Cancel,
    Done,
    Fetch,
    Finish,
    Flow,
    Reclaim,
    Request634,
    TakeoverPrepare,
    TakeoverTransfer,
    decode_632,
    encode_634,
)
from locum.wire.errors import WireError

AT_ONCE = 4
PATIENCE = 15.0


def record(flow: Flow, random: Random) -> dict[int, object]:
    """A session record in good order (session.cddl), for a connection of the home address of `flow`."""
    return {
        0: flow.to_cbor(),
        1: 1,
        2: random.getrandbits(32),
        3: random.getrandbits(32),
        4: b"",
        5: b"",
        6: 0,
        7: [random.getrandbits(32), 65535, 65535, 65535, random.getrandbits(32)],
        9: 1460,
        11: True,
    }


def demands(
    victim: IPv4Address, own: IPv4Address, peer: IPv4Address | IPv6Address, random: Random
) -> Iterator[Request634]:
    """Requests for the victim's address, and with the victim's sessions, without end."""
    assert isinstance(peer, IPv4Address)
    theirs = Flow(6, victim, 40000, peer, 80)
    for kind in cycle(range(8)):
        handover = random.randbytes(16)
        yield (
            TakeoverPrepare(handover, (victim,), (theirs,)),
            TakeoverPrepare(handover, (own, victim), (theirs,)),
            TakeoverPrepare(handover, (own,), (theirs,)),
            TakeoverTransfer(handover, (record(theirs, random),)),
            Reclaim(None, (victim,)),
            Fetch(handover, 0, 0, 1 << 20),
            Finish(handover),
            random.choice((Cancel(handover), Done(handover))),
        )[kind]


async def ask_all(
    settings: ControlSettings, victim: IPv4Address, peer: IPv4Address, store: Path, count: int
) -> dict[str, int]:
    """Send `count` requests to the stand-in of the only association; the statuses of its answers."""
    opened = Store(store)
    opened_end = CoapEndPoint(settings, opened, _nobody, lambda _reason: None)
    await opened_end.open()
    answers: Counter[str] = Counter()
    own = settings.address
    assert isinstance(own, IPv4Address)
    wanted = demands(victim, own, peer, Random())
    stand_in = settings.associations[0].peer

    async def worker(share: int) -> None:
        for _number in range(share):
            try:
                body = await opened_end.ask(stand_in, "634", encode_634(next(wanted)), PATIENCE)
                answers[decode_632(body).status.name] += 1
            except (AskFailed, WireError) as problem:
                answers[str(problem)] += 1

    try:
        await asyncio.gather(*(worker(count // AT_ONCE) for _ in range(AT_ONCE)))
    finally:
        await opened_end.close()
        await opened.close()
    return dict(answers)


async def _nobody(_path: str, _body: bytes, _association: ControlAssociation) -> bytes:
    """Nobody asks the imposter anything."""
    return b""


def main(file: Path) -> None:
    """The file is JSON: address, victim, peer, stand_in, sender_id, recipient_id, secret_file, store, count."""
    given = json.loads(file.read_text())
    association = ControlAssociation(
        IPv4Address(given["stand_in"]),
        bytes.fromhex(given["sender_id"]),
        bytes.fromhex(given["recipient_id"]),
        bytes.fromhex(Path(given["secret_file"]).read_text().strip()),
        b"",
        (),
    )
    settings = ControlSettings(IPv4Address(given["address"]), 5683, (association,))
    answers = asyncio.run(
        ask_all(
            settings,
            IPv4Address(given["victim"]),
            IPv4Address(given["peer"]),
            Path(given["store"]),
            int(given["count"]),
        )
    )
    print(json.dumps(answers))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
