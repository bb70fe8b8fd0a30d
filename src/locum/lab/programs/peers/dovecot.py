"""A stock IMAP server at the correspondent: Debian's dovecot with one mailbox, to which messages are delivered as files."""

import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab

USER = "ann"
PORT = 143
_NOBODY = 65534
_SETTINGS = """
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {log}
protocols = imap
ssl = {tls}
ssl_cert = <{folder}/cert.pem
ssl_key = <{folder}/key.pem
disable_plaintext_auth = {tls_only}
auth_failure_delay = 0
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={nobody} gid={nobody} home={folder}/mail
}}
mail_location = maildir:{folder}/mail
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
"""


_FETCHMAIL = """
set no syslog
poll {server} protocol imap port {port} timeout 1000
  user "{user}" password "{password}" sslproto "" idle keep
  mda "sed -n s/^Subject:.//p >> {received}"
"""


@dataclass(slots=True)
class Dovecot:
    """Its files are in a folder that its unprivileged processes can reach; `close` removes it."""

    lab: Lab
    password: str
    plain: bool = False
    """Take passwords without TLS as well."""
    folder: Path = field(init=False)
    server: Program = field(init=False)
    delivered: int = 0

    def start(self) -> None:
        """Start it; returns when it listens. Raises LabError."""
        self.folder = Path(tempfile.mkdtemp(prefix="locum-mail-"))
        self.folder.chmod(0o755)
        for name in ("run", "mail", "mail/new", "mail/cur", "mail/tmp"):
            (self.folder / name).mkdir()
            os.chown(self.folder / name, _NOBODY if name.startswith("mail") else 0, 0)
        self.log.touch(mode=0o666)
        self._certify()
        settings = self.folder / "dovecot.conf"
        security = {"tls": "yes" if self.plain else "required", "tls_only": "no" if self.plain else "yes"}
        values = {
            "folder": self.folder,
            "log": self.log,
            "password": self.password,
            **security,
            "nobody": _NOBODY,
            "port": PORT,
        }
        settings.write_text(_SETTINGS.format(**values))
        self.run()

    def _certify(self) -> None:
        """Make a certificate for its address, which signs itself."""
        address = f"subjectAltName=IP:{self.lab.topology.address4('cn')}"
        files = ("-keyout", str(self.folder / "key.pem"), "-out", str(self.certificate))
        kind = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        command = ["openssl", "req", "-x509", *kind, "-subj", "/CN=mail", "-addext", address, *files]
        done = self.lab.processes.run("cn", command)
        if done.returncode:
            raise LabError(f"openssl: {done.stderr.strip()}")

    @property
    def certificate(self) -> Path:
        """PEM."""
        return self.folder / "cert.pem"

    def run(self) -> None:
        """Start it, or start it again. Raises LabError."""
        starts = self.said.count("starting up")
        command = ["dovecot", "-F", "-c", str(self.folder / "dovecot.conf")]
        self.server = self.lab.processes.start("cn", "dovecot", command)
        wait_until("dovecot to start", lambda: self.said.count("starting up") > starts)

    def halt(self) -> None:
        """Have it say BYE to its clients, and end."""
        self.server.stop(10.0)

    def close(self) -> None:
        """End it, and remove its files."""
        self.halt()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        return self.lab.output / "dovecot-mail.log"

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    @property
    def logins(self) -> list[str]:
        """Lines about successful logins."""
        return [line for line in self.said.splitlines() if "Login: user=" in line]

    @property
    def unseen(self) -> int:
        """Messages that no client has marked as seen."""
        names = [path.name for part in ("new", "cur") for path in (self.folder / "mail" / part).iterdir()]
        return sum("S" not in name.partition(":2,")[2] for name in names)

    def deliver(self, sender: str, subject: str) -> None:
        """Put a message into the mailbox, as a delivery agent does."""
        self.delivered += 1
        waiting = self.folder / "mail" / "tmp" / f"{self.delivered}.locum"
        waiting.write_text(f"From: {sender}\nTo: {USER}@example.org\nSubject: {subject}\n\nText.\n")
        os.chown(waiting, _NOBODY, _NOBODY)
        waiting.rename(self.folder / "mail" / "new" / waiting.name)


@dataclass(slots=True)
class Fetchmail:
    """A stock mail program at the device that waits in IDLE, and keeps the subjects of messages that it gets."""

    lab: Lab
    password: str
    program: Program = field(init=False)

    def start(self) -> None:
        """Start it; the caller waits for the login. Raises LabError."""
        settings = self.lab.output / "fetchmailrc"
        settings.touch(mode=0o600)
        values = {"port": PORT, "user": USER, "password": self.password, "received": self.received}
        settings.write_text(_FETCHMAIL.format(server=self.lab.topology.address4("cn"), **values))
        self.received.touch()
        options = ("-f", str(settings), "-i", str(self.lab.output / "fetchids"), "-N", "-v", "-v")
        environment = {"HOME": str(self.lab.output), "FETCHMAILHOME": str(self.lab.output)}
        self.program = self.lab.processes.start(
            "mn", "fetchmail", ["fetchmail", *options], environment=environment
        )

    @property
    def received(self) -> Path:
        return self.lab.output / "fetchmail-received"

    @property
    def subjects(self) -> list[str]:
        """Subjects of the messages that it has."""
        return self.received.read_text().splitlines()

    @property
    def waits(self) -> bool:
        """True if the last word between it and the server was the beginning of IDLE."""
        lines = self.program.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if "IMAP" in line]
        return bool(said) and "+ idling" in said[-1]
