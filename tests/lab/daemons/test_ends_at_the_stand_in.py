"""Two ends of sessions at a stand-in, in a whole lab: a peer on its own host, and a session that a person drops."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

from locum.lab.errors import LabError
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab
from tests.lab.entering import inside

PORT = 7000
# Reads for ever; says how many bytes it has, and how the connection ended.
CLIENT = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])))
total = 0
try:
    while data := connection.recv(65536):
        total += len(data)
        print(total, flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


def connect(lab: Lab, node: str) -> tuple[Program, socket.socket]:
    """A program of the device that reads from a peer at this node, and the peer."""
    address = str(lab.topology.address4(node))
    with inside(lab, node):
        listener = socket.create_server((address, PORT))
    with listener:
        listener.settimeout(20)
        client = lab.processes.start(
            "mn", f"client-{node}", [sys.executable, "-c", CLIENT, address, str(PORT)], stdout=subprocess.PIPE
        )
        peer, _ = listener.accept()
    return client, peer


def said(client: Program, word: str) -> None:
    """Wait until the program has said it."""
    output = client.process.stdout
    assert output is not None
    while (line := output.readline().decode().strip()) != word:
        assert line, "the program has ended"


def received(lab: Lab, peer: socket.socket) -> int:
    """Bytes that the stand-in has for the session with this peer."""
    end = f":{peer.getpeername()[1]}"
    return sum(session.get("total") or 0 for session in lab.sessions("mnps") if end in session["flow"])


def test_peer_on_the_stand_ins_host_and_a_dropped_session(tmp_path: Path) -> None:
    with Lab("ends", tmp_path, captures=False) as lab:
        lab.wait_registered()
        local, server = connect(lab, "mnps")
        far, peer = connect(lab, "cn")
        with server, peer:
            for client, end in ((local, server), (far, peer)):
                end.sendall(b"awake")
                said(client, "5")
            lab.command("mn", "sleep")
            server.sendall(bytes(5000))
            peer.sendall(bytes(700))
            wait_until("the local peer's bytes", lambda: received(lab, server) == 5000, 20)
            wait_until("the far peer's bytes", lambda: received(lab, peer) == 700, 20)

            (dropped,) = [session["flow"] for session in lab.sessions("mnps") if session.get("total") == 700]
            lab.command("mnps", "session", "drop", "--flow", dropped)
            wait_until("the reset", lambda: _error(peer), 10)
            with contextlib.suppress(LabError):  # one session stayed behind
                lab.command("mn", "wake")
            said(far, "ConnectionResetError")
            said(local, "5005")
            server.sendall(bytes(3))
            said(local, "5008")
        rules = lab.processes.run("mnps", ["ip", "rule"]).stdout
        assert "ipproto tcp" not in rules


def _error(peer: socket.socket) -> bool:
    return peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0
