"""The stock radclient as a policy server that pushes changes (RFC 5176): text of requests, and one run on a node.

Files of its own below the lab. It must not know what a change does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path

from locum.lab.processes import Processes
from locum.lab.programs.radius.freeradius import DICTIONARY
from locum.node.config.policy_settings import CHANGES_PORT


def push_text(
    at: float,
    user: str,
    *,
    version: int | None = None,
    rules: Sequence[str] = (),
    others: Sequence[str] = (),
) -> str:
    """The attributes of a request, as radclient reads them; `others` are whole lines."""
    lines = [f'User-Name = "{user}"', f"Event-Timestamp = {int(at)}", "Message-Authenticator = 0x00"]
    if version is not None:
        lines.append(f"Locum-Version = {version}")
    lines += [f"Locum-Rule += '{rule}'" for rule in rules]
    return "\n".join((*lines, *others)) + "\n"


@dataclass(frozen=True, slots=True)
class Radclient:
    """radclient on a node of the lab; `folder` is its directory."""

    processes: Processes
    node: str
    folder: Path
    secret: str

    def send(self, target: IPv4Address, command: str, text: str, *, secret: str | None = None) -> str:
        """Send one request ("coa" or "disconnect"), repeated once; what the program prints."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.folder / "dictionary").write_text(DICTIONARY)
        ours = files("locum.node.policy").joinpath("dictionary.locum").read_text("utf-8")
        (self.folder / "dictionary.locum").write_text(ours)
        request = self.folder / "request"
        request.write_text(text)
        key = self.folder / "secret"
        key.touch(mode=0o600)
        key.write_text((self.secret if secret is None else secret) + "\n")
        done = self.processes.run(
            self.node,
            ["radclient", "-x", "-r", "2", "-t", "2", "-d", str(self.folder), "-S", str(key),
             "-f", str(request), f"{target}:{CHANGES_PORT}", command],
        )  # fmt: skip
        return done.stdout + done.stderr
