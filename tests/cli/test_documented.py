"""Every command that a page names exists, and each verb of the command line does what its page says."""

import re
from pathlib import Path

import click
import pytest

from locum.cli.main import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|[`$ (])locum((?: [a-z][a-z-]*)+)", re.MULTILINE)


def commands(page: Path) -> set[tuple[str, ...]]:
    """The words behind `locum` in code: spans between backticks, and blocks."""
    text = page.read_text()
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL) + re.findall(r"^    .*$", text, re.MULTILINE)
    return {tuple(found.split()) for part in code for found in COMMAND.findall(part)}


def missing(words: tuple[str, ...]) -> str:
    """The part of the command line that does not exist; empty if it does. Words behind a command are its arguments."""
    group: click.Command = cli
    context = click.Context(cli)
    for place, word in enumerate(words):
        if not isinstance(group, click.Group):
            return ""
        found = group.get_command(context, word)
        if found is None:
            return " ".join(("locum", *words[: place + 1]))
        group = found
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_exist(page: Path) -> None:
    assert sorted({gone for words in commands(page) if (gone := missing(words))}) == []


def test_a_command_that_does_not_exist_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "say `locum app kinds`, `locum app nonsense APP` or\n\n    locum sleep now\n    locum snore\n"
    )
    assert {missing(words) for words in commands(page)} == {"", "locum app nonsense", "locum snore"}


def test_lists_of_one_object_have_verbs_of_their_own() -> None:
    app = cli.get_command(click.Context(cli), "app")
    assert isinstance(app, click.Group)
    assert {"list", "kinds", "show", "log"} <= app.commands.keys()
