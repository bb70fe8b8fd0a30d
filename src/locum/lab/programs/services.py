"""Stock servers and clients: nginx, sshd, iperf3, curl and ssh, each with files of its own below the lab.

Nothing here is ours but the configuration: the point of the lab is that unmodified programs notice nothing.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.processes import Processes, Program, wait_until
from locum.lab.programs import live_film

BLOCK = 1 << 20


def make_file(path: Path, size: int) -> str:
    """A file of random bytes; returns its SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, BLOCK):
            block = os.urandom(min(BLOCK, size - start))
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    """SHA-256 of a file in hex, of the empty string if it is missing."""
    digest = hashlib.sha256()
    if path.exists():
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    return digest.hexdigest()


@dataclass(slots=True)
class WebServer:
    """nginx on a node, port 80 of every address (or of `addresses`), with an access log in JSON lines."""

    processes: Processes
    node: str
    folder: Path
    rate: str = "0"
    addresses: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    """Further ends, as nginx's `listen` has them: "8080", "8443 ssl http2"."""
    certificate: Path | None = None
    """For ends with TLS; the key is beside it, with the suffix .key."""
    program: Program = field(init=False)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def start(self) -> Program:
        """Returns when nginx listens. `rate` is nginx's limit_rate per connection, 0 for none."""
        configuration = self.write()
        program = self.program = self.processes.start(
            self.node,
            "nginx",
            ["nginx", "-p", str(self.folder), "-c", str(configuration), "-e", str(self.folder / "error.log")],
        )
        wait_until("nginx to listen", lambda: not program.running or (self.folder / "pid").exists())
        if not program.running:
            raise LabError(f"nginx did not start; {program.complaint()}")
        return program

    def write(self) -> Path:
        """Write its configuration; returns the file."""
        self.root.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "nginx.conf"
        configuration.write_text(self._configuration())
        return configuration

    def _configuration(self) -> str:
        temporary = "\n".join(
            f"  {kind}_temp_path {self.folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        ends = [f"[{address}]:80" if ":" in address else f"{address}:80" for address in self.addresses]
        listening = "\n".join(f"    listen {end} default_server;" for end in ends or ("80", "[::]:80"))
        listening += "".join(f"\n    listen {listen};" for listen in self.listens)
        if self.certificate is not None:
            key = self.certificate.with_suffix(".key")
            listening += f"\n    ssl_certificate {self.certificate};\n    ssl_certificate_key {key};"
        return f"""user root;
worker_processes 1;
daemon off;
pid {self.folder}/pid;
error_log {self.folder}/error.log;
events {{ worker_connections 256; }}
http {{
{temporary}
  log_format facts escape=json '{{"connection":$connection,"request":"$request","status":$status,'
    '"sent":$body_bytes_sent,"address":"$remote_addr","completion":"$request_completion"}}';
  access_log {self.folder}/access.log facts;
  sendfile on;
  keepalive_timeout 300;
  client_header_timeout 300;
  client_body_timeout 300;
  send_timeout 300;
  default_type application/octet-stream;
  server {{
{listening}
    root {self.root};
    limit_rate {self.rate};
    location = /upload {{ client_max_body_size 0; proxy_pass http://127.0.0.1:81/; proxy_request_buffering on; }}
    location /live/ {{
      proxy_pass http://127.0.0.1:{live_film.PORT}/;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_read_timeout 300;
    }}
  }}
  server {{
    listen 127.0.0.1:81;
    client_max_body_size 0;
    access_log off;
    location / {{ return 200 "$content_length bytes\\n"; }}
  }}
}}
"""

    def requests(self) -> list[dict[str, object]]:
        """Lines of the access log: one for every completed request."""
        log = self.folder / "access.log"
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]

    def connections(self, path: str) -> int:
        """Number of connections with requests for this path."""
        used: Counter[object] = Counter()
        for request in self.requests():
            if f" {path} " in str(request["request"]):
                used[request["connection"]] += 1
        return len(used)


@dataclass(slots=True)
class LiveFilms:
    """Random bytes until `end` that nginx of a node serves below /live/. Each name is for one request."""

    processes: Processes
    node: str
    folder: Path

    def start(self) -> None:
        """Returns when they can be asked for. Raises LabError."""
        self.folder.mkdir(parents=True)
        origin = [sys.executable, "-m", "locum.lab.programs.live_film", str(self.folder)]
        program = self.processes.start(self.node, "live-films", origin)
        ready = self.folder / live_film.READY
        wait_until("the live films to be served", lambda: not program.running or ready.exists())
        if not program.running:
            raise LabError(f"no live film is served; {program.complaint()}")

    def end(self, name: str) -> None:
        """Let the answer end with the next block."""
        (self.folder / f"{name}{live_film.END}").touch()

    def digest(self, name: str) -> str:
        """SHA-256 of the answer in hex, empty while it has not ended."""
        file = self.folder / f"{name}{live_film.DIGEST}"
        return file.read_text() if file.exists() else ""


@dataclass(slots=True)
class SecureShell:
    """sshd on one node, and clients with a key that it knows on another."""

    processes: Processes
    node: str
    folder: Path
    port: int = 22
    ports: tuple[int, ...] = ()
    """Further ports that it listens on."""

    def start(self) -> Program:
        """Returns when sshd listens."""
        self.write()
        program = self.processes.start(
            self.node, "sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")]
        )
        wait_until("sshd to listen", lambda: not program.running or (self.folder / "pid").exists())
        if not program.running:
            raise LabError(f"sshd did not start; {program.complaint()}")
        return program

    def write(self, user: Path | None = None) -> None:
        """Make its keys and its configuration; `user` is the public key that it knows, a new one if None."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.processes.place.lend_sshd_directory()
        for name in ("host",) if user else ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)],
                check=True,
            )
        (self.folder / "authorized").write_text((user or self.folder / "user.pub").read_text())
        listening = "".join(f"Port {port}\n" for port in (self.port, *self.ports))
        (self.folder / "sshd_config").write_text(
            f"{listening}HostKey {self.folder}/host\nAuthorizedKeysFile {self.folder}/authorized\n"
            f"PidFile {self.folder}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nUseDNS no\n"
            "PasswordAuthentication no\nPrintMotd no\nPrintLastLog no\nSubsystem sftp internal-sftp\n"
        )

    def login(self, node: str, source: IPv4Address | IPv6Address, server: str) -> Program:
        """A session with a shell that reads commands from the pipe `process.stdin`, writes to `process.stdout`."""
        options = ["-F", "none", "-i", str(self.folder / "user"), "-b", str(source), "-p", str(self.port)]
        settings = [
            "UserKnownHostsFile=/dev/null",
            "StrictHostKeyChecking=no",
            "LogLevel=ERROR",
            "BatchMode=yes",
        ]
        command = ["ssh", "-T", *options, *(part for setting in settings for part in ("-o", setting))]
        return self.processes.start(
            node,
            "ssh",
            [*command, f"root@{server}", "/bin/sh"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )


def download(
    processes: Processes, node: str, url: str, target: Path, name: str = "curl", source: str | None = None
) -> Program:
    """A stock curl that writes a file; `source` is the address that it connects from, the kernel's choice if None."""
    command = ["curl", "--silent", "--show-error", "--globoff", "--fail", "-o", str(target)]
    return processes.start(node, name, [*command, *(["--interface", source] if source else []), url])
