"""Another mobile node, with valid associations of its own, asks for resources of others.

Run inside the stranger's namespace: `python -m locum.lab.forging.impersonator CONFIG`, with an association with the stand-in, with an
access node and with the mobile node that it wants to be. Its OSCORE contexts are genuine, so its requests pass every
signature; they must fail because of their content.

Each line of its input is a list of peers and a number: so many requests are sent to each of them, and the answers are
printed as JSON. It stays one process as it is one CoAP end point: a message ID must not come twice within the lifetime of
an exchange (RFC 7252 section 4.4), and a peer takes one that does for a retransmission.
"""

import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

from locum.node.coap.endpoint import AskFailed, CoapEndPoint
from locum.node.config.settings import ControlAssociation, ControlSettings
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
from locum.wire.control.context import (
    Context624,
    ContextRequest622,
    ContextStatus,
    Onward,
    decode_624,
    decode_acknowledgement_622,
    encode_624,
    encode_request_622,
)
from locum.wire.control.notice import Notice618, encode_618
from locum.wire.control.trigger import Operation, Reason, Trigger, decode_trigger_answer, encode_trigger
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


def demands(victim: IPv4Address, own: IPv4Address, peer: IPv4Address, random: Random) -> Iterator[Request634]:
    """Requests for the victim's address, and with the victim's sessions with `peer`, without end."""
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


def foreign(victim: IPv4Address, own: IPv4Address) -> Iterator[tuple[str, bytes]]:
    """Messages for other sorts of nodes, about the victim's address, without end: their path and body."""
    for kind in cycle(range(8)):
        since = int(time.time() * 1000)
        yield (
            ("618", encode_618(Notice618(victim, True, own))),
            ("618", encode_618(Notice618(victim, False, own))),
            ("622", encode_request_622(ContextRequest622(victim, since, onward=Onward.MOVED))),
            ("624", encode_624(Context624(ContextStatus.OK, victim, since, onward=Onward.TAKEN))),
            ("trigger", encode_trigger(Trigger(Operation.TAKE, (victim,)))),
            ("trigger", encode_trigger(Trigger(Operation.RELEASE, (victim, own)))),
            ("trigger", encode_trigger(Trigger(Operation.TAKE, (victim,), reason=Reason.LOST))),
            ("634", encode_634(Reclaim(None, (victim,)))),
        )[kind]


def alternately(
    requests: Iterable[Request634], others: Iterable[tuple[str, bytes]]
) -> Iterator[tuple[str, bytes]]:
    """A 634, something else, a 634 and so on."""
    for request, other in zip(requests, others, strict=False):
        yield "634", encode_634(request)
        yield other


class Impersonator:
    """One CoAP end point. Answers are counted by peer, path and content."""

    def __init__(self, end: CoapEndPoint, victim: IPv4Address, own: IPv4Address, peer: IPv4Address) -> None:
        self._end = end
        self._wanted: dict[str, Iterator[tuple[str, bytes]]] = defaultdict(
            lambda: alternately(demands(victim, own, peer, Random()), foreign(victim, own))
        )

    async def ask_all(self, peers: Iterable[str], count: int) -> dict[str, int]:
        """`count` requests to each peer, AT_ONCE to one at a time."""
        answers: Counter[str] = Counter()
        workers = [self._ask(peer, count // AT_ONCE, answers) for peer in peers for _ in range(AT_ONCE)]
        await asyncio.gather(*workers)
        return dict(answers)

    async def _ask(self, peer: str, share: int, answers: Counter[str]) -> None:
        for _number in range(share):
            path, body = next(self._wanted[peer])
            try:
                said = _said(path, await self._end.ask(IPv4Address(peer), path, body, PATIENCE))
            except (AskFailed, WireError) as problem:
                said = str(problem)
            answers[f"{peer} {path}: {said}"] += 1


def _said(path: str, body: bytes) -> str:
    """An answer in a word. An empty one comes from a node that does not serve this message."""
    if not body:
        return "NOT_SERVED"
    if path == "622":
        return decode_624(body).status.name
    if path == "624":
        return decode_acknowledgement_622(body).status.name
    if path == "trigger":
        return decode_trigger_answer(body).name
    return decode_632(body).status.name


async def _nobody(_path: str, _body: bytes, _association: ControlAssociation) -> bytes:
    """Refuse requests: none is expected here."""
    return b""


async def attack(given: dict[str, Any], lines: Iterable[str]) -> None:
    """Run as many rounds as there are lines."""
    associations = tuple(
        ControlAssociation(
            IPv4Address(association["peer"]),
            bytes.fromhex(association["sender_id"]),
            bytes.fromhex(association["recipient_id"]),
            bytes.fromhex(Path(association["secret_file"]).read_text().strip()),
            b"",
            (),
        )
        for association in given["associations"]
    )
    own, victim = IPv4Address(given["address"]), IPv4Address(given["victim"])
    store = Store(Path(given["store"]))
    end = CoapEndPoint(ControlSettings(own, 5683, associations), store, _nobody, lambda _reason: None)
    await end.open()
    impersonator = Impersonator(end, victim, own, IPv4Address(given["correspondent"]))
    loop = asyncio.get_running_loop()
    try:
        waiting = iter(lines)
        while (line := await loop.run_in_executor(None, next, waiting, None)) is not None:
            peers, count = json.loads(line)
            print(json.dumps(await impersonator.ask_all(peers, count)), flush=True)
    finally:
        await end.close()
        await store.close()


if __name__ == "__main__":
    asyncio.run(attack(json.loads(Path(sys.argv[1]).read_text()), sys.stdin))
