"""Labs are built for real, stand side by side, and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from locum.lab.network import place as place_module
from locum.lab.network.namespaces import RECEIVE_BUFFER, UNKNOWN_PORTS, Network, inside, run
from locum.lab.network.place import LabPlace, started_at
from locum.lab.network.topology import figure_5
from locum.lab.processes import Processes, is_frozen, state_of, wait_until


@pytest.fixture
def place() -> Iterator[LabPlace]:
    claimed = LabPlace.claim("test")
    yield claimed
    claimed.remove()


def leftovers(place: LabPlace) -> list[object]:
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(place.path) in line]
    return [*place.namespaces(), *place.processes(), *mounts, *([place.path] if place.path.exists() else [])]


def pings(place: LabPlace, node: str, address: str) -> bool:
    command = [*inside(place, node), "ping", "-c", "1", "-W", "2", "-i", "0.2", address]
    return subprocess.run(command, capture_output=True).returncode == 0


def test_network_carries_both_families_and_cuts_the_radio(place: LabPlace) -> None:
    network = Network(place, figure_5())
    network.build()
    for address in ("10.10.4.2", "10.10.21.1", "10.10.22.1", "10.10.23.2", "2001:db8:4::2", "2001:db8:23::2"):
        assert pings(place, "cn", address), address
    run([*inside(place, "mn"), "ip", "addr", "add", "10.10.21.4/24", "dev", "radio0"])
    assert pings(place, "an1", "10.10.21.4")
    network.set_radio("an1", up=False)
    quiet = network.radio_frames("an1")
    assert not pings(place, "an1", "10.10.21.4")
    assert network.radio_frames("an1") == quiet
    network.set_radio("an1", up=True)
    wait_until("the radio to carry again", lambda: pings(place, "an1", "10.10.21.4"))
    ports = run([*inside(place, "cn"), "sysctl", "-n", "net.ipv4.ip_local_port_range"])
    assert ports.split() == UNKNOWN_PORTS.split()
    for node in figure_5().nodes:
        buffer = run([*inside(place, node.name), "sysctl", "-n", "net.ipv4.tcp_rmem"])
        assert buffer.split() == RECEIVE_BUFFER.split(), "as on Debian 12, whatever this kernel's is"
    links = json.loads(run([*inside(place, "mn"), "ip", "-j", "link"]))
    assert {link["mtu"] for link in links if link["ifname"].startswith("radio")} == {1500}


def test_a_claimed_lab_is_never_seen_without_owner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place_module, "ROOT", tmp_path / "labs")
    rename, seen = Path.rename, []

    def look(path: Path, target: Path) -> Path:
        seen.append([place.identity for place in LabPlace.all()])
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look)
    claimed = LabPlace.claim("test")
    assert seen == [[], []], "while its owner is written, and before it has its name"
    assert [place.owner_alive() for place in LabPlace.all()] == [os.getpid()]
    claimed.remove()
    assert not (tmp_path / "labs").exists()


def test_remains_of_a_killed_claim_are_removed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(place_module, "ROOT", tmp_path / "labs")
    killed = subprocess.Popen(["true"])
    killed.wait()
    (tmp_path / "labs" / f".claim-{killed.pid}-abcd").mkdir(parents=True)
    claimed = LabPlace.claim("test")
    assert [path.name for path in (tmp_path / "labs").iterdir()] == [claimed.identity]
    claimed.remove()
    assert not (tmp_path / "labs").exists()


def test_claims_and_removals_side_by_side(tmp_path: Path) -> None:
    """The directory of all labs comes and goes with them; neither a claim nor a removal fails for that."""
    script = """
from locum.lab.network.place import LabPlace
for _ in range(60):
    LabPlace.claim("test").remove()
"""
    environment = {**os.environ, "LOCUM_LAB_DIRECTORY": str(tmp_path / "labs")}
    command = [sys.executable, "-c", script]
    claimers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(claimer.communicate()[1], claimer.returncode) for claimer in claimers] == [(b"", 0)] * 4
    assert not (tmp_path / "labs").exists()


def test_two_labs_stand_side_by_side(place: LabPlace) -> None:
    other = LabPlace.claim("test")
    try:
        for lab_place in (place, other):
            Network(lab_place, figure_5()).build()
            lab_place.mount_bpf()
        other.remove()
        assert pings(place, "cn", "10.10.4.2")
        assert not leftovers(other)
        assert len(place.namespaces()) == len(figure_5().nodes)
    finally:
        other.remove()


def test_the_last_lab_removes_the_directory_of_sshd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sshd = tmp_path / "sshd"
    monkeypatch.setattr(place_module, "SSHD", sshd)
    monkeypatch.setattr(place_module, "ROOT", tmp_path / "labs")
    first, second = LabPlace.claim("test"), LabPlace.claim("test")
    for network in (first, second):
        network.lend_sshd_directory()
    first.remove()
    assert sshd.exists()
    second.remove()
    assert not sshd.exists()


def test_a_lab_leaves_the_machines_directory_of_sshd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sshd = tmp_path / "sshd"
    sshd.mkdir()
    monkeypatch.setattr(place_module, "SSHD", sshd)
    monkeypatch.setattr(place_module, "ROOT", tmp_path / "labs")
    lab = LabPlace.claim("test")
    lab.lend_sshd_directory()
    lab.remove()
    assert sshd.exists()


def test_remains_of_a_killed_owner_are_found_and_removed(tmp_path: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from locum.lab.network.namespaces import Network
from locum.lab.network.place import LabPlace
from locum.lab.processes import Processes
from locum.lab.network.topology import figure_5
place = LabPlace.claim("test")
Network(place, figure_5()).build()
place.mount_bpf()
Processes(place, Path(sys.argv[1])).start("mn", "sleeper", ["sleep", "1000"])
print(place.identity, flush=True)
time.sleep(1000)
"""
    owner = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    place = LabPlace(owner.stdout.readline().strip())
    assert place.owner_alive() == owner.pid
    owner.kill()
    owner.wait()
    owner.stdout.close()
    assert place.owner_alive() is None
    pids = list(place.processes())
    assert len(pids) == 1
    assert leftovers(place)
    place.remove()
    assert not leftovers(place)
    assert started_at(pids[0]) is None
    place.remove()  # twice is as good as once


def test_programs_are_stopped_by_pid_and_frozen_ones_are_seen(place: LabPlace, tmp_path: Path) -> None:
    Network(place, figure_5()).build()
    processes = Processes(place, tmp_path)
    sleeper = processes.start("cn", "sleeper", ["sleep", "1000"])
    wait_until(
        "nsenter to become the program", lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == "sleep\n"
    )
    assert not is_frozen(sleeper.pid)
    os.kill(sleeper.pid, signal.SIGSTOP)
    wait_until("it to stop", lambda: is_frozen(sleeper.pid))
    begin = time.monotonic()
    processes.stop_all(20.0)
    assert time.monotonic() - begin < 20, "it was continued, and ended by itself"
    assert state_of(sleeper.pid) == ""
