"""The keys exclude_* of [mobile_node]: additions to the programs that are never frozen."""

from collections.abc import Callable
from pathlib import Path

import pytest

from locum.node.config.load import load
from locum.node.config.toml_table import ConfigError
from locum.sessions.programs.exclusions import DEFAULT_PROGRAMS, Exclusions
from tests.node.config.test_load import ALL

Write = Callable[[str], Path]


def with_lines(write: Write, lines: str) -> Path:
    return write(ALL.replace("[mobile_node]\n", f"[mobile_node]\n{lines}\n"))


def exclusions(write: Write, lines: str) -> Exclusions:
    settings = load(with_lines(write, lines)).mobile_node
    assert settings is not None
    return settings.exclusions


def test_configured_exclusions_add_to_the_defaults(write: Write) -> None:
    assert exclusions(write, "") == Exclusions()
    made = exclusions(
        write,
        'exclude_programs = ["backup-*"]\nexclude_users = ["nobody", 990]\n'
        'exclude_units = ["mail.service"]\nexclude_ports = [873]',
    )
    assert made.programs == (*DEFAULT_PROGRAMS, "backup-*")
    assert made.users == {65534, 990} and made.units == ("mail.service",) and made.ports == {873}


def test_the_defaults_can_be_left_out(write: Write) -> None:
    assert exclusions(write, "exclude_defaults = false") == Exclusions(())
    assert exclusions(write, 'exclude_defaults = false\nexclude_programs = ["x"]') == Exclusions(("x",))


@pytest.mark.parametrize(
    ("line", "key", "words"),
    [
        ('exclude_programs = "x"', "exclude_programs", "a list of names"),
        ('exclude_programs = ["/usr/bin/x"]', "exclude_programs", "leave the directory out"),
        ('exclude_users = ["no such user"]', "exclude_users", "there is no user 'no such user'"),
        ("exclude_users = [-1]", "exclude_users", "-1 is no user id"),
        ("exclude_users = [true]", "exclude_users", "a list of users"),
        ("exclude_units = [1]", "exclude_units", "a list of units"),
        ("exclude_ports = [0]", "exclude_ports", "0 is no port"),
        ('exclude_ports = ["ssh"]', "exclude_ports", "a list of ports"),
        ("exclude_defaults = 1", "exclude_defaults", "true or false"),
    ],
)
def test_errors_name_file_table_and_key(write: Write, line: str, key: str, words: str) -> None:
    file = with_lines(write, line)
    with pytest.raises(ConfigError) as failure:
        load(file)
    assert (failure.value.file, failure.value.table, failure.value.key) == (str(file), "mobile_node", key)
    assert words in failure.value.problem


def test_the_guide_lists_the_defaults() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "user-guide.md").read_text()
    table = guide.partition("### Programs that are left alone")[2].partition("### Room for many")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    listed = [word for row in rows for word in row.split("|")[2].replace("`", "").replace(" ", "").split(",")]
    assert tuple(listed) == DEFAULT_PROGRAMS
