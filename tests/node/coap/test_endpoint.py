"""CoAP with OSCORE between two end points on loopback: bodies of every size, and strangers."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from locum.node.coap.endpoint import AskFailed, CoapEndPoint
from locum.node.coap.oscore import StoredContext
from locum.node.config.settings import ControlAssociation, ControlSettings
from locum.node.store import Store
from locum.node.tables import StoreError
from locum.roles.action_values.addresses import Addr

SECRET = bytes(range(32))
ALICE, BOB, MALLORY = (ip_address(f"127.0.7.{n}") for n in (1, 2, 3))


def association(peer: Addr, sender: bytes, recipient: bytes, secret: bytes = SECRET) -> ControlAssociation:
    return ControlAssociation(peer, sender, recipient, secret, b"", (ip_address("10.9.0.1"),))


class Pair:
    """Alice asks, Bob answers by `self.answer`."""

    def __init__(self, path: Path, port: int) -> None:
        self.path, self.port = path, port
        self.counts: Counter[str] = Counter()
        self.asked: list[tuple[str, int, str]] = []
        self.unwritable: list[str] = []

    async def answer(self, path: str, body: bytes, sender: ControlAssociation) -> bytes:
        self.asked.append((path, len(body), str(sender.peer)))
        if body.startswith(b"size "):
            return os.urandom(1) * int(body.split()[1])
        return body[::-1]

    def end(self, name: str, address: Addr, *associations: ControlAssociation) -> CoapEndPoint:
        store = Store(self.path / f"{name}.db")
        settings = ControlSettings(address, self.port, associations)
        end = CoapEndPoint(
            settings,
            store,
            self.answer,
            lambda reason: self.counts.update([reason]),
            unwritable=self.unwritable.append,
        )
        end.store = store  # type: ignore[attr-defined]
        return end

    async def open(self) -> None:
        self.alice = self.end("alice", ALICE, association(BOB, b"a", b"b"))
        self.bob = self.end("bob", BOB, association(ALICE, b"b", b"a"))
        await self.alice.open()
        await self.bob.open()

    async def close(self) -> None:
        for end in (self.alice, self.bob):
            await end.close()
            await end.store.close()  # type: ignore[attr-defined]


@pytest.fixture
async def pair(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Pair]:
    made = Pair(tmp_path, unused_tcp_port)
    await made.open()
    yield made
    await made.close()


@pytest.mark.parametrize("bulk", [False, True])
async def test_bodies_of_every_size_arrive(pair: Pair, bulk: bool) -> None:
    for size in (0, 1, 1023, 1024, 1025, 5000, 70_000) + ((3_000_000,) if bulk else ()):
        body = os.urandom(size)
        assert await pair.alice.ask(BOB, "634", body, 10.0, bulk=bulk) == body[::-1]
    assert pair.asked[0] == ("634", 0, str(ALICE))
    assert not pair.counts


async def test_large_bodies_are_few_exchanges(pair: Pair) -> None:
    """Blocks of a connection are large in both directions: a kilobyte an exchange would take seconds a megabyte."""
    (context,) = pair.alice._contexts.values()
    for body, answer in ((b"size 8000000", 8_000_000), (os.urandom(8_000_000), 8_000_000)):
        before = context.sender_sequence_number
        assert len(await pair.alice.ask(BOB, "634", body, 20.0, bulk=True)) == answer
        assert context.sender_sequence_number - before < 200


@pytest.mark.parametrize("bulk", [False, True])
async def test_unanswered_requests_end_quietly_when_closed(
    pair: Pair, bulk: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """An end point that has asked in vain, or still asks, closes without a complaint."""
    silent = asyncio.Event()

    async def never(path: str, body: bytes, sender: ControlAssociation) -> bytes:
        await silent.wait()
        return b""

    pair.answer = never  # type: ignore[method-assign]
    await pair.bob.close()
    pair.bob = pair.end("bob2", BOB, association(ALICE, b"b", b"a"))
    await pair.bob.open()
    with pytest.raises(AskFailed, match="no answer"):
        await pair.alice.ask(BOB, "634", b"x", 0.3, bulk=bulk)
    late = asyncio.create_task(pair.alice.ask(BOB, "618", b"x", 30.0, bulk=bulk))
    await asyncio.sleep(0.1)
    await pair.alice.close()
    with pytest.raises(AskFailed, match="this node is stopping"):
        await late
    assert not caplog.records
    silent.set()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Fill the disk to the last byte, and free it again."""
    with (disk / "junk").open("wb", buffering=0) as junk, pytest.raises(OSError, match="No space"):
        while True:
            junk.write(bytes(4096))
    yield
    (disk / "junk").unlink()


@pytest.mark.parametrize("bulk", [False, True])
async def test_peer_with_a_full_disk_says_so_and_recovers(
    small_disk: Path, pair: Pair, bulk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob = pair.bob.store  # type: ignore[attr-defined]
    with full(small_disk):
        for number in range(200):  # until its log has no room of its own left
            bob.put("junk", str(number), {"x": "x" * 4000})
            with contextlib.suppress(StoreError):
                await bob.durable()
        (alice,) = pair.alice._contexts.values()
        monkeypatch.setattr(alice, "post_seqnoincrease", lambda: None)  # her disk is another
        for _ in range(2):
            with pytest.raises(AskFailed, match=r"127\.0\.7\.2: its store cannot be written"):
                await pair.alice.ask(BOB, "634", b"x", 5.0, bulk=bulk)
        assert not pair.asked and pair.counts == {"control-unwritable": 2}
        assert len(pair.unwritable) == 1 and "cannot be written" in pair.unwritable[0]
    assert await pair.alice.ask(BOB, "634", b"xyz", 5.0, bulk=bulk) == b"zyx"


async def test_local_full_disk_is_the_given_reason(small_disk: Path, pair: Pair) -> None:
    (context,) = pair.alice._contexts.values()
    store = pair.alice.store  # type: ignore[attr-defined]
    with full(small_disk):
        for number in range(200):
            store.put("junk", str(number), {"x": "x" * 4000})
            with contextlib.suppress(StoreError):
                await store.durable()
        context.sender_sequence_number = context.numbers.committed
        with pytest.raises(AskFailed, match=r"was not asked: .*alice\.db: cannot be written"):
            await pair.alice.ask(BOB, "634", b"x", 5.0)
    assert await pair.alice.ask(BOB, "634", b"xyz", 5.0) == b"zyx"


async def test_full_disk_at_the_start_is_an_error(small_disk: Path, unused_tcp_port: int) -> None:
    pair = Pair(small_disk, unused_tcp_port)
    pair.alice = pair.end("alice", ALICE)
    with full(small_disk):
        store = pair.alice.store  # type: ignore[attr-defined]
        for number in range(200):
            store.put("junk", str(number), {"x": "x" * 4000})
            with contextlib.suppress(StoreError):
                await store.durable()
        settings = ControlSettings(ALICE, unused_tcp_port, (association(BOB, b"a", b"b"),))
        starting = CoapEndPoint(settings, store, pair.answer, lambda _reason: None)
        with pytest.raises(StoreError, match=r"alice\.db: cannot be written"):
            await starting.open()
    await store.close()


async def test_a_reservation_is_awaited_while_others_go_on(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alice has used all numbers that are reserved, and her disk takes its time."""
    store = pair.alice.store  # type: ignore[attr-defined]
    commit, go_on = store._commit, threading.Event()

    def slow(batch: Any) -> None:
        go_on.wait(60)
        commit(batch)

    (context,) = pair.alice._contexts.values()
    reserved = context.sender_sequence_number = context.numbers.committed
    monkeypatch.setattr(store, "_commit", slow)
    asking = [asyncio.create_task(pair.alice.ask(BOB, "634", b"ab", 10.0)) for _ in range(3)]
    ticks = 0
    async with asyncio.timeout(30):
        while ticks < 20:
            await asyncio.sleep(0.01)
            ticks += 1
    assert not pair.asked and context.sender_sequence_number == reserved
    with pytest.raises(RuntimeError, match="not reserved"):
        context.new_sequence_number()
    context.sender_sequence_number = reserved
    go_on.set()
    assert await asyncio.gather(*asking) == [b"ba"] * 3
    assert (
        store.rows("oscore")[context.association.key]["reserved"] > context.sender_sequence_number > reserved
    )


async def test_every_number_of_a_reservation_is_used(pair: Pair) -> None:
    """The next one is queued before, and used at once when it is committed."""
    (context,) = pair.alice._contexts.values()
    store = pair.alice.store  # type: ignore[attr-defined]
    first = context.sender_sequence_number
    for number in range(first, first + 5000):
        await context.ready()
        assert context.new_sequence_number() == number
        if number % 100 == 0:
            await store.durable()
            assert store.rows("oscore")[context.association.key]["reserved"] > number


async def test_absent_peer_and_missing_association_differ(pair: Pair) -> None:
    await pair.bob.close()
    with pytest.raises(AskFailed, match=r"127\.0\.7\.2"):
        await pair.alice.ask(BOB, "634", b"x", 1.0, bulk=True)
    with pytest.raises(AskFailed):
        await pair.alice.ask(BOB, "634", b"x", 0.5)
    with pytest.raises(AskFailed, match="no association"):
        await pair.alice.ask(MALLORY, "634", b"x", 1.0)


async def test_wrong_secret_wrong_address_and_unknown_id_are_refused(pair: Pair) -> None:
    for peer, sender, secret, reason in (
        (MALLORY, b"a", SECRET, "control-wrong-peer"),
        (MALLORY, b"z", SECRET, "control-no-association"),
    ):
        mallory = pair.end(f"mallory-{reason}", peer, association(BOB, sender, b"b", secret))
        await mallory.open()
        with pytest.raises(AskFailed):
            await mallory.ask(BOB, "634", b"take over", 2.0)
        assert pair.counts[reason] == 1
        await mallory.close()
        await mallory.store.close()  # type: ignore[attr-defined]
    await pair.alice.close()
    forger = pair.end("forger", ALICE, association(BOB, b"a", b"b", bytes(32)))
    await forger.open()
    with pytest.raises(AskFailed):
        await forger.ask(BOB, "634", b"take over", 2.0)
    assert pair.counts["control-forged"] == 1
    assert pair.asked == []
    await forger.close()
    await forger.store.close()  # type: ignore[attr-defined]


class Wire:
    """A stranger on UDP that sends raw datagrams from Alice's address and measures the answers."""

    def __init__(self, port: int, source: str = str(ALICE)) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.setblocking(False)
        self.target = (str(BOB), port)

    async def send(self, data: bytes, patience: float = 0.15) -> bytes:
        self.socket.sendto(data, self.target)
        try:
            async with asyncio.timeout(patience):
                return await asyncio.get_running_loop().sock_recv(self.socket, 65536)
        except (TimeoutError, ConnectionError):
            return b""


async def test_garbage_gets_no_more_bytes_than_it_sent(pair: Pair) -> None:
    wire = Wire(pair.port)
    plain_post = bytes.fromhex("4002000143363334") + b"take over"[:0] + b"\xffevil"
    oscore_forged = bytes.fromhex("41020002aa") + bytes.fromhex("9409610161") + b"\xff" + os.urandom(40)
    for data in (
        b"",
        b"\x40",
        bytes.fromhex("40010003"),
        bytes.fromhex("4001000bbb2e77656c6c2d6b6e6f776e04636f7265"),
        plain_post,
        oscore_forged,
        bytes.fromhex("40000004"),
        os.urandom(200),
        b"\xff" * 1200,
    ):
        answer = await wire.send(data)
        assert len(answer) <= max(len(data), 4), (data, answer)
    assert pair.asked == []
    wire.socket.close()


async def test_invalid_string_is_counted_and_not_logged(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    """aiocoap decodes string options as UTF-8 without a thought; each such message was a traceback in the journal."""
    path = b"\xb3\xff\xfe\xfd"
    wire = Wire(pair.port)
    assert await wire.send(b"\x40\x02\x00\x01" + path) == b""
    wire.socket.close()
    assert pair.counts["control-unreadable"] == 1
    reader, writer = await asyncio.open_connection(str(BOB), pair.port, local_addr=(str(ALICE), 0))
    writer.write(b"\x00\xe1" + bytes((len(path) << 4, 2)) + path)
    async with asyncio.timeout(30):
        await reader.read()  # what opens the connection, and its end
    writer.close()
    assert pair.counts["control-unreadable"] == 2
    assert not caplog.records
    assert await pair.alice.ask(BOB, "634", b"ab", 2.0) == b"ba"


async def test_replayed_request_is_refused_even_after_a_restart(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    from aiocoap.transports.udp6 import MessageInterfaceUDP6

    original = MessageInterfaceUDP6.send

    def send(self: Any, message: Any) -> Any:
        if message.code == 2:  # the outer code of every request under OSCORE is POST
            sent.append(message.encode())
        return original(self, message)

    monkeypatch.setattr(MessageInterfaceUDP6, "send", send)
    await pair.alice.ask(BOB, "634", b"once", 5.0)
    assert len(pair.asked) == 1
    await pair.bob.close()
    await pair.bob.store.close()  # type: ignore[attr-defined]
    pair.bob = pair.end("bob", BOB, association(ALICE, b"b", b"a"))
    await pair.bob.open()
    wire = Wire(pair.port)
    for data in tuple(sent):
        assert len(await wire.send(data)) <= len(data)
    assert len(pair.asked) == 1
    assert pair.counts["control-replayed"] == len(sent)
    assert await pair.alice.ask(BOB, "634", b"twice", 5.0) == b"eciwt"
    wire.socket.close()


SENDER = """
import asyncio, sys
from pathlib import Path
from ipaddress import ip_address
from locum.node.coap.oscore import StoredContext
from locum.node.config.settings import ControlAssociation
from locum.node.store import Store
from locum.node.tables import StoreError

async def main():
    store = Store(Path(sys.argv[1]))
    context = StoredContext(
        ControlAssociation(ip_address("127.0.7.2"), b"a", b"b", bytes(range(32)), b"", ()),
        store, store.rows("oscore"))
    while True:
        numbers = []
        for _ in range(100):
            await context.ready()
            numbers.append(context.new_sequence_number())
        print(numbers[0], numbers[-1], flush=True)
        await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_no_sequence_number_repeats_after_kill_9(tmp_path: Path) -> None:
    used: set[int] = set()
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", SENDER, str(tmp_path / "a.db")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(30)]
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.wait()
        for line in lines:
            first, last = (int(word) for word in line.split())
            numbers = set(range(first, last + 1))
            assert not numbers & used
            used |= numbers


async def test_the_replay_window_outlives_the_context(tmp_path: Path) -> None:
    store = Store(tmp_path / "w.db")
    context = StoredContext(association(BOB, b"a", b"b"), store, store.rows("oscore"))
    for number in (0, 1, 5, 9):
        context.recipient_replay_window.strike_out(number)
    await store.durable()
    again = StoredContext(association(BOB, b"a", b"b"), store, store.rows("oscore"))
    seen = [number for number in range(12) if not again.recipient_replay_window.is_valid(number)]
    assert seen == [0, 1, 5, 9]
    assert again.sender_sequence_number > 0
    await store.close()


async def test_dropped_connections_are_opened_again(pair: Pair) -> None:
    assert await pair.alice.ask(BOB, "634", b"ab", 5.0, bulk=True) == b"ba"
    pair.alice.drop_connections()
    assert await pair.alice.ask(BOB, "634", b"cd", 5.0, bulk=True) == b"dc"


async def test_a_busy_port_is_an_error_at_once(pair: Pair) -> None:
    second = pair.end("second", BOB, association(ALICE, b"b", b"a"))
    with pytest.raises(OSError, match="in use"):
        await second.open()
    await second.store.close()  # type: ignore[attr-defined]


async def test_strangers_cannot_exhaust_the_connections(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.node.coap.aiocoap_adapter._MOST_CONNECTIONS", 5)
    assert await pair.alice.ask(BOB, "634", b"ab", 5.0, bulk=True) == b"ba"
    assert pair.alice._client is not None
    (proven,) = pair.alice._client._pool.values()
    strangers = [await asyncio.open_connection(str(BOB), pair.port) for _ in range(8)]
    for _, writer in strangers:
        writer.write(b"\xf0" + os.urandom(50))
    async with asyncio.timeout(30):
        while pair.counts["control-connections"] < 4:
            await asyncio.sleep(0.01)
    assert await pair.alice.ask(BOB, "634", b"cd", 5.0, bulk=True) == b"dc"
    assert list(pair.alice._client._pool.values()) == [proven], "her connection was dropped"
    assert pair.counts["control-connections"] < 12
    for _, writer in strangers:
        writer.close()


async def test_oversized_body_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locum.node.coap.oscore.MAX_BODY", 3_000_000)
    with pytest.raises(AskFailed, match=r"4\.13"):
        await pair.alice.ask(BOB, "634", bytes(6_000_000), 10.0, bulk=True)
    assert pair.counts["control-oversized"] == 1
    assert pair.asked == []
