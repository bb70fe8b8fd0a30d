"""What the stranger sends is of every kind, can be written down, and really goes out to every target."""

import json
import sys
from collections import Counter
from ipaddress import IPv4Address
from pathlib import Path
from random import Random

from locum.lab import forgery, pcap
from locum.lab.capture import Captures, malformed
from locum.lab.forgery import Aim, Shot
from locum.lab.network import Network
from locum.lab.place import LabPlace
from locum.lab.processes import Processes
from locum.lab.scenarios.fig06_forged import increases
from locum.lab.topology import figure_5
from locum.wire.registration import RegistrationRequest

TOPOLOGY = figure_5()
HOME = IPv4Address("10.10.100.4")


EVIL = str(TOPOLOGY.address4("evil"))


def aim() -> Aim:
    agents = [TOPOLOGY.address4("ha"), TOPOLOGY.address4("an1", "radio0")]
    return Aim(
        home_address=HOME,
        home_agent=agents[0],
        agents=agents,
        control=[TOPOLOGY.address4("mnps")],
        stranger=TOPOLOGY.address4("evil"),
        correspondent=TOPOLOGY.address4("cn"),
        other_key=bytes(16),
        controls=[(TOPOLOGY.address4("mnps"), b"\x40\x02\x00\x01")],
        now=1.7e9,
    )


def test_a_volley_has_as_many_of_every_kind() -> None:
    shots = forgery.volley(aim(), Random(1), 20)
    kinds = Counter(shot.kind for shot in shots)
    assert set(kinds.values()) == {20}
    assert len(kinds) > 20
    assert {shot.via for shot in shots} == {"udp", "tcp", "ip"}
    assert [Shot.from_line(shot.to_line()) for shot in shots] == shots


def test_forged_requests_are_well_formed_and_ask_for_the_address() -> None:
    for shot in forgery.volley(aim(), Random(1), 5):
        if shot.kind in ("registration-wrong-key", "registration-other-mobile", "deregistration-forged"):
            request = RegistrationRequest.decode(shot.payload)
            assert request.home_address == HOME
            assert request.care_of_address == TOPOLOGY.address4("evil")


def test_the_stranger_sends_them_all(tmp_path: Path) -> None:
    place = LabPlace.claim("test")
    try:
        Network(place, TOPOLOGY).build()
        processes = Processes(place, tmp_path / "logs")
        captures = Captures(processes, TOPOLOGY, tmp_path)
        captures.start()
        shots = [shot for shot in forgery.volley(aim(), Random(1), 10) if shot.via != "tcp"]
        file = forgery.write(shots, tmp_path / "shots")
        done = processes.run("evil", [sys.executable, "-m", "locum.lab.stranger", str(file), "2000", EVIL])
        processes.run("evil", ["sleep", "0.2"])
        captures.stop()
    finally:
        place.remove()
    assert done.returncode == 0, done.stderr
    sent = json.loads(done.stdout)
    assert sum(sent.values()) == len(shots)
    assert not [kind for kind in sent if " " in kind]
    spoofed = [
        packet
        for packet in pcap.datagrams(captures.files["evil"])
        if packet.outgoing and packet.source == TOPOLOGY.address4("ha")
    ]
    assert len(spoofed) == 10, "forged replies claim to come from the home agent"
    assert malformed(captures.files["cn"]) == 0


def test_what_went_up_in_a_tree_of_counters() -> None:
    before = {"drops": {"a": 1, "b": 2}, "name": "x", "flag": False}
    after = {"drops": {"a": 4, "b": 2, "new": 3}, "name": "y", "flag": True}
    assert increases(before, after) == {"drops.a": 3, "drops.new": 3}


def test_what_was_overheard_is_whole(tmp_path: Path) -> None:
    assert forgery.overheard(_one_request(tmp_path), 434, (1,)) == [
        (TOPOLOGY.address4("ha"), b"\x01" + bytes(29))
    ]


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
        processes.run("evil", [sys.executable, "-m", "locum.lab.stranger", str(file), "100", EVIL])
        processes.run("evil", ["sleep", "0.2"])
        captures.stop()
    finally:
        place.remove()
    return captures.files["ha"]
