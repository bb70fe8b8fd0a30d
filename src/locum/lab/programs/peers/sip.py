"""Stock SIP programs: sipp as registrar and callers at the correspondent, and as the device's telephone.

sipp plays a scenario of messages. One that does not fit ends it with a failure, which its exit status tells.
The telephone and the named caller are scenarios that sipp has itself.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from locum.lab.configuration import HOME_ADDRESS4
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab

PORT = 5060
"""Of the registrar, and of the telephone at the home address."""
FIRST_CALLER = 5070
"""Ports of callers go on from here."""

_COPIED = "[last_Via:]\n[last_From:]\n[last_To:];tag=r\n[last_Call-ID:]\n[last_CSeq:]\n"
_CHALLENGE = (
    'WWW-Authenticate: Digest realm="example.org", nonce="n[call_number]", algorithm=MD5, qop="auth"\n'
)


def _document(steps: str) -> str:
    return f'<?xml version="1.0" encoding="us-ascii"?>\n<scenario name="locum">\n{steps}</scenario>\n'


def _send(text: str, options: str = "") -> str:
    return f"<send{options}><![CDATA[\n\n{text}Content-Length: 0\n\n]]></send>\n"


def _request(method: str, branch: str, to: str = "") -> str:
    return (
        f"{method} sip:ann@[remote_ip]:[remote_port] SIP/2.0\n"
        f"Via: SIP/2.0/UDP [local_ip]:[local_port];branch={branch}\n"
        f"From: Eve <sip:eve@example.org>;tag=[call_number]\n{to or 'To: <sip:ann@example.org>'}\n"
        f"Call-ID: [call_id]\nCSeq: 1 {method}\nContact: <sip:eve@[local_ip]:[local_port]>\nMax-Forwards: 70\n"
    )


def registrar(password: str) -> str:
    """Takes registrations with this password, and refuses others."""
    verify = f'<verifyauth assign_to="known" username="ann" password="{password}"/>'
    return _document(
        '<recv request="REGISTER"/>\n'
        + _send("SIP/2.0 401 Unauthorized\n" + _COPIED + _CHALLENGE)
        + f'<recv request="REGISTER"><action>{verify}</action></recv>\n<nop test="known" next="1"/>\n'
        + _send("SIP/2.0 403 Forbidden\n" + _COPIED, ' next="2"')
        + '<label id="1"/>\n'
        + _send("SIP/2.0 200 OK\n" + _COPIED + "[last_Contact:]\nExpires: 60\n")
        + '<label id="2"/>\n<nop/>\n'
    )


STRANGER = _document(
    _send(_request("INVITE", "[branch]"), ' retrans="500"')
    + '<recv response="486"/>\n'
    + _send(_request("ACK", "[branch-2]", "[last_To:]"))
)
"""Eve, who is not named: she is busied."""


@dataclass(slots=True)
class Telephony:
    """Registrar, telephone and callers."""

    lab: Lab
    password: str
    telephone: bool = True
    """Start the device's telephone as well."""
    folder: Path = field(init=False)
    calls: int = 0

    def start(self) -> None:
        """Start registrar and telephone; returns when both have their port. Raises LabError."""
        self.folder = self.lab.output / "sip"
        self.folder.mkdir()
        script = self._script("registrar", registrar(self.password))
        self._start("cn", "registrar", "-sf", script, "-p", str(PORT), "-deadcall_wait", "0")
        if self.telephone:
            self._start("mn", "telephone", "-sn", "uas", "-i", str(HOME_ADDRESS4), "-p", str(PORT))
        for node in ("cn", "mn") if self.telephone else ("cn",):
            wait_until(f"port {PORT} of {node}", partial(self._listens, node))

    def _listens(self, node: str) -> bool:
        return f":{PORT} " in self.lab.processes.run(node, ["ss", "-Huln"]).stdout

    def _script(self, name: str, text: str) -> str:
        path = self.folder / f"{name}.xml"
        path.write_text(text)
        return str(path)

    def _start(self, node: str, name: str, *options: str) -> Program:
        trace = ("-trace_err", "-error_file", str(self.folder / f"{name}.errors"), "-nostdin")
        messages = ("-trace_msg", "-message_file", str(self.folder / f"{name}.messages"))
        return self.lab.processes.start(node, name, ["sipp", *options, *trace, *messages])

    def _call(self, name: str, *scenario: str) -> Program:
        self.calls += 1
        port = FIRST_CALLER + self.calls
        target, here = f"{HOME_ADDRESS4}:{PORT}", str(self.lab.topology.address4("cn"))
        options = ("-i", here, "-p", str(port), "-m", "1", "-timeout", "60s", "-timeout_error")
        return self._start("cn", f"{name}-{self.calls}", target, *scenario, *options)

    def friend(self) -> Program:
        """The named caller: rings until the telephone answers, talks, and hangs up."""
        return self._call("friend", "-sn", "uac", "-d", "500")

    def stranger(self) -> int:
        """The exit status of a caller who expects to be refused. Raises LabError."""
        return self.ended(self.calls_as_stranger())

    def calls_as_stranger(self) -> Program:
        """A caller who expects to be refused."""
        return self._call("stranger", "-sf", self._script("stranger", STRANGER))

    def unanswered(self, caller: Program) -> bool:
        """True if a caller has given up, as nobody has answered it."""
        errors = self.folder / f"{caller.name}.errors"
        return errors.exists() and "retransmission timeout" in errors.read_text(errors="replace")

    @staticmethod
    def ended(caller: Program) -> int:
        """The exit status of a caller. Raises LabError when it does not end."""
        wait_until(f"{caller.name} to end", lambda: not caller.running, 70.0)
        return caller.process.returncode

    @property
    def registrations(self) -> int:
        """Accepted ones."""
        path = self.folder / "registrar.messages"
        return path.read_text(errors="replace").count("SIP/2.0 200 OK") if path.exists() else 0

    def named(self) -> str:
        """The address of the named caller."""
        return f"sipp@{self.lab.topology.address4('cn')}"
