"""Probes on a real link: answers for an address, their link-layer address, and silence."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address

from locum.node.registration.prober import Prober, arp_answer, arp_request
from locum.roles.actions import Probe, ProbeAnswered
from tests.node.conftest import Namespace, join

HOME, OTHER, OWN = IPv4Address("203.0.113.4"), IPv4Address("203.0.113.5"), IPv4Address("192.0.2.1")
CARD = bytes.fromhex("020000000001")


def card(space: Namespace, link: str) -> bytes:
    return bytes.fromhex(space.ip(f"-o link show {link}").split("link/ether ")[1].split()[0].replace(":", ""))


async def probes(*wanted: Probe, patience: float = 5.0, enough: int | None = None) -> list[ProbeAnswered]:
    """Answers to these probes, each sent until there are enough answers or the time is over."""
    found: list[ProbeAnswered] = []
    prober = Prober(found.append, lambda link: OWN)
    try:
        for _ in range(int(patience / 0.05)):
            for address in wanted:
                prober.probe(address)
            await asyncio.sleep(0.05)
            if len(found) >= (len(wanted) if enough is None else enough):
                break
    finally:
        prober.close()
    return found


def test_device_answers_arp_for_its_home_address_only(
    namespace: Callable[[str], Namespace],
) -> None:
    cell, device = namespace("cell"), namespace("device")
    join(cell, "radio0", device, "radio0")
    cell.ip(f"addr add {OWN}/24 dev radio0")
    device.ip(f"addr add {HOME}/32 dev lo")  # as a device away from home has it
    there = card(device, "radio0")
    with cell.entered():
        found = asyncio.run(
            probes(
                Probe("radio0", HOME, there),
                Probe("radio0", OTHER, there),
                Probe("gone0", HOME, there),
                enough=1,
            )
        )
        assert set(found) == {ProbeAnswered("radio0", HOME, there)}
        silent = probes(Probe("radio0", HOME, CARD), patience=0.5)  # unicast to a card that is not there
        assert asyncio.run(silent) == []
    device.ip("link set radio0 down")
    with cell.entered():
        assert asyncio.run(probes(Probe("radio0", HOME, there), patience=0.5)) == []
    device.ip("link set radio0 up")
    with cell.entered():
        assert set(asyncio.run(probes(Probe("radio0", HOME, there)))) == {
            ProbeAnswered("radio0", HOME, there)
        }


def test_only_replies_are_answers() -> None:
    request = arp_request(CARD, OWN, HOME)
    assert (len(request), arp_answer(request)) == (28, None)
    reply = request[:7] + b"\x02" + request[8:]
    assert arp_answer(reply) == (OWN, CARD)
    assert arp_answer(reply + bytes(18)) == (OWN, CARD)  # padded to the shortest frame
    for broken in (b"", reply[:27], b"\0\6" + reply[2:], reply[:4] + b"\x08" + reply[5:]):
        assert arp_answer(broken) is None
