"""Jobs of proxies that work without a program of the device."""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4, Table
from locum.lab.errors import LabError
from locum.lab.jobs.job import Job, result, told
from locum.lab.network.topology import figure_5
from locum.lab.processes import Program
from locum.lab.programs import services
from locum.lab.programs.peers.dovecot import PORT as IMAP
from locum.lab.programs.peers.dovecot import USER, Dovecot
from locum.lab.programs.peers.sip import PORT as SIP
from locum.lab.programs.peers.sip import Telephony
from locum.lab.programs.services import WebServer
from locum.lab.report.checks import Checks
from locum.lab.steps.ordered import Ordered
from locum.lab.world import Lab

CORRESPONDENT = str(figure_5((), 1).address4("cn"))
TRUST = "trust.pem"
"""The authority of the mail server, for `app_trust` of the stand-in."""


class Films(Job):
    """`download` and decoding: a file, and an archive that is unpacked."""

    name, film, archive, member = "films", "film", "pack.tar.gz", "inside"

    def __init__(self, server: WebServer, wanted: str) -> None:
        """`wanted` is the digest of the film that the server has already."""
        self.server, self.wanted = server, wanted

    @staticmethod
    def tables() -> Sequence[Table]:
        urls = [f"http://{CORRESPONDENT}/{name}" for name in (Films.film, Films.archive)]
        return [{"kind": "download", "name": Films.name, "settings": {"url": urls, "decode": {}}}]

    def begin(self, lab: Lab) -> None:
        folder = lab.output / "packed"
        folder.mkdir()
        self.inside = services.make_file(folder / self.member, 400_000)
        archive = self.server.root / self.archive
        done = lab.processes.run("cn", ["tar", "-czf", str(archive), "-C", str(folder), self.member])
        if done.returncode:
            raise LabError(f"tar: {done.stderr.strip()}")
        self.order = Ordered(lab, self.name)

    def settled(self, lab: Lab) -> bool:
        return len(self.order.events("delivered")) >= 2 and bool(self.order.events("decoded"))

    def awake(self, lab: Lab) -> None:
        self.stored = self.order.sha256(self.film)
        self.unpacked = [
            path
            for path in self.order.file(self.film).parent.rglob("*")
            if path.is_file() and services.sha256(path) == self.inside
        ]

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.equal("film_digest", self.stored, self.wanted)
        checks.equal("archive_unpacked", len(self.unpacked), 1, "files")
        done = result(lab, self.name)
        checks.holds("films_done", done.get("done") is True)
        names = [name for name, *_ in done.get("files", [])]
        checks.equal("files_named_once", len(names), len(set(names)))
        checks.fact("downloads_told", len(self.order.events("delivered")), "events")
        checks.fact("decodings_told", len(self.order.events("decoded")), "events")


class Site(Job):
    """`publish`: a page that curl asks for again and again."""

    name, text = "site", "<h1>asleep, and at your service</h1>\n"

    def begin(self, lab: Lab) -> None:
        folder = lab.output / "site"
        folder.mkdir()
        (folder / "index.html").write_text(self.text)
        lab.command("mn", "order", "publish", self.name, str(folder))
        self.pages: list[str] = []

    def work(self, lab: Lab, number: int) -> None:
        self._ask(lab, "1")

    def _ask(self, lab: Lab, seconds: str) -> bool:
        """False for no answer, which a killed process or daemon gives."""
        command = ["curl", "-sf", "-m", seconds, f"http://{HOME_ADDRESS4}/"]
        done = lab.processes.run("cn", command)
        if done.returncode == 0:
            self.pages.append(done.stdout)
        return done.returncode == 0

    def settled(self, lab: Lab) -> bool:
        return self._ask(lab, "5")

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.at_least("pages", len(self.pages), 1)
        checks.equal("right_pages", self.pages.count(self.text), len(self.pages))


class Mails(Job):
    """`mail`: a stock IMAP server, over STARTTLS; one of two senders counts."""

    name = "mail"

    @staticmethod
    def tables() -> Sequence[Table]:
        settings: Table = {"host": CORRESPONDENT, "port": IMAP, "tls": "starttls", "user": USER}
        return [
            {
                "kind": "mail",
                "name": Mails.name,
                "settings": {**settings, "password_file": "key:mailbox", "sender": "boss@"},
            }
        ]

    def begin(self, lab: Lab) -> None:
        self.server = Dovecot(lab, lab.configuration.key("mailbox").read_text().strip())
        self.server.start()
        shutil.copy(self.server.certificate, lab.configuration.folder / TRUST)
        self.sent: list[str] = []

    def close(self) -> None:
        """End the server."""
        self.server.close()

    def work(self, lab: Lab, number: int) -> None:
        if "waits for messages" in lab.command("mnps", "app", "log", self.name) or self.sent:
            self.server.deliver("news@example.net", f"not {number}")
            self.server.deliver("The Boss <boss@example.org>", f"asleep {number}")
            self.sent.append(f"asleep {number}")

    def settled(self, lab: Lab) -> bool:
        return bool(self.sent) and self.sent[-1] in self._subjects(lab)

    def awake(self, lab: Lab) -> None:
        self.seen = self.server.delivered - self.server.unseen

    def _subjects(self, lab: Lab) -> list[str]:
        return [detail["subject"] for detail in told(lab, self.name, "message_available")]

    def judge(self, lab: Lab, checks: Checks) -> None:
        subjects = self._subjects(lab)
        checks.equal("mails_told_in_order", ", ".join(dict.fromkeys(subjects)), ", ".join(self.sent))
        checks.equal("mails_told_once", len(subjects), len(self.sent))
        checks.equal("mails_in_the_result", result(lab, self.name).get("messages", -1), len(self.sent))
        checks.equal("mails_marked_as_seen", self.seen, 0)


class Calls(Job):
    """`call`: a registration at sipp, and strangers who are refused."""

    name = "call"

    @staticmethod
    def tables() -> Sequence[Table]:
        settings: Table = {
            "contact": f"sip:ann@{HOME_ADDRESS4}:{SIP}",
            "registrar": CORRESPONDENT,
            "domain": "example.org",
            "password_file": "key:sip",
            "callers": [f"sipp@{CORRESPONDENT}"],
        }
        return [{"kind": "call", "name": Calls.name, "settings": settings}]

    def begin(self, lab: Lab) -> None:
        password = lab.configuration.key("sip").read_text().strip()
        self.telephony = Telephony(lab, password, telephone=False)
        self.telephony.start()
        self.strangers: list[Program] = []
        self.unanswered = 0
        """Strangers who have given up while no process was there."""

    def work(self, lab: Lab, number: int) -> None:
        if number % 4 == 0 and self.telephony.registrations:
            self.strangers.append(self.telephony.calls_as_stranger())

    def settled(self, lab: Lab) -> bool:
        """All have their answer; one that nobody has answered calls again."""
        for stranger in self.strangers[:]:
            if not stranger.running and self.telephony.unanswered(stranger):
                self.unanswered += 1
                self.strangers.remove(stranger)
        if not self.strangers and self.telephony.registrations:
            self.strangers.append(self.telephony.calls_as_stranger())
        return bool(self.strangers) and not any(stranger.running for stranger in self.strangers)

    def judge(self, lab: Lab, checks: Checks) -> None:
        checks.at_least("registrations", self.telephony.registrations, 1)
        statuses = [stranger.process.returncode for stranger in self.strangers]
        checks.fact("strangers_without_an_answer", self.unanswered, "calls")
        checks.equal("strangers_refused", statuses.count(0), len(statuses))


class Strays(Job):
    """`log`: a datagram to a port of its own at each step, which nobody has."""

    name, first = "strays", 4000

    @staticmethod
    def tables() -> Sequence[Table]:
        return [{"kind": "log", "name": Strays.name, "settings": {"per_second": 100}}]

    def begin(self, lab: Lab) -> None:
        self.sent: list[int] = []
        self.settling = -1

    def work(self, lab: Lab, number: int) -> None:
        port = self.first + number
        lab.processes.run("cn", ["bash", "-c", f"echo x > /dev/udp/{HOME_ADDRESS4}/{port}"])
        self.sent.append(port)

    def logged(self, lab: Lab) -> list[int]:
        """Ports of the packets in its files, as tshark reads them."""
        ports: list[int] = []
        for file in self._files(lab):
            command = ["tshark", "-n", "-r", str(file), "-Y", "udp", "-T", "fields", "-e", "udp.dstport"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            ports += [int(port) for port in done.stdout.split()]
        return ports

    def _files(self, lab: Lab) -> list[Path]:
        return sorted(Ordered(lab, self.name).file("x").parent.glob("*.pcapng"))

    def settled(self, lab: Lab) -> bool:
        """One that is sent from now on is there."""
        if self.settling < 0:
            self.settling = len(self.sent)
        self.work(lab, len(self.sent))
        content = b"".join(file.read_bytes() for file in self._files(lab))
        return any(struct.pack("!H", port) in content for port in self.sent[self.settling :])

    def judge(self, lab: Lab, checks: Checks) -> None:
        ports = [port for port in self.logged(lab) if port in self.sent]
        checks.at_least("strays_logged", len(ports), 1, "packets")
        checks.equal("strays_logged_once", len(ports), len(set(ports)))
