"""Settings that a daemon keeps: those of `load`, made apart from the text that they were read from."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locum.node.config.load import ConfigError, load, load_to_keep
from tests.node.config.test_load import ALL

MOBILES = 3_000
HEAD = """
[node]
name = "ha"
interfaces = ["eth0"]
[home_agent]
address = "10.0.0.1"
home_prefixes = ["10.64.0.0/14"]
"""
PROGRAM = """
import sys
from pathlib import Path
from locum.node.config import load

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024

getattr(load, sys.argv[1])(sys.argv[2])
before = resident()
settings = getattr(load, sys.argv[1])(sys.argv[3])
print(resident() - before)
"""


def test_kept_settings_are_those_of_the_file(write: Any) -> None:
    file = write(ALL)
    kept = load_to_keep(file)
    assert kept == load(file)
    assert kept.home_agent is not None and kept.home_agent.mobiles[0].association.key


def test_errors_of_kept_settings_name_their_place(write: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="nonsense"):
        load_to_keep(write(ALL + "nonsense = 1\n"))
    assert capfd.readouterr() == ("", "")


def test_settings_are_read_without_another_process(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refuse)
    file = write(ALL)
    assert load_to_keep(file) == load(file)


def test_kept_settings_take_little_memory(write: Any, tmp_path: Path) -> None:
    """Less than half of the resident memory of settings that were made beside the tree of their text."""
    few = write(ALL).rename(tmp_path / "few.toml")
    mobiles = "".join(
        f'[[home_agent.mobile]]\nhome_address = "10.64.{number >> 8}.{number & 255}"\nspi = 300\nkey_file = "key"\n'
        for number in range(1, MOBILES)
    )
    many = write(HEAD + mobiles)
    beside, apart = (
        int(
            subprocess.run(
                (sys.executable, "-c", PROGRAM, name, few, many), check=True, capture_output=True
            ).stdout
        )
        for name in ("load", "load_to_keep")
    )
    assert apart < beside / 2
