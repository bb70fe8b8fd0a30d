"""Answered echo requests: lost ones are missing, late ones are not."""

import subprocess

import pytest

from locum.lab.programs.echoes import answered_of, command

LOSES_THE = "nft add rule ip t c icmp type echo-request icmp sequence {} drop"
ALONE = "ip link set lo up; nft add table ip t; nft 'add chain ip t c {{ type filter hook input priority 0; }}'; {}; {}"


@pytest.mark.parametrize(("lost", "version"), [(None, 4), (1, 4), (3, 4), (None, 6)])
def test_answers_to_the_first_requests_are_counted(lost: int | None, version: int) -> None:
    """Ping goes on until it has three answers, here to the fourth request in place of the lost one."""
    ping = " ".join(command("127.0.0.1" if version == 4 else "::1", 3, 0.05))
    script = ALONE.format(":" if lost is None else LOSES_THE.format(lost), ping)
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, timeout=60
    )
    assert "3 received" in done.stdout, done.stderr
    assert answered_of(done.stdout, 3) == (3 if lost is None else 2)


def test_errors_are_no_answers() -> None:
    told = (
        "From 10.1.0.1 icmp_seq=1 Time to live exceeded\n64 bytes from ::1: icmp_seq=2 ttl=64 time=300 ms\n"
    )
    assert answered_of(told, 1) == 0
    assert answered_of(told, 2) == 1
