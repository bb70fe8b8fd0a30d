"""Programs that decide about direct pages: what they get, what they may print, and the device wakes if anything fails."""

import asyncio
import json
from pathlib import Path

import pytest

from locum.node.host.page_decider import MOST_SAID, PageDecider
from locum.roles.action_values.direct_pages import DecidePage, PageDecided
from locum.wire.control.paging.direct_page import Decision

PAGE = b"page-one"
TOLD = {
    "home_address": "10.50.0.9",
    "stand_in": "10.36.0.1",
    "app": "mail",
    "event": "arrived",
    "detail": {"from": "boss"},
    "state": {"raw": b"\x01"},
    "count": 2,
}


async def decided(command: tuple[str, ...], seconds: float = 10.0) -> PageDecided:
    done: asyncio.Future[PageDecided] = asyncio.get_running_loop().create_future()
    decider = PageDecider(done.set_result)
    (run,) = decider.handlers().values()
    run(DecidePage(PAGE, command, seconds, TOLD))
    try:
        return await asyncio.wait_for(done, 30)
    finally:
        await decider.close()


def script(tmp_path: Path, text: str) -> tuple[str, ...]:
    program = tmp_path / "decide"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return (str(program),)


async def test_program_gets_the_event_and_decides(tmp_path: Path) -> None:
    got = tmp_path / "got"
    said = '{"decision": "stay", "information": {"seen": 3}}'
    found = await decided(
        script(tmp_path, f"echo noise >&2; cat > {got}; printenv LOCUM_APP >> {got}; echo '{said}'")
    )
    assert found.page == PAGE and found.reason == "" and found.decision is not None
    assert found.decision.decision is Decision.GO_ON and found.decision.directions.information == {"seen": 3}
    body, app = got.read_text().splitlines()
    assert json.loads(body) == {**TOLD, "state": {"raw": "01"}} and app == "mail"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('echo \'{"decision": "sleep"}\'', "decision"),
        ('echo \'{"decision": "stay", "more": 1}\'', "more"),
        ('echo \'{"decision": "stay", "information": {"a": []}}\'', "information"),
        ("echo '{}'", "decision: is missing"),
        ("echo '[]'", "no JSON object"),
        ("echo wake", "no JSON"),
        ("exit 0", "no JSON"),
        ('echo \'{"decision": "stay"}\'; exit 3', "exit code 3"),
        ("kill -9 $$", "exit code -9"),
        (f"head -c {MOST_SAID + 1} /dev/zero", f"more than {MOST_SAID} bytes"),
    ],
)
async def test_anything_else_is_no_decision(tmp_path: Path, text: str, reason: str) -> None:
    found = await decided(script(tmp_path, text))
    assert found.decision is None and reason in found.reason


async def test_slow_program_is_ended(tmp_path: Path) -> None:
    found = await decided(script(tmp_path, "sleep 60"), seconds=0.3)
    assert found.decision is None and "more than 0.3 seconds" in found.reason


async def test_missing_program_is_no_decision(tmp_path: Path) -> None:
    found = await decided((str(tmp_path / "absent"),))
    assert found.decision is None and "does not start" in found.reason
