"""Programs that tell devices of pages, as real processes: input, exit codes, time, and their end."""

import asyncio
import json
import pwd
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from locum.node.host.page_commands import PageCommands
from locum.roles.action_values.paging import CallByCommand, CommandEnded, EndCommand

TOLD = {"home_address": "203.0.113.4", "page": "0102", "cause": "event", "app": "a; touch /x"}


class Commands:
    """The performer, and the ends that it has told."""

    def __init__(self) -> None:
        self.ended: list[CommandEnded] = []
        self.performer = PageCommands(self.ended.append)

    def run(self, *command: str, user: str | None = None, timeout: float = 20.0, page: bytes = b"p") -> None:
        action = CallByCommand("push", page, command, user, timeout, TOLD)
        self.performer.handlers()[CallByCommand](action)

    async def until(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.ended) < count:
                await asyncio.sleep(0.01)


@pytest.fixture
async def commands() -> AsyncIterator[Commands]:
    made = Commands()
    yield made
    await made.performer.close()


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


async def test_program_is_told_of_the_page(commands: Commands, tmp_path: Path) -> None:
    program = script(
        tmp_path / "push",
        f'cat >{tmp_path}/in; printf "%s\\n" "$LOCUM_HOME_ADDRESS" "$LOCUM_PAGE" "$LOCUM_APP" "$@" >{tmp_path}/env;'
        " echo; echo sent; exit 3",
    )
    commands.run(program, "one argument; no shell", "$HOME")
    await commands.until(1)
    assert commands.ended == [CommandEnded("push", b"p", 3, "sent")]
    assert json.loads((tmp_path / "in").read_text()) == TOLD
    assert (tmp_path / "env").read_text().splitlines() == [
        "203.0.113.4", "0102", "a; touch /x", "one argument; no shell", "$HOME",
    ]  # fmt: skip


async def test_programs_run_beside_each_other(commands: Commands) -> None:
    begun = time.monotonic()
    for number in range(4):
        commands.run("/bin/sleep", "0.5", page=bytes([number]))
    await commands.until(4)
    assert {ended.code for ended in commands.ended} == {0} and time.monotonic() - begun < 1.9


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (("/no/such/program",), "does not start: No such file or directory"),
        (("/bin/sleep", "60"), "took more than 0.3 seconds"),
        (("/bin/sh", "-c", "kill -TERM $$"), ""),
    ],
)
async def test_failures_have_no_exit_code(commands: Commands, command: tuple[str, ...], text: str) -> None:
    commands.run(*command, timeout=0.3 if text else 20.0)
    await commands.until(1)
    [ended] = commands.ended
    assert ended.code is None and text in ended.text


async def test_children_of_a_program_end_with_it(commands: Commands, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    commands.run(script(tmp_path / "push", f"sleep 60 & echo $! >{pid}; wait"), timeout=1.0)
    await commands.until(1)
    child = int(pid.read_text())
    async with asyncio.timeout(10):
        while Path(f"/proc/{child}").exists() and "(sleep) Z" not in Path(f"/proc/{child}/stat").read_text():
            await asyncio.sleep(0.01)


async def test_page_that_has_ended_ends_its_program(commands: Commands) -> None:
    commands.run("/bin/sleep", "60")
    await asyncio.sleep(0.2)
    commands.performer.handlers()[EndCommand](EndCommand("push", b"p"))
    commands.performer.handlers()[EndCommand](EndCommand("push", b"another"))
    await commands.until(1)
    assert commands.ended == [CommandEnded("push", b"p", None)]


async def test_close_ends_all_programs(commands: Commands) -> None:
    commands.run("/bin/sleep", "60")
    await asyncio.sleep(0.2)
    await commands.performer.close()
    assert [ended.code for ended in commands.ended] == [None]


async def test_program_that_reads_and_writes_nothing_or_much(commands: Commands) -> None:
    commands.run("/bin/true", page=b"1")
    commands.run("/bin/sh", "-c", "head -c 3000000 /dev/zero; exit 2", page=b"2")
    await commands.until(2)
    assert {ended.page: ended.code for ended in commands.ended} == {b"1": 0, b"2": 2}


async def test_program_runs_as_the_configured_user(commands: Commands, tmp_path: Path) -> None:
    commands.run("/usr/bin/id", "-u", user="nobody")
    commands.run("/usr/bin/id", "-u", user="nobody-of-that-name", page=b"2")
    await commands.until(2)
    said = {ended.page: ended for ended in commands.ended}
    assert said[b"p"].text == str(pwd.getpwnam("nobody").pw_uid)
    assert said[b"2"].code is None and "does not start" in said[b"2"].text
