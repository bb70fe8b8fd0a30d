"""FreeRADIUS on a node of the lab: a policy server with the configuration that docs/policy-server.md prints.

Stock program, files of its own below the lab. The scenario writes the users file.
"""

import signal
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.processes import Processes, Program, wait_until

RADIUSD = """\
# A policy server for Locum: profiles from the file `users`, nothing else.
name = locum
run_dir = ${confdir}
pidfile = ${run_dir}/${name}.pid
max_request_time = 5
hostname_lookups = no

log {
	destination = stdout
	auth = yes
}

security {
	max_attributes = 200
	reject_delay = 0
	status_server = no
}

$INCLUDE clients.conf

modules {
	# Compares where a question comes from, in `users`.
	expr {
	}
	files {
		usersfile = ${confdir}/users
	}
}

instantiate {
	expr
}

server locum {
	listen {
		type = auth
		ipaddr = *
		port = 1812
	}
	authorize {
		files
	}
	post-auth {
		# Every answer carries a Message-Authenticator; FreeRADIUS 3.2.5 and later do so by default.
		update reply {
			&Message-Authenticator := 0x00
		}
		Post-Auth-Type REJECT {
			update reply {
				&Message-Authenticator := 0x00
			}
		}
	}
}
"""
_READY = "Ready to process requests"
DICTIONARY = "$INCLUDE dictionary.locum\n"
NOBODY_ELSE = """
DEFAULT	Auth-Type := Reject
	Reply-Message := "no such mobile node"
"""


def client(name: str, address: IPv4Address, secret: str) -> str:
    """An entry of clients.conf: a node that may ask, and must sign its questions."""
    return f"client {name} {{\n\tipaddr = {address}\n\tsecret = {secret}\n\trequire_message_authenticator = yes\n}}\n"


@dataclass(slots=True)
class FreeRadius:
    """One server: `folder` is its configuration directory, `clients` the text of clients.conf."""

    processes: Processes
    node: str
    folder: Path
    clients: str
    program: Program | None = None

    def start(self, users: str) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "radiusd.conf").write_text(RADIUSD)
        (self.folder / "clients.conf").write_text(self.clients)
        (self.folder / "dictionary").write_text(DICTIONARY)
        ours = files("locum.node.policy").joinpath("dictionary.locum").read_text("utf-8")
        (self.folder / "dictionary.locum").write_text(ours)
        (self.folder / "users").write_text(users + NOBODY_ELSE)
        before = self._log().count(_READY) if self.program is not None else 0
        self.program = self.processes.start(
            self.node,
            f"freeradius-{self.node}",
            ["/usr/sbin/freeradius", "-f", "-x", "-l", "stdout", "-d", str(self.folder)],
        )
        wait_until("freeradius to answer", lambda: self._ready(before), 20.0)

    def users(self, users: str) -> None:
        """Let it say something else from now on: started anew, as it takes a SIGHUP only every five seconds."""
        self.stop()
        self.start(users)

    def stop(self) -> None:
        """Stop it; its closed port shows the end."""
        self._running.stop()

    def hang(self) -> None:
        """It is there and does nothing: questions are neither answered nor refused."""
        self._running.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The end of `hang`."""
        self._running.process.send_signal(signal.SIGCONT)

    def complaints(self, text: str) -> int:
        """Number of times that its log has that text."""
        return self._log().count(text)

    @property
    def _running(self) -> Program:
        if self.program is None:
            raise LabError(f"freeradius was not started on {self.node}")
        return self.program

    def _log(self) -> str:
        return self._running.log.read_text(errors="replace")

    def _ready(self, before: int) -> bool:
        if not self._running.running:
            raise LabError(f"freeradius ended on {self.node}; {self._running.complaint()}")
        return self._log().count(_READY) > before
