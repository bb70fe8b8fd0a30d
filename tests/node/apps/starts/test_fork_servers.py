"""Processes of proxies that fork servers make: they are the daemon's own children, and as confined as any other (A1)."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import cbor2
import pytest

from locum.apps import fork_server
from locum.node.apps.starts import starting
from locum.node.apps.starts.fork_server import ForkServer
from locum.node.apps.starts.starting import Starts
from tests.node.apps.starts.world import Invented, Kinds, alive, children, status, until
from tests.node.apps.world import ROOT

SAME = ("CapEff", "CapPrm", "CapBnd", "CapInh", "NoNewPrivs", "Seccomp", "Groups", "Gid", "Umask", "Threads")
SIGNALS = ("SigBlk", "SigIgn", "SigCgt")


@pytest.fixture
def kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kinds:
    made = Kinds(tmp_path, monkeypatch)
    made.write("plain")
    return made


@pytest.fixture
async def starts(kinds: Kinds) -> AsyncIterator[Starts]:
    made = Starts()
    before = children()
    yield made
    made.close()
    left = children() - before
    assert not left, f"processes that nobody has waited for: {left}"


async def test_copies_are_children_of_the_daemon(starts: Starts) -> None:
    one, two = [await Invented(starts, "plain").begin() for _ in range(2)]
    server = starts.servers()["plain"]
    assert status(one.process.pid, "PPid") == status(server, "PPid") == {"PPid": str(os.getpid())}
    results = [await one.result(), await two.result()]
    assert [result["parent"] for result in results] == [os.getpid()] * 2
    assert starts.servers() == {"plain": server}, "one server has made both"


async def test_copies_draw_different_numbers(starts: Starts) -> None:
    """Of `random`, of OpenSSL and of the kernel."""
    drawn = [(await (await Invented(starts, "plain").begin()).result())["chance"] for _ in range(3)]
    for column in zip(*drawn, strict=True):
        assert len(set(column)) == 3


async def test_both_ways_confine_alike(starts: Starts) -> None:
    """The kernel's view of a copy is that of a process that was started anew, but for its memory."""
    views = []
    for ways in (starts, None):
        one, other = [await Invented(ways, "plain").begin() for _ in range(2)]
        pid = one.process.pid
        places = {
            name: os.readlink(f"/proc/{pid}/{name}")
            for name in ("root", "cwd", "ns/mnt", "ns/pid", "ns/user", "ns/uts", "ns/cgroup")
        }
        own = {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc")}
        for name, link in own.items():
            assert link != os.readlink(f"/proc/self/ns/{name}")
            assert link != os.readlink(f"/proc/{other.process.pid}/ns/{name}")
        views.append(
            {
                **status(pid, *SAME, *SIGNALS),
                "user": int(status(pid, "Uid")["Uid"].split()[0]) - pid,
                "limits": Path(f"/proc/{pid}/limits").read_text(),
                "cgroup": Path(f"/proc/{pid}/cgroup").read_text(),
                "oom": Path(f"/proc/{pid}/oom_score_adj").read_text(),
                "places": {name: link.replace(str(pid), "PID") for name, link in places.items()},
                "session": (os.getsid(pid), os.getpgid(pid)),
                "nice": os.getpriority(os.PRIO_PROCESS, pid),
            }
        )
        if ways is starts:
            opened = {
                int(name): os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")
            }
        for watched in (one, other):
            watched.process.kill()
    assert views[0] == views[1]
    assert [re.sub(r"\d+", "", opened.pop(number)) for number in range(5)] == [
        "/dev/null",
        "pipe:[]",
        "pipe:[]",
        "socket:[]",
        "anon_inode:[eventpoll]",
    ]
    assert not opened


async def test_fork_server_knows_nothing_of_devices(starts: Starts) -> None:
    """Settings of a proxy are neither in the memory of the server that made it, nor in the next copy."""
    secret = os.urandom(12).hex()
    one = await Invented(starts, "plain").begin(password=secret)
    await until(lambda: _holds(one.process.pid, secret))
    two = await Invented(starts, "plain").begin()
    assert not _holds(starts.servers()["plain"], secret)
    assert not _holds(two.process.pid, secret)
    for watched in (one, two):
        watched.process.kill()


def _holds(pid: int, text: str) -> bool:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            places, rights, *_ = line.split()
            if rights.startswith("rw") and "[v" not in line:
                first, last = (int(place, 16) for place in places.split("-"))
                memory.seek(first)
                if text.encode() in memory.read(last - first):
                    return True
    return False


async def test_copies_share_memory(starts: Starts) -> None:
    """Most of a copy is the memory of its server: it costs a part of one that is started anew."""
    copies = [await Invented(starts, "plain").begin() for _ in range(8)]
    alone = await Invented(None, "plain").begin()
    dirty = [_private(watched.process.pid) for watched in copies]
    assert max(dirty) < _private(alone.process.pid) * 0.7
    for watched in (*copies, alone):
        watched.process.kill()


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


async def test_killed_server_is_replaced_and_its_copies_go_on(starts: Starts) -> None:
    one = await Invented(starts, "plain").begin()
    first = starts.servers()["plain"]
    os.kill(first, signal.SIGKILL)
    two = await Invented(starts, "plain").begin()
    assert starts.servers()["plain"] != first
    assert (await one.result())["version"] == (await two.result())["version"] == "1"
    assert not one.reason.done()


async def test_no_start_is_lost_when_servers_die(starts: Starts) -> None:
    """They are killed, also between a copy's begin and its first word."""
    crowd = [Invented(starts, "plain") for _ in range(30)]
    killed: set[int] = set()
    async with asyncio.timeout(180):
        while not all(one.ready.is_set() for one in crowd):
            for server in starts.servers().values():
                ready = sum(one.ready.is_set() for one in crowd)
                if len(killed) < 3 and ready > 5 * len(killed) and server not in killed:
                    os.kill(server, signal.SIGKILL)
                    killed.add(server)
            await asyncio.sleep(0.001)
    assert killed and len({one.process.pid for one in crowd}) == len(crowd)
    assert not any(one.reason.done() for one in crowd)
    for one in crowd:
        one.process.kill()


async def test_server_that_does_not_answer_is_replaced(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await Invented(starts, "plain").begin()).process.kill()
    os.kill(first := starts.servers()["plain"], signal.SIGSTOP)
    monkeypatch.setattr(starting, "BIRTH", 0.5)
    one = Invented(starts, "plain")
    await asyncio.sleep(0.1)
    monkeypatch.setattr(starting, "BIRTH", 60.0)
    assert (await (await one.begin()).result())["version"] == "1"
    await until(lambda: first not in children())


async def test_process_that_nobody_wants_any_more_is_ended(starts: Starts) -> None:
    """Before it begins, or while its server makes it."""
    before = children()
    asked, waits = Invented(starts, "plain"), [Invented(starts, "plain") for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked.process.kill()
    for one in waits:
        assert await one.process.end() == {}
    await (last := Invented(starts, "plain")).begin()
    assert children() - before == {starts.servers()["plain"], last.process.pid}
    assert not asked.ready.is_set() and not any(one.ready.is_set() for one in waits)
    last.process.kill()


async def test_few_processes_start_at_once(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind has its own queue: one whose import takes long keeps only its own waiting."""
    monkeypatch.setattr(starting, "AT_ONCE", 2)
    kinds_directory = Path(os.environ["PYTHONPATH"].split(os.pathsep)[0])
    text = (kinds_directory / "invented_plain.py").read_text()
    (kinds_directory / "invented_slow.py").write_text("import threading, time\ntime.sleep(3600)\n" + text)
    (kinds_directory / "invented-1.dist-info" / "entry_points.txt").write_text(
        "[locum.apps]\nplain = invented_plain:Kind\nslow = invented_slow:Kind\n"
    )
    slow = [Invented(Starts(fork=False), "slow"), *(Invented(starts, "slow") for _ in range(4))]
    crowd = [Invented(starts, "plain") for _ in range(6)]
    for one in crowd:
        await one.begin()
    assert slow[0].process.pid and not any(one.process.pid for one in slow[1:])
    for one in (*slow, *crowd):
        one.process.kill()


@pytest.mark.parametrize(
    "beginning, word",
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
            "threads",
        ),
        ("import subprocess\nCHILD = subprocess.Popen(['sleep', '20'])", "processes"),
        ("KEPT = open('/dev/null')", "files"),
        ("import mmap\nSHARED = mmap.mmap(-1, 4096)", "shared memory"),
    ],
    ids=["threads", "processes", "files", "memory"],
)
async def test_kind_that_cannot_be_copied_starts_anew(
    starts: Starts, kinds: Kinds, caplog: pytest.LogCaptureFixture, beginning: str, word: str
) -> None:
    kinds.write("wayward", beginning)
    caplog.set_level("INFO")
    ones = [Invented(starts, "wayward") for _ in range(2)]
    for one in ones:
        assert (await (await one.begin()).result())["version"] == "1"
    assert starts.servers() == {}
    assert f"without a fork server: it has {word}" in re.sub("started |opened ", "", caplog.text)


@pytest.mark.parametrize(
    "beginning", ["import os\nos._exit(7)", "import no_such_module"], ids=["exits", "fails"]
)
async def test_broken_kind_fails_as_without_a_fork_server(
    starts: Starts, kinds: Kinds, beginning: str
) -> None:
    kinds.write("broken", beginning)
    forked, anew = Invented(starts, "broken"), Invented(None, "broken")
    reasons = [await asyncio.wait_for(one.reason, 120) for one in (forked, anew)]
    assert reasons[0] == reasons[1] and "it ended with status" in reasons[0]


async def test_changed_kind_is_loaded_again(starts: Starts, kinds: Kinds) -> None:
    """Also one that was installed after the server had begun."""

    async def version() -> str:
        return str((await (await Invented(starts, "plain").begin()).result())["version"])

    assert await version() == "1"
    server = starts.servers()["plain"]
    kinds.write("plain", version="second")
    async with asyncio.timeout(120):
        while await version() != "second":
            await asyncio.sleep(0.1)
    assert starts.servers()["plain"] == server, "the same process has begun again"
    kinds.write("later", version="3")
    assert (await (await Invented(starts, "later").begin()).result())["version"] == "3"


async def test_idle_server_ends(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "IDLE", 0.5)
    one = await Invented(starts, "plain").begin()
    await until(lambda: not starts.servers())
    assert (await one.result())["version"] == "1"
    assert (await (await Invented(starts, "plain").begin()).result())["version"] == "1"


async def test_copy_that_the_kernel_refuses_is_reported(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says so in the channel of the process that it could not make."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control, daemon = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def refused() -> int:
        raise OSError(11, "Resource temporarily unavailable")

    with ours, control, daemon, open(os.devnull, "wb") as output:
        with theirs:
            socket.send_fds(
                daemon, [cbor2.dumps(["1", "1"])], [theirs.fileno(), output.fileno()]
            )  # fmt: skip
        monkeypatch.setattr(fork_server, "clone", refused)
        assert fork_server._copied(control, None) is None
        told = ours.recv(1000)
        assert ours.recv(1000) == b"", "nobody else has it"
    assert cbor2.loads(told) == ["unborn", "Resource temporarily unavailable"]
    monkeypatch.setattr(ForkServer, "ask", lambda _self, _arguments, ends: ends.their_channel.send(told))
    one = Invented(starts, "plain")
    assert await asyncio.wait_for(one.reason, 60) == "Resource temporarily unavailable"


DAEMON = """
import asyncio, sys
from tests.node.apps.starts.world import Invented
from locum.node.apps.starts.starting import Starts

async def main():
    starts = Starts()
    crowd = [await Invented(starts, "plain").begin() for _ in range(3)]
    print(*starts.servers().values(), *(one.process.pid for one in crowd), flush=True)
    for _ in range(200):
        Invented(starts, "plain")
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def test_killed_daemon_leaves_no_process(kinds: Kinds) -> None:
    """Also none of those that begin at that moment."""
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON], stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True
    )
    try:
        assert daemon.stdout is not None
        pids = list(map(int, daemon.stdout.readline().split()))
        assert len(pids) == 4 and all(map(alive, pids))
        deadline = time.monotonic() + 60
        while len(_session(daemon.pid)) < 8 and time.monotonic() < deadline:
            time.sleep(0.001)
    finally:
        daemon.kill()
        daemon.communicate()
    deadline = time.monotonic() + 60
    while (left := _session(daemon.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left and not any(map(alive, pids))


def _session(leader: int) -> list[int]:
    """Processes of this session that run."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            member = os.getsid(int(name)) == leader
        except OSError:
            continue
        if member and int(name) != leader and alive(int(name)):
            found.append(int(name))
    return found
