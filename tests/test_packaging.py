"""Packaging: the wheel, the pinned requirements, the systemd units, the suspend hook."""

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import cbor2
import pytest

from tests.node.apps.world import install

ROOT = Path(__file__).resolve().parent.parent
SYSTEMD = ROOT / "packaging" / "systemd"
UNITS = ["locum@.service", "locum-mobile@.service", "locum-mnps@.service"]


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end with nothing in the environment but ``environment``; output is part of a failure."""
    done = subprocess.run(
        [str(part) for part in command], env=environment, capture_output=True, text=True, timeout=120, cwd="/"
    )
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


# --- the wheel ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built by the pinned hatchling of this environment: nothing is fetched."""
    directory = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = directory.glob("*.whl")
    return built


def test_wheel_has_all_runtime_files_of_a_node(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        objects = [name for name in names if re.fullmatch(r"locum/dataplane/objects/[\w.]+\.o", name)]
        assert objects, "no compiled eBPF object in the wheel"
        for name in objects:
            content = archive.read(name)
            assert content.startswith(b"\x7fELF"), name
            assert int.from_bytes(content[18:20], "little") == 247, f"{name} is not an eBPF object (EM_BPF)"
    data = {name for name in names if name.endswith((".cddl", "py.typed", "dictionary.locum"))}
    source = {
        str(path.relative_to(ROOT / "src"))
        for pattern in ("*.cddl", "dictionary.locum")
        for path in (ROOT / "src").rglob(pattern)
    }
    assert data == source | {"locum/py.typed"}
    for unit in [*UNITS, "locum.system-sleep"]:
        assert any(name.endswith(f"share/locum/systemd/{unit}") for name in names), unit
    assert not [name for name in names if name.startswith(("tests/", "bench/", "bpf/"))]


def test_the_wheel_runs_on_a_machine_without_clang(wheel: Path, tmp_path: Path) -> None:
    """The user guide's commands in an empty environment; then a PATH that holds little else, and the data plane loads."""
    fresh = tmp_path / "fresh"
    venv.create(fresh, with_pip=True, symlinks=True)
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
    }
    requirements = ROOT / "requirements" / "runtime.txt"
    run(fresh / "bin" / "pip", "install", "--quiet", "--require-hashes", "-r", requirements, **own)
    run(fresh / "bin" / "pip", "install", "--quiet", "--no-deps", wheel, **own)
    little = tmp_path / "bin"
    little.mkdir()
    for tool in ("sh", "ip", "mount"):
        (little / tool).symlink_to(shutil.which(tool) or pytest.fail(f"no {tool}"))
    only = {"PATH": f"{fresh / 'bin'}:{little}", "HOME": str(tmp_path)}
    where = run(fresh / "bin" / "python", "-c", "import locum; print(locum.__file__)", **only)
    assert where.stdout.startswith(str(fresh)), "the wheel is not what was tried"
    version = run(fresh / "bin" / "locum", "--version", **only)
    assert re.search(r"\b\d+\.\d+\.\d+\b", version.stdout), version.stdout
    assert version.stdout.split()[-1] in wheel.name
    pins = tmp_path / "pins"
    pins.mkdir()
    loading = [fresh / "bin" / "python", "-c", DATA_PLANE, pins]
    assert in_a_network_of_its_own(links(pins) + '"$@"', *map(str, loading), **only) == "loaded\n"


def test_every_dependency_of_the_wheel_is_pinned(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = archive.read(metadata).decode()
    lines = re.findall(r"^Requires-Dist: ([\w-]+)(.*)$", text, re.MULTILINE)
    extra = {name for name, rest in lines if "extra ==" in rest}
    needed = {name for name, _ in lines} - extra
    assert needed and needed <= pinned("runtime.txt").keys()
    assert extra <= pinned("dev.txt").keys(), "tests need what is optional for users"


# --- requirement files ----------------------------------------------------------------------------------------


def pinned(name: str) -> dict[str, str]:
    """Package to version of a requirement file; every one has to have a hash."""
    versions: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", (ROOT / "requirements" / name).read_text()):
        found = re.match(r"([\w-]+)(?:\[\w+\])?==(\S+)", entry)
        if found:
            assert "--hash=sha256:" in entry, f"{found[1]} has no hash"
            versions[found[1]] = found[2]
    return versions


@pytest.mark.parametrize("name", ["runtime.txt", "dev.txt"])
def test_requirement_files_pin_packages_and_name_no_place(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE), (
        "an option line: only pins and hashes belong here"
    )
    assert len(pinned(name)) > 5


def test_development_runs_on_the_pins_of_an_installed_node() -> None:
    assert pinned("runtime.txt").items() <= pinned("dev.txt").items()


def test_declared_dependencies_are_those_that_are_pinned() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    lines = (ROOT / "requirements" / "runtime.in").read_text().splitlines()
    assert declared == {line for line in lines if line and not line.startswith("#")}


# --- set-up ---------------------------------------------------------------------------------------------------


def test_set_up_names_missing_tools_in_one_line() -> None:
    done = subprocess.run(
        ["sh", str(ROOT / "packaging/debian/setup.sh"), "python", "no-such-python"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        done.stderr.count("\n") == 1
        and "no-such-python not found" in done.stderr
        and "apt-get" in done.stderr
    )


def test_tests_without_root_are_refused_in_one_line() -> None:
    script = ROOT / "packaging/debian/setup.sh"
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "sh", "-s", "root", "test"],
        stdin=script.open(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "locum: `make test` needs root (network namespaces, eBPF, TCP_REPAIR). Run: sudo make test\n"
    )


# --- systemd --------------------------------------------------------------------------------------------------


def unit(name: str) -> dict[str, list[str]]:
    """The [Service] settings of a unit; a key may stand more than once."""
    settings: dict[str, list[str]] = {}
    section = ""
    for line in (SYSTEMD / name).read_text().splitlines():
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


AGENT = {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_BPF", "CAP_PERFMON"}


@pytest.mark.parametrize(
    ("name", "capabilities"),
    [
        ("locum@.service", AGENT),
        ("locum-mobile@.service", AGENT | {"CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_OVERRIDE"}),
        (
            "locum-mnps@.service",
            AGENT
            | {"CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID"}
            | {"CAP_KILL", "CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"},
        ),
    ],
)
def test_units_grant_only_needed_capabilities(name: str, capabilities: set[str]) -> None:
    settings = unit(name)
    assert set(" ".join(settings["CapabilityBoundingSet"]).split()) == capabilities
    assert settings["NoNewPrivileges"] == ["yes"]
    assert settings["Type"] == ["notify"]
    assert int(settings["WatchdogSec"][0]) > 0


def test_proxies_start_with_the_capabilities_of_their_unit() -> None:
    """Confinement needs some; without them no proxy would run in a packaged installation."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        host = [
            sys.executable,
            "-m",
            "locum.apps.host",
            str(theirs.fileno()),
            "keepalive",
            str(256 << 20),
            "60",
        ]
        process = subprocess.Popen(
            [*_as_the_stand_in(), *host], pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
        theirs.close()
        said = ours.recv(100)
    assert cbor2.loads(said or b"\x80") == ["ready"], process.communicate()[1]
    assert process.wait(60) == 0
    assert unit("locum-mnps@.service")["RestrictNamespaces"] == ["net ipc pid mnt"]


def _as_the_stand_in() -> list[str]:
    """A command that runs another one with the capabilities of a packaged stand-in."""
    named = " ".join(unit("locum-mnps@.service")["CapabilityBoundingSet"]).lower().replace("cap_", "+")
    return ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{','.join(named.split())}"]


LIFE_OF_A_PROXY = """
import asyncio, sys
from pathlib import Path
from locum.node.apps.room import problem
from tests.node.apps.driven import Driven
from tests.node.apps.test_decoding import run, song

async def main():
    folder = Path(sys.argv[1])
    data = folder / "data"
    first = await Driven(data).begin()
    first.do(["Append", "a", "hello"], ["Sync", "a"])
    await first.wait("Synced")
    (data / ".sent.part").write_bytes(b"upload under way")
    first.process.kill()
    second = await Driven(data).begin()
    await second.process.end()
    third = await Driven(data, wayward="hides").begin()
    print(problem(data, third.process.pid, 1 << 20) or "its hidden files are not seen")
    third.process.kill()
    print((data / "a").read_text(), await run(song(folder), folder / "out"))

asyncio.run(main())
"""


def test_unit_lets_proxies_end_and_have_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process of a proxy has a user of its own: not even root ends it, or owns its files, without capabilities."""
    install(tmp_path, monkeypatch)
    done = subprocess.run(
        [*_as_the_stand_in(), sys.executable, "-c", LIFE_OF_A_PROXY, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    looked, *rest = done.stdout.splitlines() or [""]
    assert looked.startswith("its files take"), done.stdout + done.stderr
    assert "".join(rest).strip() == "hello", done.stdout + done.stderr


def test_units_differ_only_where_their_roles_do() -> None:
    differing = {
        "CapabilityBoundingSet",
        "ProtectControlGroups",
        "FileDescriptorStoreMax",
        "RestartSec",
        "RestrictNamespaces",
        "OOMScoreAdjust",
    }
    agent, *others = ({k: v for k, v in unit(name).items() if k not in differing} for name in UNITS)
    for other in others:
        assert other == agent


def test_only_the_stand_in_asks_systemd_to_keep_descriptors() -> None:
    keeping = {name for name in UNITS if "FileDescriptorStoreMax" in unit(name)}
    assert keeping == {"locum-mnps@.service"}


@pytest.mark.parametrize("name", UNITS)
def test_units_are_well_formed(name: str) -> None:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.read(SYSTEMD / name)
    assert parser.sections() == ["Unit", "Service", "Install"]
    assert parser["Service"]["ExecStart"].endswith("locum node run /etc/locum/%i.toml")


DATA_PLANE = """
import sys
from pathlib import Path
from locum.dataplane import DataPlane
plane = DataPlane.open("caps", ["v0"], bpf_root=Path(sys.argv[1]))
plane.remove()
print("loaded")
"""

PROGRAM = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", 0))
program = socket.create_connection(listener.getsockname(), source_address=("10.255.0.4", 0))
peer, _ = listener.accept()
peer.send(b"not read yet")
print("open", flush=True)
time.sleep(60)
"""

# Found, frozen and captured by the daemon of a mobile node, from a program of another user; then put back.
CAPTURE = """
import sys
from ipaddress import ip_address
from pathlib import Path
from locum.sessions.search.find import find
from locum.sessions.programs.freezer import Freezer
from locum.sessions.tcp.live import LiveSocket
(candidate,), _ = find([ip_address("10.255.0.4")])
freezer = Freezer("caps", Path(sys.argv[1]), signals=sys.argv[2] == "stop")
freezer.freeze(candidate.processes)
live = LiveSocket.open(candidate)
record = live.capture()
live.resume()
freezer.thaw(candidate.processes)
print("captured", record.flow.local)
"""


def with_capabilities_of(name: str) -> list[str]:
    """The command that runs another with the capabilities of a unit and no more."""
    granted = " ".join(unit(name)["CapabilityBoundingSet"]).split()
    wanted = ",".join("+" + capability.removeprefix("CAP_").lower() for capability in granted)
    return ["setpriv", "--inh-caps=-all", f"--bounding-set=-all,{wanted}"]


def links(pins: Path) -> str:
    """A script's beginning: a bpffs, and two interfaces."""
    return f"mount -t bpf none {pins}; ip link add v0 type veth peer name v1; ip link set v0 up; "


def in_a_network_of_its_own(script: str, *arguments: str, **environment: str) -> str:
    """Run a shell script in new network and mount namespaces, which vanish with it."""
    unshare = shutil.which("unshare") or pytest.fail("no unshare")
    done = subprocess.run(
        [unshare, "--net", "--mount", "--propagation=private", "sh", "-euc", script, "sh", *arguments],
        env=environment or None,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("name", UNITS)
def test_the_data_plane_loads_with_the_capabilities_of_a_unit(name: str, tmp_path: Path) -> None:
    command = [*with_capabilities_of(name), sys.executable, "-c", DATA_PLANE, str(tmp_path)]
    assert in_a_network_of_its_own(links(tmp_path) + '"$@"', *command) == "loaded\n"


@pytest.mark.parametrize("way", ["auto", "stop"])
def test_a_mobile_node_captures_from_programs_of_other_users(way: str, tmp_path: Path) -> None:
    prepare = (
        "ip link set lo up; ip address add 10.255.0.4/32 dev lo; mkfifo $1/said; "
        'setpriv --reuid=65534 --regid=65534 --clear-groups "$3" -c "$2" >$1/said & program=$!; shift 3; '
        "trap 'kill $program' EXIT; read said <$0; "
    )
    command = [
        *with_capabilities_of("locum-mobile@.service"),
        sys.executable,
        "-c",
        CAPTURE,
        str(tmp_path),
        way,
    ]
    script = prepare.replace("$0", f"{tmp_path}/said") + '"$@"'
    said = in_a_network_of_its_own(script, str(tmp_path), PROGRAM, "/usr/bin/python3", *command)
    assert said == "captured 10.255.0.4\n"


# --- the suspend hook -----------------------------------------------------------------------------------------


@pytest.fixture
def lid(tmp_path: Path) -> Iterator["Lid"]:
    yield Lid(tmp_path)


class Lid:
    """The hook with recorded programs in place of systemctl, systemd-run, logger and locum."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.program(
            "systemctl", 'case $1 in list-units) echo "locum-mobile@laptop.service loaded active";; esac'
        )
        self.program("systemd-run", 'echo "systemd-run $*" >>"$LOG"')
        self.program("logger", 'echo "logger $*" >>"$LOG"')
        self.program("locum", 'echo "locum $* at $LOCUM_SOCKET" >>"$LOG"')

    def program(self, name: str, body: str) -> None:
        path = self.directory / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def turn(self, *arguments: str, **environment: str) -> str:
        path = f"{self.directory}:{os.defpath}"
        run("sh", SYSTEMD / "locum.system-sleep", *arguments, PATH=path, LOG=str(self.log), **environment)
        return self.log.read_text() if self.log.exists() else ""


def test_closing_the_lid_runs_sleep(lid: Lid) -> None:
    assert lid.turn("pre", "suspend") == "locum sleep at /run/locum/laptop.sock\n"


def test_opening_the_lid_runs_wake_without_delay(lid: Lid) -> None:
    said = lid.turn("post", "suspend")
    assert said.startswith("systemd-run") and "--no-block" in said
    assert "locum wake" in said and "LOCUM_SOCKET=/run/locum/laptop.sock" in said


def test_failed_hand_over_does_not_prevent_the_suspend(lid: Lid) -> None:
    lid.program("locum", "exit 1")
    said = lid.turn("pre", "suspend")
    assert "laptop: sessions were not handed over" in said and "exit code 1" in said


def test_sessions_that_stay_are_in_the_journal_each_on_a_line(lid: Lid) -> None:
    lid.program("locum", "echo 'asleep: 1 session stayed'; echo '  stayed: nginx (process 8)'; exit 6")
    said = lid.turn("pre", "suspend").splitlines()
    assert [line.partition(" -- ")[2] for line in said] == [
        "laptop: asleep: 1 session stayed",
        "laptop:   stayed: nginx (process 8)",
    ]


@pytest.mark.parametrize(("code", "tries"), [(0, 1), (6, 1), (1, 2)])
def test_a_wake_that_is_done_is_not_repeated(lid: Lid, code: int, tries: int) -> None:
    lid.program("systemd-run", 'while [ "$1" != sh ]; do shift; done; exec "$@"')
    lid.program("sleep", "exit 0")
    lid.program("locum", f'echo "locum $*" >>"$LOG"; [ "$(wc -l <"$LOG")" -ge 2 ] && exit 0; exit {code}')
    assert lid.turn("post", "suspend").count("locum wake") == tries


def test_a_node_that_hangs_does_not_prevent_the_suspend(lid: Lid) -> None:
    lid.program("locum", "exec sleep 60")
    assert "exit code 124" in lid.turn("pre", "suspend", LOCUM_SLEEP_SECONDS="0.2")


def test_a_host_without_mobile_nodes_suspends_as_before(lid: Lid) -> None:
    lid.program("systemctl", "exit 0")
    assert lid.turn("pre", "suspend") == lid.turn("post", "suspend") == ""


def test_the_hook_is_executable() -> None:
    assert os.access(SYSTEMD / "locum.system-sleep", os.X_OK)
