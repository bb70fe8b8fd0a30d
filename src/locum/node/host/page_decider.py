"""Runs the program of a sleeping device that decides about direct pages (P5): never by a shell, and for a limited time.

The program gets the event as JSON on its standard input and prints its decision as JSON. Whatever goes wrong, the device wakes.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from locum.node.config.paging.directions import decision
from locum.node.host.page_commands import environment, run_program
from locum.node.performer import Handler
from locum.roles.action_values.direct_pages import DecidePage, PageDecided

MOST_SAID: Final = 16 << 10
"""Bytes of output. A decision has to fit into one datagram anyway."""

log = logging.getLogger("locum.pages")


class PageDecider:
    """Running programs by page. `decided` gets the end of each."""

    def __init__(self, decided: Callable[[PageDecided], None]) -> None:
        self._decided = decided
        self._running: set[asyncio.Task[None]] = set()

    def handlers(self) -> Mapping[type, Handler]:
        """The function for each type of action."""
        return {DecidePage: self._run}

    def _run(self, action: DecidePage) -> None:
        task = asyncio.create_task(self._to_its_end(action), name="page command")
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """End all programs."""
        tasks = [*self._running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _to_its_end(self, action: DecidePage) -> None:
        found, reason = None, ""
        try:
            found = decision(await _said(action))
        except TimeoutError:
            reason = f"{action.command[0]} took more than {action.seconds:g} seconds"
        except OSError as problem:
            reason = f"{action.command[0]} does not start: {problem.strerror or problem}"
        except ValueError as problem:
            reason = f"{action.command[0]}: {problem}"
        if reason:
            log.warning("page command: %s", reason)
        self._decided(PageDecided(action.page, found, reason[:200]))


async def _said(action: DecidePage) -> Mapping[str, Any]:
    """The JSON that the program prints. Raises ValueError, OSError or TimeoutError."""
    told = json.dumps(action.told, default=_plain).encode() + b"\n"
    known = {key: action.told[key] for key in ("home_address", "stand_in", "app", "event", "count")}
    code, said = await run_program(
        action.command,
        told,
        action.seconds,
        environment(known),
        most=MOST_SAID + 1,
        errors=asyncio.subprocess.DEVNULL,
    )
    if code:
        raise ValueError(f"it ended with exit code {code}")
    if len(said) > MOST_SAID:
        raise ValueError(f"its output has more than {MOST_SAID} bytes")
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        raise ValueError("its output is no JSON") from None
    if not isinstance(found, dict):
        raise ValueError("its output is no JSON object")
    return found


def _plain(value: object) -> str:
    """A value that JSON does not have, as text."""
    return value.hex() if isinstance(value, bytes) else str(value)
