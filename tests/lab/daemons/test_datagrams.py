"""UDP of stock programs: an echo client and a resolver whose answers come while their device sleeps."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from locum.lab.configuration import Plan
from locum.lab.patience import patient
from locum.lab.processes import Program, wait_until
from locum.lab.world import Lab
from tests.lab.entering import inside

ECHO, KEPT_ALIVE, DNS = 7777, 7778, 53
RULES = [{"port": KEPT_ALIVE, "seconds": 1, "discard_answers": True}]
PLAN = Plan(tables={"mn": {"mobile_node": {"keepalive": RULES}}})
ANSWER = "192.0.2.77"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab("datagrams", tmp_path_factory.mktemp("lab"), PLAN, captures=False) as made:
        made.wait_registered()
        yield made


class Client:
    """A stock socat that sends lines of this test to a UDP server and prints the answers."""

    def __init__(self, lab: Lab, port: int) -> None:
        address = str(lab.topology.address4("cn"))
        with inside(lab, "cn"):
            self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.server.bind((address, port))
        self.server.settimeout(patient(10))
        self.program = lab.processes.start(
            "mn", f"socat{port}", ["socat", "-", f"UDP:{address}:{port}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )  # fmt: skip
        self.say(b"hello\n")
        data, self.peer = self.server.recvfrom(100)
        assert data == b"hello\n"

    def say(self, line: bytes) -> None:
        assert self.program.process.stdin
        self.program.process.stdin.write(line)
        self.program.process.stdin.flush()

    def heard(self, size: int) -> bytes:
        """So many bytes of the client's output."""
        assert self.program.process.stdout
        data, fd = b"", self.program.process.stdout.fileno()
        while len(data) < size:
            assert select.select([fd], [], [], patient(10))[0], f"the client printed {data!r} and no more"
            data += os.read(fd, size - len(data))
        return data

    def close(self) -> None:
        self.program.stop()
        self.server.close()


def test_echo_client_gets_datagrams_received_during_sleep(lab: Lab) -> None:
    client = Client(lab, ECHO)
    try:
        lab.close_lid()
        for number in range(20):
            client.server.sendto(b"%02d\n" % number, client.peer)
        wait_until(
            "the stand-in to have all of them",
            lambda: (
                [session["total"] for session in lab.sessions() if session["kind"] == "held"] == [20 * 13]
            ),
        )
        lab.open_lid()
        assert client.heard(60) == b"".join(b"%02d\n" % number for number in range(20))
        client.say(b"again\n")
        assert client.server.recvfrom(100) == (b"again\n", client.peer), "from the same address and port"
        client.server.sendto(b"yes\n", client.peer)
        assert client.heard(4) == b"yes\n"
        assert not lab.sessions()
    finally:
        client.close()


def test_keep_alive_is_repeated_if_a_rule_matches(lab: Lab) -> None:
    kept, other = Client(lab, KEPT_ALIVE), Client(lab, ECHO)
    try:
        kept.say(b"alive\n")
        assert kept.server.recv(100) == b"alive\n"
        lab.close_lid()
        for _ in range(2):
            assert kept.server.recvfrom(100) == (b"alive\n", kept.peer)
        kept.server.sendto(b"answer\n", kept.peer)
        lab.pause(1.0)
        other.server.setblocking(False)
        with pytest.raises(BlockingIOError):
            other.server.recv(100)
        lab.open_lid()
        kept.server.sendto(b"news\n", kept.peer)
        assert kept.heard(5) == b"news\n", "answers to keep-alives are not kept"
    finally:
        kept.close()
        other.close()


def resolver(lab: Lab, name: str, file: str) -> Program:
    """A stock program that asks glibc's resolver, which asks the correspondent."""
    script = f"mount --bind {file} /etc/resolv.conf && exec getent ahostsv4 {name}"
    return lab.processes.start(
        "mn", "getent", ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
    )


def test_resolver_gets_the_answer_received_during_sleep(lab: Lab) -> None:
    address = str(lab.topology.address4("cn"))
    file = lab.output / "resolv.conf"
    file.write_text(f"nameserver {address}\noptions timeout:5 attempts:1\n")
    server = lab.processes.start(
        "cn", "dnsmasq",
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=",
         "--user=root", f"--listen-address={address}", "--bind-interfaces", f"--address=/answer.example/{ANSWER}"],
    )  # fmt: skip
    listening = lambda: f"{address}:{DNS}" in lab.processes.run("cn", ["ss", "-Hlun"]).stdout  # noqa: E731
    wait_until("dnsmasq to listen", listening)
    server.process.send_signal(signal.SIGSTOP)
    program = resolver(lab, "answer.example", str(file))
    asked = lambda: address in lab.processes.run("mn", ["ss", "-Hun", "state", "established"]).stdout  # noqa: E731
    wait_until("the resolver to ask", asked)
    lab.close_lid()
    server.process.send_signal(signal.SIGCONT)
    lab.pause(6.0)  # longer than the resolver waits
    lab.open_lid()
    assert program.process.stdout
    said = program.process.stdout.read().decode()
    assert program.wait(10) == 0
    assert said.split()[0] == ANSWER
