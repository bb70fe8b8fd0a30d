"""Arms network cards for Wake-on-LAN while the device sleeps, by ethtool, and restores their settings (P13)."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from locum.node.performer import Handler
from locum.node.tables import HostStore, HostTable
from locum.roles.action_values.paging import ArmCard, CardArmed, RestoreCard

PATIENCE: Final = 10.0  # seconds for one run of ethtool
MISSING: Final = "ethtool is not installed; install the package ethtool"
_SUPPORTS = re.compile(r"^\s*Supports Wake-on: *(\w+)", re.MULTILINE)
_PRESENT = re.compile(r"^\s*Wake-on: *(\w+)", re.MULTILINE)
_ADDRESS = re.compile(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", re.IGNORECASE)
_SECURE_ON_BYTES = 6  # of the passwords that ethtool takes


class CardError(Exception):
    """A card that cannot be armed; the text is the reason."""


class WakeCards:
    """Cards of this host. `told` gets what has become of each attempt to arm one."""

    def __init__(self, store: HostStore, told: Callable[[CardArmed], None]) -> None:
        self._store, self._told = store, told
        self._before = {  # settings that armed cards had, by link, also those of an earlier run
            link: str(row.get("before", "d")) for link, row in store.rows(HostTable.WAKE_CARD).items()
        }

    def handlers(self) -> Mapping[type, Handler]:
        """The function for each type of action."""
        return {ArmCard: self._arm, RestoreCard: self._restore}

    async def _arm(self, action: ArmCard) -> None:
        card = b""
        try:
            card = await permanent_address(action.link)
            before = await wake_setting(action.link, secure=bool(action.password))
            if action.link not in self._before:
                self._before[action.link] = before
                self._store.put(HostTable.WAKE_CARD, action.link, {"before": before})
            await ethtool("-s", action.link, *_arguments(action.password))
        except CardError as problem:
            self._told(CardArmed(action.link, card, str(problem)))
            return
        self._told(CardArmed(action.link, card))

    async def _restore(self, action: RestoreCard) -> None:
        before = self._before.get(action.link)
        if before is None:
            return  # it was not armed
        try:
            await ethtool("-s", action.link, "wol", before)
        except CardError as problem:
            raise OSError(f"{action.link} stays armed for Wake-on-LAN: {problem}") from problem
        self._before.pop(action.link, None)
        self._store.forget(HostTable.WAKE_CARD, action.link)


def _arguments(password: bytes) -> Sequence[str]:
    return ("wol", "s", "sopass", password.hex(":")) if password else ("wol", "g")


async def wake_setting(link: str, *, secure: bool) -> str:
    """The letters of what wakes the card now. Raises CardError, also if magic packets cannot."""
    output = await ethtool(link)
    supports, present = _SUPPORTS.search(output), _PRESENT.search(output)
    wanted = "s" if secure else "g"
    if supports is None or present is None or wanted not in supports[1]:
        what = "magic packets with a password" if secure else "magic packets"
        raise CardError(f"the card of {link} cannot be woken by {what}")
    return present[1]


async def permanent_address(link: str) -> bytes:
    """The card's own link-layer address, by which magic packets name it. Raises CardError."""
    found = _ADDRESS.search(await ethtool("-P", link))
    if found is None:
        raise CardError(f"the card of {link} has no address")
    return bytes.fromhex(found[0].replace(":", ""))


async def ethtool(*arguments: str) -> str:
    """The output of ethtool. Raises CardError."""
    try:
        process = await asyncio.create_subprocess_exec(
            "ethtool",
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError:
        raise CardError(MISSING) from None
    except OSError as problem:
        raise CardError(f"ethtool does not start: {problem.strerror}") from problem
    try:
        async with asyncio.timeout(PATIENCE):
            output, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise CardError(f"ethtool took more than {PATIENCE:g} seconds") from None
    if process.returncode:
        lines = said.decode(errors="replace").strip().splitlines()
        raise CardError(f"ethtool failed: {lines[0] if lines else process.returncode}")
    return output.decode(errors="replace")
