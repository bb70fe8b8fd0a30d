"""Forged messages are of every kind for every open port, can be written down, and reach every target."""

import json
import sys
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

import pytest

from locum.lab.captures import pcap
from locum.lab.captures.capture import Captures
from locum.lab.captures.dissection import malformed
from locum.lab.errors import LabError
from locum.lab.forging import forgery, single_shots
from locum.lab.forging.forgery import Aim, Overheard, Port, Shot
from locum.lab.forging.message_batches import kinds, message_batch
from locum.lab.network.namespaces import Network
from locum.lab.network.place import LabPlace
from locum.lab.network.topology import figure_5
from locum.lab.processes import Processes
from locum.lab.scenarios.sleep.fig06_forged import increases
from locum.wire.mobile_ip.registration import RegistrationRequest
from locum.wire.mobile_ip.revocation import RegistrationRevocation, RevocationAcknowledgment

TOPOLOGY = figure_5(("guest",))
HOME = IPv4Address("10.10.100.4")
HA, AN1, EVIL = (str(TOPOLOGY.address4(node)) for node in ("ha", "an1", "evil"))
BROKEN = {4: str(TOPOLOGY.broken4("evil")), 6: str(TOPOLOGY.broken6("evil"))}
HA_6 = str(TOPOLOGY.address6("ha"))
PORTS = [
    *(Port(node, "udp", address, 434) for node, address in (("ha", HA), ("an1", AN1), ("mn", str(HOME)))),
    Port("mnps", "udp", str(TOPOLOGY.address4("mnps")), 5683),
    Port("mnps", "tcp", str(TOPOLOGY.address4("mnps")), 5683),
    *(Port("ha", "ip", address, number) for address in (HA, HA_6) for number in (4, 41, 47)),
    Port("ha", "ip", HA, 1),
]


def aim() -> Aim:
    agents = [TOPOLOGY.address4("an1", "radio0"), TOPOLOGY.address4("an2", "radio0")]
    mnps = TOPOLOGY.address4("mnps")
    return Aim(
        home_address=HOME,
        home_agent=TOPOLOGY.address4("ha"),
        agents=agents,
        stranger=TOPOLOGY.address4("evil"),
        broken=BROKEN,
        correspondent=TOPOLOGY.address4("cn"),
        other_key=bytes(16),
        controls=[Overheard(HOME, mnps, b"\x42\x02\x00\x01ab\x93\x09\x01\x01\xff" + bytes(40))],
        now=1.7e9,
    )


def test_every_port_gets_equal_counts_of_every_kind() -> None:
    shots = message_batch(aim(), Random(1), PORTS, 60)
    at_port = {port.label: Counter[str]() for port in PORTS}
    for shot in shots:
        at_port[shot.aimed_at][shot.kind] += 1
    for port in PORTS:
        found = at_port[port.label]
        assert sum(found.values()) >= 60 and len(set(found.values())) == 1
        assert set(found) == set(kinds(aim(), Random(1), port))
    assert len({shot.kind for shot in shots}) > 40
    assert [Shot.from_line(shot.to_line()) for shot in shots] == shots


def test_unexpected_open_port_raises_an_error() -> None:
    with pytest.raises(LabError, match="ha udp/4711 is open"):
        message_batch(aim(), Random(1), [Port("ha", "udp", HA, 4711)], 10)


def test_forged_requests_are_well_formed_and_ask_for_the_address() -> None:
    wanted = ("registration-wrong-key", "registration-other-mobile", "deregistration-forged")
    found = [shot for shot in message_batch(aim(), Random(1), PORTS, 60) if shot.kind in wanted]
    assert {shot.aimed_at for shot in found} == {"ha udp/434", "an1 udp/434", "mn udp/434"}
    for shot in found:
        request = RegistrationRequest.decode(shot.payload)
        assert request.home_address == HOME
        assert request.care_of_address == TOPOLOGY.address4("evil")


def test_revocations_go_to_every_agent_in_the_name_of_another() -> None:
    for shot in message_batch(aim(), Random(1), PORTS[:3], 200):
        if shot.kind in ("revocation-unsigned", "revocation-wrong-key"):
            message = RegistrationRevocation.decode(shot.payload[8:])
            assert message.home_address == HOME and message.from_home_agent == (shot.target != HA)
        elif shot.kind == "acknowledgment-forged":
            assert RevocationAcknowledgment.decode(shot.payload[8:]).home_address == HOME
        else:
            continue
        assert shot.source not in (None, shot.target, EVIL)


def test_stranger_sends_broken_messages_from_another_address(tmp_path: Path) -> None:
    place = LabPlace.claim("test")
    try:
        Network(place, TOPOLOGY).build()
        processes = Processes(place, tmp_path / "logs")
        captures = Captures(processes, TOPOLOGY, tmp_path)
        captures.start()
        shots = [shot for shot in message_batch(aim(), Random(1), PORTS, 100) if shot.via != "tcp"]
        file = forgery.write(shots, tmp_path / "shots")
        done = processes.run(
            "evil", [sys.executable, "-m", "locum.lab.forging.stranger", str(file), "2000", EVIL]
        )
        processes.run("evil", ["sleep", "0.2"])
        captures.stop()
    finally:
        place.remove()
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["failed"] == {}
    assert result["sent"] == dict(Counter(f"{shot.kind} > {shot.aimed_at}" for shot in shots))
    sent = [packet for packet in pcap.datagrams(captures.files["evil"]) if packet.outgoing]
    assert sum(packet.source == TOPOLOGY.address4("ha") for packet in sent) > 20
    assert malformed(captures.files["evil"]) > 50
    for node in ("evil", "ha", "mid"):
        assert malformed(captures.files[node], tuple(BROKEN.values())) == 0


TWICE = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
    channel.bind(("", 434))
    while True:
        data, peer = channel.recvfrom(100)
        channel.sendto(data, peer)
        channel.sendto(data, peer)
"""


def test_each_message_is_matched_with_its_answer(tmp_path: Path) -> None:
    """Against a real echo that answers twice, and a listener that greets: both are recognised."""
    place = LabPlace.claim("test")
    try:
        Network(place, TOPOLOGY).build()
        processes = Processes(place, tmp_path / "logs")
        processes.start("ha", "twice", [sys.executable, "-c", TWICE])
        greeter = ["socat", "TCP4-LISTEN:5683,fork,reuseaddr", "SYSTEM:echo -n hi; sleep 2"]
        processes.start("ha", "greeter", greeter)
        processes.run("ha", ["sleep", "0.5"])
        shots = [Shot("five", "udp", HA, 434, b"12345"), Shot("silent", "udp", HA, 435, b"12345")]
        shots += [Shot("asked", "tcp", HA, 5683, b"hello"), Shot("spoofed", "ip", HA, 17, bytes(9), AN1)]
        file = forgery.write(shots, tmp_path / "shots")
        command = [sys.executable, "-m", "locum.lab.forging.single_shots", str(file), EVIL, "20000"]
        done = processes.run("evil", command)
    finally:
        place.remove()
    assert done.returncode == 0, done.stderr
    answers = {answer.kind: answer for answer in single_shots.read(done.stdout)}
    assert set(answers) == {"five", "silent", "asked"}
    assert answers["five"].answered == 10 and answers["five"].excess == 5
    assert answers["silent"].answered == 0 and answers["silent"].excess == -5
    assert answers["asked"].greeting == 2 and answers["asked"].answered == 0


def test_increases_of_counters_in_a_tree() -> None:
    before = {"drops": {"a": 1, "b": 2}, "name": "x", "flag": False}
    after = {"drops": {"a": 4, "b": 2, "new": 3}, "name": "y", "flag": True}
    assert increases(before, after) == {"drops.a": 3, "drops.new": 3}


def test_overheard_messages_are_complete_and_of_their_interval(tmp_path: Path) -> None:
    file = _one_request(tmp_path)
    target = TOPOLOGY.address4("ha")
    assert forgery.overheard(file, 434, (1,)) == [Overheard(IPv4Address(EVIL), target, b"\x01" + bytes(29))]
    assert forgery.overheard(file, 434, (3,)) == []
    assert forgery.overheard(file, 434, (1,), [(0.0, 1e12)]) == []


def _one_request(folder: Path) -> Path:
    place = LabPlace.claim("test")
    try:
        Network(place, TOPOLOGY).build()
        processes = Processes(place, folder / "logs")
        captures = Captures(processes, TOPOLOGY, folder)
        captures.start()
        shots = [
            Shot("x", "udp", str(TOPOLOGY.address4("ha")), 434, b"\x01" + bytes(size))
            for size in (29, 29, 700)
        ]
        file = forgery.write(shots, folder / "shots")
        processes.run("evil", [sys.executable, "-m", "locum.lab.forging.stranger", str(file), "100", EVIL])
        processes.run("evil", ["sleep", "0.2"])
        captures.stop()
    finally:
        place.remove()
    return captures.files["ha"]
