"""The lab's radio really is deaf and mute outside its slots: frames are sent all the time, and counted where they arrive (P13)."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from locum.lab.network.namespaces import Network, inside
from locum.lab.network.place import LabPlace
from locum.lab.network.radio import Listening
from locum.lab.network.topology import figure_5

CYCLE, OFFSET, LENGTH = 100, 30, 20  # milliseconds
FRAMES = 3000  # one a millisecond
SLOTS = Listening(CYCLE, OFFSET, LENGTH, stay=0.3)
TYPE = 0x88B5  # for experiments

SEND = """
import socket, struct, sys, time
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
if len(sys.argv) > 4:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[4], 0))
for _ in range(int(sys.argv[3])):
    s.sendto(struct.pack("=Q", time.time_ns()), (sys.argv[1], int(sys.argv[2], 0), 0, 0, b"\\xff" * 6))
    time.sleep(0.001)
"""
HEAR = """
import json, socket, struct, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # every type: as a capture hears
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)
s.bind((sys.argv[1], 3))
s.settimeout(3)
print("ready", flush=True)
heard = []
try:
    while True:
        frame, address = s.recvfrom(64)
        if address[1] == int(sys.argv[2], 0) and address[2] != 4:
            heard.append(struct.unpack_from("=Q", frame)[0])
except TimeoutError:
    print(json.dumps(heard))
"""


@pytest.fixture
def network() -> Iterator[Network]:
    place = LabPlace.claim("radio")
    try:
        place.mount_bpf()
        made = Network(place, figure_5())
        made.build()
        yield made
    finally:
        place.remove()


def exchange(network: Network, *, down: bool, frames: int = FRAMES, mark: int | None = None) -> list[float]:
    """Times within the cycle, in milliseconds, at which the frames were sent that arrived."""
    link = network.topology.radio("an1")
    sender, receiver = (link.near, link.far) if down else (link.far, link.near)
    place = network.place
    hearing = subprocess.Popen(
        [*inside(place, receiver.node), sys.executable, "-c", HEAR, receiver.interface, hex(TYPE)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert hearing.stdout is not None and hearing.stdout.readline() == "ready\n"
    marked = [] if mark is None else [hex(mark)]
    sending = [sys.executable, "-c", SEND, sender.interface, hex(TYPE), str(frames), *marked]
    subprocess.run([*inside(place, sender.node), *sending], check=True, timeout=60)
    heard = json.loads(hearing.communicate(timeout=30)[0])
    return [(at / 1e6 - OFFSET) % CYCLE for at in heard]


@pytest.mark.parametrize("down", [True, False])
def test_frames_pass_in_the_slots_alone(network: Network, down: bool) -> None:
    network.listen("an1", SLOTS)
    heard = exchange(network, down=down)
    assert 0.1 * FRAMES < len(heard) < 0.3 * FRAMES, "about a fifth"
    assert all(at < LENGTH or at > CYCLE - 5 for at in heard), "sent in a slot, or just before it"
    assert sum(at < LENGTH for at in heard) > 0.95 * len(heard)
    frames = network.heard("an1")
    assert (frames.deaf if down else frames.mute) > 0.7 * FRAMES and frames.lost == 0
    network.listen("an1", None)
    assert len(exchange(network, down=down, frames=200)) == 200, "as before"


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 1.0, 1.0), (0.1, 0.84, 0.95), (0.5, 0.42, 0.58)])
def test_radio_loses_as_many_frames_as_it_should(
    network: Network, loss: float, least: float, most: float
) -> None:
    network.listen("an1", Listening(loss=loss))
    for down in (True, False):
        heard = len(exchange(network, down=down, frames=1500))
        assert least * 1500 <= heard <= most * 1500
    assert (network.heard("an1").lost > 0) is (loss > 0)


def test_message_of_the_daemon_switches_the_radio_on(network: Network) -> None:
    network.listen("an1", SLOTS)
    assert len(exchange(network, down=False, frames=5, mark=0x10C60000)) == 5, "at any time"
    heard = exchange(network, down=True, frames=1000)
    assert 100 < len(heard) < 300, "the radio went off again"
    network.listen("an1", Listening(CYCLE, OFFSET, LENGTH, stay=60.0))
    exchange(network, down=False, frames=1, mark=0x10C60000)
    assert len(exchange(network, down=True, frames=300)) == 300
    network.listen("an1", SLOTS)
    assert len(exchange(network, down=True, frames=300)) < 100, "it was told to sleep"


def test_nothing_is_left_behind(network: Network) -> None:
    network.listen("an1", SLOTS)
    network.listen("an1", None)
    link = network.topology.radio("an1")
    shown = [
        subprocess.run([*inside(network.place, "mn"), *command], capture_output=True, text=True, check=True).stdout
        for command in (
            ("ip", "link", "show", "dev", link.far.interface),
            ("tc", "filter", "show", "dev", link.far.interface, "egress"),
        )
    ]  # fmt: skip
    assert "xdp" not in shown[0] and shown[1] == ""
    assert list(network.place.bpf_root.glob("radio*")) == []
    network.listen("an1", SLOTS)
    started = time.monotonic()
    network.place.remove()
    assert time.monotonic() - started < 20 and not network.place.path.exists()
