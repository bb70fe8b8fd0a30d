"""Users' functions and workbooks in confined processes (A8)."""

import asyncio
import base64
import io
import os
import resource
from typing import Any

import openpyxl
import pytest

from locum.node.apps import process
from locum.node.apps.process import AppProcess
from locum.node.config.settings import AppLimits
from locum.wire.flow import Flow
from tests.node.apps.world import HOME, LIMITS, PEER, ROOT

FLOW = Flow(6, HOME, 40000, PEER, 7)


@pytest.fixture(autouse=True)
def path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Computation:
    """One process that attends a session to port 7."""

    def __init__(self, kind: str, settings: dict[str, Any], limits: AppLimits = LIMITS) -> None:
        self.packets: list[list[Any]] = []
        self.gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._ready = asyncio.Event()
        self._settings = settings
        self.process = AppProcess(kind, limits, self.packets.append, self._ready.set, self.gone.set_result)

    async def says(self, data: bytes) -> None:
        """Begin, and hear the correspondent."""
        await asyncio.wait_for(self._ready.wait(), 60)
        assert self.process.send("sessions", [[0, FLOW.to_cbor(), True, 0]])
        assert self.process.send("begin", {"ports": [7], "columns": ["n"], **self._settings}, {})
        assert self.process.send("received", 0, data)

    async def result(self) -> Any:
        """Its result after three answers, or the reason for which its process has ended."""
        async with asyncio.timeout(60):
            while len(self.packets) < 3 and not self.gone.done():
                await asyncio.sleep(0.01)
        return self.gone.result() if self.gone.done() else (await self.process.end())["result"]


async def computed(program: str) -> Any:
    one = Computation("compute", {"program": "def step(state, rows):\n" + program})
    await one.says(b"1\n2\n")
    return await one.result()


@pytest.mark.parametrize(
    "program, reason",
    [
        ("    import threading\n    threading.Thread(target=print).start()", "can't start new thread"),
        ("    open('/etc/passwd')", "FileNotFoundError in line 2"),
        ("    import socket\n    socket.socket().connect(('127.0.0.1', 9))", "OSError in line 3"),
        ("    held = []\n    while True: held.append(bytes(1 << 20))", "MemoryError in line 3"),
        ("    import sqlite3", "ModuleNotFoundError in line 2"),
        ("    return {'x': 1 / 0}", "ZeroDivisionError in line 2"),
    ],
)
async def test_function_that_goes_too_far_fails(program: str, reason: str) -> None:
    """The process reports it, and goes on to report its result."""
    assert reason in (await computed(program))["failed"]


async def test_function_that_forks_fails() -> None:
    result = await computed("    import os\n    os.fork()")
    assert "BlockingIOError in line 3" in result["failed"]


async def test_function_has_modules_for_computing() -> None:
    imports = "collections, datetime, functools, itertools, json, math, re, statistics"
    program = f"    import {imports}\n    return {{'mean': statistics.mean(float(row['n']) for row in rows)}}"
    assert (await computed(program))["results"] == {"mean": 1.5}


async def test_function_that_loops_for_ever_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Computation("compute", {"program": "def step(state, rows):\n    while True: pass"})
    await one.says(b"")
    monkeypatch.setattr(process, "PATIENCE", 0.5)
    assert one.process.send("received", 0, b"1\n")
    assert "has not answered" in await asyncio.wait_for(one.gone, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(one.process.pid, 0)


async def test_function_that_exits_ends_its_process_alone() -> None:
    one = Computation("compute", {"program": "def step(state, rows):\n    import os\n    os._exit(5)"})
    await one.says(b"1\n")
    assert "status 5" in await asyncio.wait_for(one.gone, 60)


async def test_text_that_crashes_a_compiler_ends_its_process_alone() -> None:
    """It is not compiled where settings are checked."""
    one = Computation("compute", {"program": "def step(state, rows):\n    return " + "-" * 11_000 + "1"})
    await one.says(b"1\n")
    result = await one.result()
    assert "SIG" in result if isinstance(result, str) else "Error" in result["failed"]


def workbook(formula: str) -> str:
    book = openpyxl.Workbook()
    sheet = book.active
    assert sheet is not None
    sheet.title = "Data"
    for number in range(60):
        sheet.cell(number + 1, 2).value = formula if number == 0 else f"=B{number}&B{number}"
    out = io.BytesIO()
    book.save(out)
    return base64.b64encode(out.getvalue()).decode()


def spreadsheet(formula: str, result: str) -> dict[str, Any]:
    return {"workbook": workbook(formula), "feed": {"n": "Data!A1"}, "results": {"it": result}}


async def test_workbook_is_evaluated_without_files_and_threads() -> None:
    one = Computation("spreadsheet", spreadsheet("=A1*2+YEAR(DATE(2026,1,1))", "Data!B1"))
    await one.says(b"1\n2\n")
    assert (await one.result())["results"] == {"it": 2030}


async def test_workbook_that_grows_without_end_ends_its_process() -> None:
    """Each of its cells is twice as long as the one before."""
    one = Computation("spreadsheet", spreadsheet('=REPT("x",1000)', "Data!B60"), AppLimits(memory=192 << 20))
    await one.says(b"1\n")
    assert "SIGABRT" in await one.result()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20  # KiB: this one is well
