"""Cards armed for Wake-on-LAN by ethtool: a program of that name that keeps a setting, and Debian's own (P13)."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from locum.node.host import wake_card
from locum.node.host.wake_card import WakeCards
from locum.node.store import Store
from locum.node.tables import HostTable
from locum.roles.action_values.paging import ArmCard, CardArmed, RestoreCard

CARD = bytes.fromhex("020000000009")
ETHTOOL = """#!/bin/sh
echo "$*" >>{folder}/calls
case "$1" in
-P) echo "Permanent address: 02:00:00:00:00:09" ;;
-s) [ -e {folder}/broken ] && {{ echo "netlink error: Operation not supported" >&2; exit 75; }}
    echo "$4" >{folder}/setting ;;
*) printf 'Settings for %s:\\n\\tSupports Wake-on: %s\\n\\tWake-on: %s\\n' "$1" "$(cat {folder}/supports)" "$(cat {folder}/setting)" ;;
esac
"""


class Host:
    """A host with a card."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder, list[CardArmed]()
        self.store = Store(folder / "n.db")
        (folder / "ethtool").write_text(ETHTOOL.format(folder=folder))
        (folder / "ethtool").chmod(0o755)
        self.set("supports", "pumbgs")
        self.set("setting", "d")

    def set(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text + "\n")

    @property
    def setting(self) -> str:
        return (self.folder / "setting").read_text().strip()

    async def perform(self, action: ArmCard | RestoreCard) -> None:
        """By a daemon that has just started."""
        await self.store.durable()
        done = WakeCards(self.store, self.told.append).handlers()[type(action)](action)
        assert done is not None
        await done


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    made = Host(tmp_path)
    yield made
    await made.store.close()


@pytest.mark.parametrize("before", ["d", "ug"])
async def test_card_is_armed_and_restored(host: Host, before: str) -> None:
    host.set("setting", before)
    await host.perform(ArmCard("eth0"))
    assert host.setting == "g" and host.told == [CardArmed("eth0", CARD)]
    await host.perform(ArmCard("eth0"))  # a restarted daemon, while the device sleeps
    await host.perform(RestoreCard("eth0"))
    await host.store.durable()
    assert host.setting == before and host.store.rows(HostTable.WAKE_CARD) == {}
    calls = (host.folder / "calls").read_text()
    await host.perform(RestoreCard("eth0"))
    assert (host.folder / "calls").read_text() == calls, "what was not armed is left alone"


async def test_password_is_given_to_the_card(host: Host) -> None:
    await host.perform(ArmCard("eth0", bytes((1, 2, 3, 4, 5, 6))))
    assert host.setting == "s"
    assert "-s eth0 wol s sopass 01:02:03:04:05:06" in (host.folder / "calls").read_text()


@pytest.mark.parametrize(
    ("supports", "password", "text"),
    [
        ("d", b"", "the card of eth0 cannot be woken by magic packets"),
        ("pg", b"secret", "cannot be woken by magic packets with a password"),
    ],
)
async def test_card_that_cannot_be_woken(host: Host, supports: str, password: bytes, text: str) -> None:
    host.set("supports", supports)
    await host.perform(ArmCard("eth0", password))
    [told] = host.told
    assert text in told.reason and host.setting == "d"
    assert host.store.rows(HostTable.WAKE_CARD) == {}


async def test_ethtool_that_fails_is_quoted(host: Host) -> None:
    host.set("broken", "")
    await host.perform(ArmCard("eth0"))
    assert host.told == [CardArmed("eth0", CARD, "ethtool failed: netlink error: Operation not supported")]
    with pytest.raises(OSError, match="stays armed"):
        await host.perform(RestoreCard("eth0"))


async def test_missing_ethtool_says_what_to_install(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/no/such/folder")
    await host.perform(ArmCard("eth0"))
    assert host.told == [CardArmed("eth0", b"", wake_card.MISSING)]


async def test_ethtool_that_hangs_is_ended(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake_card, "PATIENCE", 0.2)
    (host.folder / "ethtool").write_text("#!/bin/sh\nexec sleep 60\n")
    await host.perform(ArmCard("eth0"))
    assert "took more than" in host.told[0].reason


async def test_ethtool_of_debian_refuses_an_interface_without_a_card(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
    assert (
        "ethtool version"
        in subprocess.run(["ethtool", "--version"], capture_output=True, text=True, check=True).stdout
    )
    await host.perform(ArmCard("lo"))
    [told] = host.told
    assert told.reason in ("the card of lo cannot be woken by magic packets", "the card of lo has no address")


async def test_restored_card_is_armed_anew_by_the_same_run(host: Host) -> None:
    cards = WakeCards(host.store, host.told.append).handlers()
    for before in ("d", "u"):
        host.set("setting", before)
        for action in (ArmCard("eth0"), RestoreCard("eth0")):
            done = cards[type(action)](action)
            assert done is not None
            await done
        assert host.setting == before
