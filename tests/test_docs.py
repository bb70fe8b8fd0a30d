"""The documentation is held to the code: configurations load, features are all answered, links lead somewhere."""

import ast
import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from locum.dataplane.layout.maps import Reason
from locum.dataplane.mtu.path_mtu import Verdict
from locum.dataplane.mtu.probing import COUNTERS
from locum.dataplane.tunnel_errors import TunnelErrors
from locum.lab.configuration import merged, to_toml
from locum.lab.programs.stock import STOCK
from locum.lab.scenarios import SCENARIOS
from locum.node.config.load import load
from locum.node.config.paging.event_table import OPERATORS
from locum.node.config.settings import ROLES
from locum.node.config.toml_table import Table
from locum.roles.paging.matching import matches
from locum.wire.control.paging.cause import ApplicationEvent
from locum.wire.control.paging.entry import Condition, Pattern

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

# Every feature of the source text, by id: R where packets go, C handing over and taking back, A application
# proxies, P paging, S end-to-end security.
FEATURES = [
    f"{area}{n}"
    for area, last in {"R": 20, "C": 12, "A": 12, "P": 17, "S": 12}.items()
    for n in range(1, last + 1)
]
STATES = {"works", "partly", "not yet"}


def configurations() -> dict[str, str]:
    """The TOML files of the user guide, by the path that their first line names."""
    text = (ROOT / "docs" / "user-guide.md").read_text()
    blocks = re.findall(r"```toml\n# (/etc/locum/\S+\.toml)\n(.*?)```", text, re.DOTALL)
    return dict(blocks)


@pytest.mark.parametrize("path", configurations())
def test_configurations_of_the_user_guide_load(path: str, tmp_path: Path) -> None:
    content = configurations()[path]
    for key_file in re.findall(r'_file = "(.+?)"', content):
        assert key_file.startswith("keys/"), "relative to the configuration file"
        secret = tmp_path / key_file
        secret.parent.mkdir(exist_ok=True)
        secret.touch(mode=0o600)
        secret.write_text("00112233445566778899aabbccddeeff\n")
    file = tmp_path / Path(path).name
    file.write_text(content)
    settings = load(file)
    assert settings.node.name == Path(path).stem, "the units and the suspend hook rely on this"


@pytest.mark.parametrize("page", ["flows", "paging"])
def test_additions_of_a_page_load(page: str, tmp_path: Path) -> None:
    """All that it adds to one file at once, as its reader may do."""
    added: dict[str, Any] = {}
    text = (ROOT / "docs" / f"{page}.md").read_text()
    blocks = re.findall(r"```toml\n# added to (\S+)\n(.*?)```", text, re.DOTALL)
    for path, text in blocks:
        # [[home_agent.mobile.x]] belongs to the first device of the file
        table = tomllib.loads(text.replace("[[home_agent.mobile.", "[[home_agent.mobile.own."))
        if "mobile" in (home := table.get("home_agent", {})):
            home["mobile"] = home["mobile"]["own"]
        added[path] = merged(added.get(path, {}), table)
    assert added.keys() <= configurations().keys()
    for path, table in added.items():
        whole = to_toml(merged(tomllib.loads(configurations()[path]), table))
        for key_file in re.findall(r'_file = "(.+?)"', whole):
            secret = tmp_path / key_file
            secret.parent.mkdir(exist_ok=True)
            secret.touch(mode=0o600)
            long = 6 if "secure-on" in key_file else 16
            secret.write_text("00112233445566778899aabbccddeeff"[: 2 * long] + "\n")
        file = tmp_path / Path(path).name
        file.write_text(whole)
        assert load(file).node.name == Path(path).stem


def test_directions_of_the_page_on_paging_miss_no_sender() -> None:
    block = re.search(
        r"```toml\n[^`]*?(\[\[mobile_node.direction\]\].*?)```",
        (ROOT / "docs/paging.md").read_text(),
        re.DOTALL,
    )
    assert block is not None
    direction = tomllib.loads(block[1])["mobile_node"]["direction"][0]
    fields = re.search(r"`message_available`, with (.*?)[;.]", (ROOT / "docs/apps/mail.md").read_text())

    def fits(table: dict[str, Any], **detail: Any) -> bool:
        conditions = tuple(
            Condition(condition["field"], OPERATORS[condition["is"]], condition["value"])
            for condition in table["where"]
        )
        pattern = Pattern(table["app"], table["kind"], conditions)
        return matches(pattern, ApplicationEvent("mail", "message_available", detail), {})

    assert fields is not None and "`sender`" in fields[0]
    assert fits(direction, sender="news@example.org") and not fits(direction, sender="boss@example.org")
    assert not fits(direction, messages=3), "one of several may be of that sender"
    (entry,) = direction["entry"]
    assert fits(entry, sender="boss@example.org") and not fits(entry, sender="news@example.org")


def test_the_user_guide_has_a_configuration_for_every_role() -> None:
    text = "\n".join(configurations().values())
    for role in ROLES:
        assert f"[{role}]" in text


READERS = {name for name in vars(Table) if not name.startswith("_")} - {"close", "error", "warn"}


def configuration_keys() -> dict[str, set[str]]:
    """Every key that the readers of configurations ask for, with the modules that do."""
    found: dict[str, set[str]] = {}
    trees = {
        path.stem: ast.parse(path.read_text())
        for path in (ROOT / "src" / "locum" / "node" / "config").rglob("*.py")
    }
    nodes = {name: list(ast.walk(tree)) for name, tree in trees.items()}
    functions = (
        node for found_in in nodes.values() for node in found_in if isinstance(node, ast.FunctionDef)
    )
    # `links(table, "links", node)` hands the key on
    handing = {f.name for f in functions if [given.arg for given in f.args.args[:2]] == ["table", "key"]}
    for module, found_in in nodes.items():
        for call in (node for node in found_in if isinstance(node, ast.Call)):
            reads = isinstance(call.func, ast.Attribute) and call.func.attr in READERS
            handed = isinstance(call.func, ast.Name) and call.func.id in handing
            for argument in call.args[:1] if reads else call.args[1:2] if handed else ():
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    found.setdefault(argument.value, set()).add(module)
    return found


def test_every_configuration_key_is_in_the_user_guide() -> None:
    keys = configuration_keys()
    assert {"interfaces", "care_of_address", "links", "from_visitor", "source_check"} <= keys.keys()
    guide = (ROOT / "docs" / "user-guide.md").read_text()
    said = "\n".join(re.findall(r"```toml\n.*?```|^    .*?$|`[^`\n]+`", guide, re.DOTALL | re.MULTILINE))
    missing = {key: modules for key, modules in keys.items() if not re.search(rf"\b{key}\b", said)}
    assert not missing, f"docs/user-guide.md does not have: {missing}"


def test_further_keys_of_the_user_guide_exist() -> None:
    """Each stands in its table, with a default and a meaning."""
    section = (
        (ROOT / "docs" / "user-guide.md")
        .read_text()
        .partition("### All other keys\n")[2]
        .partition("\n## ")[0]
    )
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line[:1] == "|"
    ]
    listed = [key for row in lines[2:] for key in re.findall(r"`(\w+)`", row[1])]
    assert lines and all(len(row) == 4 and all(row[1:]) for row in lines[2:])
    assert listed and not set(listed) - configuration_keys().keys()


def test_every_counter_of_the_data_plane_is_documented_once() -> None:
    counters = next(
        node
        for node in ast.walk(ast.parse((ROOT / "src/locum/dataplane/held_packets.py").read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == "counters"
    )
    of_daemon = {
        key.value
        for node in ast.walk(counters)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }
    known = {reason.label for reason in Reason} - {"none"} | {verdict.value for verdict in Verdict}
    lines = re.findall(r"^\| (`[^|]+) \| [^|]+ \|$", (ROOT / "docs" / "drops.md").read_text(), re.MULTILINE)
    told = [name for line in lines for name in re.findall(r"`([\w-]+)`", line)]
    assert of_daemon and sorted(told) == sorted(
        known | of_daemon | TunnelErrors().counts.keys() | set(COUNTERS)
    )


def rows() -> list[list[str]]:
    """Cells of the conformance table's rows that begin with a feature's id."""
    lines = (ROOT / "docs" / "conformance.md").read_text().splitlines()
    cells = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    return [row for row in cells if re.fullmatch(r"[A-Z]\d+", row[0])]


def test_every_feature_is_answered_exactly_once() -> None:
    assert [row[0] for row in rows()] == FEATURES


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_a_conformance_row_is_complete(row: list[str]) -> None:
    _identifier, feature, module, shown, state = row
    assert feature
    assert state in STATES
    named = re.findall(r"`((?:src|bpf|tests|packaging)/[^`]*)`", module + shown)
    assert all((ROOT / path.partition("::")[0]).exists() for path in named), named
    if state == "works":
        assert module != "-" and shown != "-", "what works has a module, and something that shows it"
    if state == "not yet":
        assert shown == "-", "what is shown is not 'not yet'"


def test_conformance_page_has_right_counts_and_real_scenarios() -> None:
    text = (ROOT / "docs" / "conformance.md").read_text()
    states = Counter(row[-1] for row in rows())
    assert (
        f"{states['works']} rows work, {states['partly']} work in part, {states['not yet']} not yet" in text
    )
    named = {name for row in rows() for name in re.findall(r"`([\w-]+)`", row[3])}
    assert named <= SCENARIOS.keys()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def kinds_said(path: Path) -> set[str]:
    """Kinds of events that a module emits, as far as they stand in it literally."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {
        call.args[0].value
        for call in calls
        if ast.unparse(call.func).rpartition(".")[2] in {"Emit", "emit", "_event"}
        and call.args
        and isinstance(call.args[0], ast.Constant)
        and isinstance(call.args[0].value, str)
    }


@pytest.mark.parametrize("area", ["roles", "node"])
def test_every_kind_of_event_is_documented(area: str) -> None:
    said = set().union(*(kinds_said(path) for path in (ROOT / "src" / "locum" / area).rglob("*.py")))
    documented = set(
        re.findall(r"^\| `([\w-]+)` \|", (ROOT / "docs" / "events.md").read_text(), re.MULTILINE)
    )
    assert said <= documented, f"docs/events.md does not have: {sorted(said - documented)}"


def test_page_of_programs_lists_those_of_the_scenario() -> None:
    lines = (ROOT / "docs" / "programs.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    told = [(name, waits, int(many)) for name, waits, _data, many in cells[1:]]
    assert told == [(program.name, program.waits, program.connections) for program in STOCK]
    assert len(told) >= 20


FEATURE_PAGE = (ROOT / "docs" / "contributing-a-feature.md").read_text()
PATH = r"`((?:src|bpf|tests|docs|packaging)/[^`\s]*)`"


def test_paths_in_the_page_on_features_exist() -> None:
    named = re.findall(PATH, FEATURE_PAGE)
    assert named
    missing = [path for path in named if not (ROOT / path).exists()]
    assert not missing, f"docs/contributing-a-feature.md names: {missing}"


def test_names_in_the_page_on_features_are_in_their_files() -> None:
    named = re.findall(rf"`(\w+)`\s+in\s+{PATH}", FEATURE_PAGE)
    assert named
    missing = [
        (name, path) for name, path in named if not re.search(rf"\b{name}\b", (ROOT / path).read_text())
    ]
    assert not missing, f"docs/contributing-a-feature.md names, but the files do not have: {missing}"


@pytest.mark.parametrize("part", ["application proxy", "role", "message", "store table", "counter"])
def test_the_page_on_features_answers_in_ten_lines(part: str) -> None:
    section = FEATURE_PAGE.partition(f"## A new {part}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.strip()]
    assert 1 <= len(lines) <= 10


GLOSSARY = (ROOT / "docs" / "glossary.md").read_text()
# Emphasis that is no term: stressed words, headings inside a list, states of the conformance table.
NO_TERMS = {
    "a flow rule",
    "a packet",
    "a registration that moves the care-of address",
    "added",
    "and",
    "application proxies",
    "around it",
    "failures",
    "everything",
    "flows",
    "its",
    "moves",
    "not yet",
    "partly",
    "rule",
    "servers on a sleeping device",
    "sleep and wake",
    "small packets",
    "the echo",
    "works",
}


def glossary(heading: str) -> list[str]:
    """The first column of the table below this heading of the glossary."""
    section = GLOSSARY.partition(f"# {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", section, re.MULTILINE)[1:]


def emphasised() -> set[str]:
    """Terms of the pages in bold or italics, without code, in lower case."""
    found: set[str] = set()
    for page in PAGES:
        text = re.sub(r"```.*?```|^    .*?$|`[^`]*`", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        found |= {term.strip(".:").lower() for term in re.findall(r"\*{1,2}([^*\n]+)\*{1,2}", text)}
    return found


def in_glossary(term: str) -> bool:
    """True if the glossary has the term, or the term without its final s ("registrants", "loosens")."""
    terms = {name.casefold() for name in glossary("Glossary")}
    return bool({term, term.removesuffix("s")} & terms)


def test_every_emphasised_term_is_in_the_glossary() -> None:
    missing = sorted(term for term in emphasised() - NO_TERMS if not in_glossary(term))
    assert not missing, f"docs/glossary.md lacks: {missing}"


def test_words_listed_as_no_terms_are_emphasised() -> None:
    assert sorted(NO_TERMS - emphasised()) == [], "remove these from NO_TERMS"


def test_the_glossary_is_in_alphabetical_order_without_repeats() -> None:
    terms = [term.casefold() for term in glossary("Glossary")]
    assert terms == sorted(set(terms))


# Words for which the glossary has another term.
REPLACED = {
    "awakening": "wake",
    "imposter": "impersonator",
    "handoff": "hand-over",
    "mobile host": "mobile node",
}


@pytest.mark.parametrize(("word", "term"), REPLACED.items())
def test_pages_and_code_use_the_terms_of_the_glossary(word: str, term: str) -> None:
    files = [*PAGES, *(ROOT / "src" / "locum").rglob("*.py")]
    found = [str(path.relative_to(ROOT)) for path in files if word in path.read_text().casefold()]
    assert not found, f"write {term} instead of {word}: {found}"


def test_every_message_number_is_in_the_glossary() -> None:
    table = (
        (ROOT / "docs" / "events.md").read_text().partition("## Message numbers\n")[2].partition("\n\n##")[0]
    )
    numbers = {
        number
        for row in re.findall(r"^\| ([^|]+)", table, re.MULTILINE)
        for number in re.findall(r"\d{3}", row)
    }
    rows = glossary("Message numbers")
    assert len(rows) == len(set(rows)), "each number has one meaning"
    known = {number for row in rows for number in re.findall(r"\d{3}", row)}
    assert numbers and numbers <= known, sorted(numbers - known)


def test_every_standard_that_a_page_cites_is_in_the_glossary() -> None:
    cited = {number for page in PAGES for number in re.findall(r"RFC (\d+)", page.read_text())}
    missing = cited - set(glossary("Standards"))
    assert not missing, f"docs/glossary.md lacks RFC {sorted(missing)}"
