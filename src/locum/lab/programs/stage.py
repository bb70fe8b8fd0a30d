"""The stage for stock programs: servers at the correspondent, settings at the device, and a slow line with a lane for each.

Every program has a port of its own at whichever end listens, so that a capture tells how many connections it made, and the
kernel of the correspondent how many bytes each has moved.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.errors import LabError
from locum.lab.network.namespaces import QUEUE, inside, run
from locum.lab.processes import Program, wait_until
from locum.lab.programs.services import SecureShell, WebServer, make_file, sha256
from locum.lab.programs.stock import BASE_PORT, LARGE, PACE, SIZE, Stock
from locum.lab.world import Lab

NAME = "film"
STATES = ("state", "established", "state", "fin-wait-1", "state", "fin-wait-2", "state", "close-wait")
"""Of connections that may still move bytes: a server that has written all of a file has closed its end."""
COUNTERS = ("bytes_acked:", "bytes_received:")
RECEIVE_BUFFER = "4096 65536 131072"
"""Bytes, at the correspondent: a slow reader there stops its sender, and does not have everything at once."""
_STEP = 2
"""Ports of a program: its server's, and one for a second connection that the server asks for (FTP)."""
WHOLE_LINE = 100_000_000
"""Bits per second of the correspondent's line: each program has a lane of its own."""
LANE = 8 * PACE
"""Bits per second of a lane for one file, before it is opened."""


@dataclass(slots=True)
class Act:
    """A running stock program: at the device, with its peer."""

    stock: Stock
    port: int
    device: Program
    out: Path
    peer: Program | None = None

    @property
    def talker(self) -> Program | None:
        """The program whose standard input takes the lines of its talk."""
        if self.stock.talk is None:
            return None
        return self.peer if self.stock.talk.at_peer else self.device

    def say(self, lines: str) -> None:
        """Write lines to the talker."""
        if (talker := self.talker) is not None and lines:
            assert talker.process.stdin is not None
            talker.process.stdin.write(f"{lines}\n".encode())
            talker.process.stdin.flush()

    def hang_up(self) -> None:
        """End the talker's input."""
        if (talker := self.talker) is not None:
            assert talker.process.stdin is not None
            talker.process.stdin.close()


@dataclass(slots=True)
class Stage:
    """`lab` with everything that `programs` need; `set_up` before `start`."""

    lab: Lab
    programs: Sequence[Stock]
    ports: dict[str, int] = field(init=False)
    folder: Path = field(init=False)
    digest: str = field(init=False)
    large: str = field(init=False)

    def __post_init__(self) -> None:
        self.ports = {
            program.name: BASE_PORT + _STEP * number for number, program in enumerate(self.programs)
        }
        self.folder = self.lab.place.path / "stage"
        (self.folder / "root").mkdir(parents=True)
        self.digest = make_file(self.folder / "root" / NAME, SIZE)
        self.large = make_file(self.folder / "root" / "large", LARGE)

    # The correspondent ----------------------------------------------------------------------------------------------

    def set_up(self) -> None:
        """Lanes on the line, servers at the correspondent, settings for servers at the device."""
        self._lanes()
        self._write()
        for start in (self._web, self._shell, self._ftp, self._broker, self._database):
            start()
        wait_until("the servers of the stage to listen", self._all_listen)

    def _ports(self, *servers: str) -> tuple[int, ...]:
        return tuple(self.ports[program.name] for program in self.programs if program.server in servers)

    def _all_listen(self) -> bool:
        return self.listening("cn") >= set(self._ports("http", "https", "ssh", "ftp", "mqtt", "redis"))

    def _write(self) -> None:
        """Certificate, repository and settings."""
        tls = self.folder / "tls"
        tls.mkdir()
        server = f"subjectAltName=IP:{self.lab.topology.address4('cn')}"
        request = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
        ]
        files = ["-keyout", str(tls / "certificate.key"), "-out", str(tls / "certificate")]
        run([*request, *files, "-days", "2", "-subj", "/CN=cn", "-addext", server])
        repository = self.folder / "git" / NAME
        run(["git", "init", "-q", str(repository)])
        (repository / NAME).write_bytes((self.folder / "root" / NAME).read_bytes())
        git = ["git", "-C", str(repository), "-c", "user.name=lab", "-c", "user.email=lab@example.org"]
        run([*git, "add", NAME])
        run([*git, "commit", "-q", "-m", "A film"])
        (self.folder / "rsyncd.conf").write_text(
            f"uid = root\ngid = root\nuse chroot = no\n[root]\npath = {self.folder}/root\n"
        )
        (self.folder / "broker.conf").write_text(
            "allow_anonymous true\n" + "".join(f"listener {port}\n" for port in self._ports("mqtt"))
        )

    def _serve(self, name: str, command: Sequence[str]) -> None:
        self.lab.processes.start("cn", name, command)

    def _web(self) -> None:
        listens = [str(port) for port in self._ports("http")]
        listens += [f"{port} ssl http2" for port in self._ports("https")]
        folder = self.folder / "web"
        server = WebServer(
            self.lab.processes,
            "cn",
            folder,
            listens=tuple(listens),
            certificate=self.folder / "tls" / "certificate",
        )
        folder.mkdir()
        server.root.symlink_to(self.folder / "root")
        server.start()
        device = WebServer(
            self.lab.processes, "mn", self.folder / "device", listens=(str(self.ports.get("nginx", 0)),)
        )
        device.folder.mkdir()
        device.root.symlink_to(self.folder / "root")
        device.write()

    def _shell(self) -> None:
        shell = SecureShell(self.lab.processes, "cn", self.folder / "ssh", ports=self._ports("ssh"))
        shell.start()
        device = SecureShell(
            self.lab.processes, "mn", self.folder / "device-ssh", port=self.ports.get("sshd", 22)
        )
        device.write(self.folder / "ssh" / "user.pub")

    def _ftp(self) -> None:
        for port in self._ports("ftp"):
            data = f"{port + 1}-{port + 1}"
            command = [
                "-m",
                "pyftpdlib",
                "-i",
                "0.0.0.0",
                "-p",
                str(port),
                "-d",
                f"{self.folder}/root",
                "-r",
                data,
            ]
            self._serve("pyftpdlib", ["/usr/bin/python3", *command])

    def _broker(self) -> None:
        if self._ports("mqtt"):
            self._serve("mosquitto", ["mosquitto", "-c", str(self.folder / "broker.conf")])

    def _database(self) -> None:
        for port in self._ports("redis"):
            options = ["--port", str(port), "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"]
            self._serve("redis", ["redis-server", *options, "--dir", str(self.folder)])

    def _lanes(self) -> None:
        """The line towards the network carries each program at a rate of its own, whatever the others do."""
        run([*inside(self.lab.place, "cn"), "sysctl", "-qw", f"net.ipv4.tcp_rmem={RECEIVE_BUFFER}"])
        self._tc("qdisc", "replace", "root", "handle", "1:", "htb", "default", "ffff")
        self._lane("ffff", WHOLE_LINE)
        marks = []
        for number, program in enumerate(self.programs, 1):
            self._lane(f"{number:x}", LANE * program.files)
            marks += [f"{self.ports[program.name] + more} : 1:{number:x}" for more in range(_STEP)]
        rule = f"meta priority set tcp sport map {{ {', '.join(marks)} }}"
        chain = f"chain out {{ type filter hook output priority mangle\n{rule}\n}}"
        run([*inside(self.lab.place, "cn"), "nft", "-f", "-"], stdin=f"table inet lanes {{\n{chain}\n}}\n")

    def _tc(self, what: str, verb: str, *words: str) -> None:
        (interface,) = self.lab.topology.interfaces("cn")
        run([*inside(self.lab.place, "cn"), "tc", what, verb, "dev", interface, *words])

    def _lane(self, number: str, rate: int) -> None:
        self._tc(
            "class",
            "add",
            "parent",
            "1:",
            "classid",
            f"1:{number}",
            "htb",
            "rate",
            f"{rate}bit",
            "quantum",
            "1514",
        )
        self._tc("qdisc", "add", "parent", f"1:{number}", "bfifo", "limit", str(QUEUE))

    def open_lanes(self, rate: int, *, through: bool = False) -> None:
        """From now on programs have so many bits per second for each file: those alone whose file comes `through`, or all."""
        for number, program in enumerate(self.programs, 1):
            if program.through or not through:
                lane = (
                    "parent",
                    "1:",
                    "classid",
                    f"1:{number:x}",
                    "htb",
                    "rate",
                    f"{rate * program.files}bit",
                )
                self._tc("class", "change", *lane, "quantum", "1514")

    @property
    def awake(self) -> Path:
        """The file whose existence tells slow readers and writers to go on at full speed."""
        return self.folder / "awake"

    # The programs ---------------------------------------------------------------------------------------------------

    def start(self) -> list[Act]:
        """Start all programs, each when its server listens. Raises LabError when one ends at once."""
        peers = {
            program.name: self._peer(program)
            for program in self.programs
            if program.peer and not program.serves
        }
        self._wait_listening(
            "cn",
            [
                program
                for program in self.programs
                if program.peer and not program.serves and not program.server
            ],
        )
        acts = [self._act(program, peers.get(program.name)) for program in self.programs]
        servers = [act for act in acts if act.stock.serves]
        self._wait_listening("mn", [act.stock for act in servers])
        for act in servers:
            act.peer = self._peer(act.stock)
        return acts

    def _wait_listening(self, node: str, programs: Sequence[Stock]) -> None:
        wanted = {self.ports[program.name] for program in programs}
        wait_until(f"the servers at {node} to listen", lambda: self.listening(node) >= wanted)

    def _act(self, stock: Stock, peer: Program | None) -> Act:
        talks = stock.talk is not None and not stock.talk.at_peer
        program = self._run("mn", stock, stock.device, talks)
        return Act(stock, self.ports[stock.name], program, self.out(stock), peer)

    def _peer(self, stock: Stock) -> Program:
        return self._run("cn", stock, stock.peer, stock.talk is not None and stock.talk.at_peer)

    def _run(self, node: str, stock: Stock, command: str, talks: bool) -> Program:
        words = command.format(**self._words(stock))
        stdin = subprocess.PIPE if talks else subprocess.DEVNULL
        return self.lab.processes.start(node, f"{self.base(stock)}-{node}", ["sh", "-c", words], stdin=stdin)

    @staticmethod
    def base(stock: Stock) -> str:
        """A name for the files of a program."""
        return "".join(
            character if character.isalnum() else "-" for character in stock.name.replace(",", "").lower()
        )

    def out(self, stock: Stock) -> Path:
        """The file that a program's output arrives in."""
        folder = self.lab.output / "received"
        folder.mkdir(exist_ok=True)
        return folder / self.base(stock)

    def _words(self, stock: Stock) -> Mapping[str, object]:
        out = self.out(stock)
        return {
            "server": self.lab.topology.address4("cn"),
            "home": HOME_ADDRESS4,
            "port": self.ports[stock.name],
            "name": NAME,
            "large": self.folder / "root" / "large",
            "awake": self.awake,
            "file": self.folder / "root" / NAME,
            "out": out,
            "received": out.parent,
            "base": out.name,
            "folder": self.folder,
            "python": sys.executable,
        }

    # Observation from outside ---------------------------------------------------------------------------------------

    def listening(self, node: str) -> set[int]:
        """TCP ports with a listener at a node."""
        lines = self.lab.processes.run(node, ["ss", "-Htln"]).stdout.splitlines()
        return {int(line.split()[3].rpartition(":")[2]) for line in lines}

    def moved(self) -> dict[int, tuple[int, int]]:
        """Connections and bytes, by the port of a program, as the correspondent's kernel has counted them so far.

        A server that has closed, and whose every byte is acknowledged, has no counters any more: that is a whole file.
        """
        found: dict[int, tuple[int, int]] = {}
        for line in self.lab.processes.run("cn", ["ss", "-HtinO", *STATES]).stdout.splitlines():
            words = line.split()
            port = self.program_port(*(int(end.rpartition(":")[2]) for end in words[3:5]))
            if port is not None and str(HOME_ADDRESS4) in words[4]:
                counted = [int(word.split(":")[1]) for word in words if word.startswith(COUNTERS)]
                connections, so_far = found.get(port, (0, 0))
                found[port] = connections + 1, so_far + (sum(counted) if counted else SIZE)
        return found

    def program_port(self, *ports: int) -> int | None:
        """The port of the program that a connection between these two ports belongs to."""
        known = set(self.ports.values())
        for port in ports:
            for first in (port, port - 1):
                if first in known and (first - BASE_PORT) % _STEP == 0:
                    return first
        return None

    def correct(self, act: Act) -> bool:
        """True if a program's output is as expected."""
        if act.stock.text:
            return self.said(act) == act.stock.text.format(**self._words(act.stock))
        return sha256(act.out) == (self.large if act.stock.sends else self.digest)

    @staticmethod
    def said(act: Act) -> str:
        """The text that a program has written so far."""
        return act.out.read_text(errors="replace") if act.out.exists() else ""

    def wait_under_way(self, acts: Sequence[Act], least: int, patience: float = 20.0) -> None:
        """Until every program has all its connections, and those with a file have moved some of it."""
        late: list[str] = []

        def ready() -> bool:
            moved = self.moved()
            late[:] = [
                act.stock.name for act in acts if not self._ready(act, moved.get(act.port, (0, 0)), least)
            ]
            ended = [act for act in acts if not act.device.running]
            if ended:
                raise LabError(f"{ended[0].stock.name} has ended; {ended[0].device.complaint()}")
            return not late

        try:
            wait_until("the programs", ready, patience, pause=0.1)
        except LabError as problem:
            raise LabError(f"{problem}: {', '.join(late)}") from None

    @staticmethod
    def _ready(act: Act, moved: tuple[int, int], least: int) -> bool:
        connections, size = moved
        return connections >= act.stock.connections and (act.stock.talk is not None or size >= least)
