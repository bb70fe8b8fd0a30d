"""The layout table, enforced: which package may know which, and why.

Imports are read from the syntax tree, so a module is judged without being run, and an import under
``TYPE_CHECKING`` or inside a function counts like any other: what a module names, it depends on.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "locum"
TABLE = ROOT / "docs" / "architecture.md"


@dataclass(frozen=True, slots=True)
class Rule:
    """Permitted imports of one package of locum.

    ``locum``: modules of locum, by prefix (its own package is always allowed).
    ``banned``: top-level modules from outside that it must not import.
    """

    locum: tuple[str, ...]
    banned: frozenset[str]
    reason: str


# Time, wall clock, randomness, files and sockets are passed in: a whole network of roles then runs in one
# process on a virtual clock, and a codec can be tried on any bytes without side effects.
INPUT_AND_OUTPUT = frozenset(
    # clocks, chance, processes
    {"time", "datetime", "random", "secrets", "threading", "multiprocessing", "subprocess", "signal"}
    # sockets and files
    | {"asyncio", "socket", "select", "selectors", "ssl", "os", "pathlib", "shutil", "tempfile", "sqlite3"}
    # ways around this test
    | {"ctypes", "fcntl", "mmap", "importlib"}
    # libraries that do any of these
    | {"logging", "structlog", "aiocoap", "pyroute2", "click", "rich", "prometheus_client"}
)
# A package's own data file is as constant as a literal in its code (wire/control/control.cddl).
PACKAGED_DATA = "importlib.resources"
# One event loop, one home for it. What runs on sockets and maps without one can be tested without one.
EVENT_LOOP = frozenset({"asyncio", "aiocoap"})
# Programs for users, not parts of a node.
TERMINAL = frozenset({"click", "rich"})

RULES = {
    "wire": Rule((), INPUT_AND_OUTPUT, "bytes to frozen values and back: no state, no I/O, nothing of locum"),
    "security": Rule(
        ("locum.wire",),
        INPUT_AND_OUTPUT,
        "transforms on bytes: keys, time and earlier identifications are arguments",
    ),
    "roles": Rule(
        ("locum.wire", "locum.security"),
        INPUT_AND_OUTPUT,
        "machines that decide: they return actions and never perform one",
    ),
    "sessions": Rule(
        ("locum.wire", "locum.security"),
        EVENT_LOOP | TERMINAL,
        "what a live session is on this kernel: it must not know why one is moved, or by which role",
    ),
    "apps": Rule(
        ("locum.roles", "locum.sessions", "locum.security", "locum.wire"),
        EVENT_LOOP | TERMINAL,
        "application proxies see the contract, not the node that runs them",
    ),
    "dataplane": Rule(
        ("locum.roles.actions", "locum.roles.action_values", "locum.wire"),
        EVENT_LOOP | TERMINAL,
        "forwarding state to kernel maps: it knows the action types and the headers, no role's machine",
    ),
    "node": Rule(
        ("locum.wire", "locum.security", "locum.roles", "locum.sessions", "locum.dataplane"),
        TERMINAL,
        "drives machines and performs actions: it must not know the lab or the command line",
    ),
    "lab": Rule(
        ("locum.node", "locum.wire"),
        frozenset(),
        "runs real daemons and looks at what they did from outside: never at a role's or a map's inside",
    ),
    "cli": Rule(
        ("locum.node", "locum.lab"),
        frozenset({"aiocoap", "pyroute2"}),
        "a client of a node's control socket and of the lab",
    ),
    "web": Rule(
        ("locum.node", "locum.lab"),
        frozenset({"aiocoap", "pyroute2"}),
        "a client of a node's control socket and of the lab",
    ),
}


def imported(tree: ast.AST, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a module of ``package``; ``from a import b`` gives ``a.b``."""
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            for name in statement.names:
                yield statement.lineno, name.name
        elif isinstance(statement, ast.ImportFrom):
            base = statement.module or ""
            if statement.level:
                parents = package.split(".")
                kept = parents[: len(parents) - statement.level + 1]
                base = ".".join([*kept, base] if base else kept)
            for name in statement.names:
                yield statement.lineno, f"{base}.{name.name}"


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def broken(source: str, package: str, rule: Rule) -> list[str]:
    """Imports of a module of ``package`` (such as ``locum.wire.mobile_ip.extensions``) against ``rule``."""
    own = ".".join(package.split(".")[:2])
    faults = []
    for line, name in imported(ast.parse(source), package):
        top = name.partition(".")[0]
        if top == "locum":
            # the bare package holds the version, which every layer may show
            if not within(name, (own, *rule.locum)) and name != "locum.__version__":
                faults.append(f"line {line}: {name}")
        elif within(name, (PACKAGED_DATA,)):
            continue
        elif top in rule.banned or top in {"tests", "bench"}:
            faults.append(f"line {line}: {name}")
    return faults


def modules(area: str) -> list[Path]:
    return sorted((SOURCE / area).rglob("*.py"))


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).parent.parts)


@pytest.mark.parametrize("area", RULES)
def test_a_package_imports_only_what_the_layout_allows(area: str) -> None:
    rule = RULES[area]
    faults = [
        f"{path.relative_to(ROOT)} {fault}"
        for path in modules(area)
        for fault in broken(path.read_text(), package_of(path), rule)
    ]
    allowed = ", ".join(rule.locum) or "nothing of locum"
    assert not faults, f"locum.{area} may import {allowed} ({rule.reason}); broken by:\n" + "\n".join(faults)


@pytest.mark.parametrize("area", ["wire", "security", "roles"])
def test_pure_packages_touch_no_file_and_print_nothing(area: str) -> None:
    calls = {"open", "print", "input", "__import__", "exec", "eval"}
    faults = [
        f"{path.relative_to(ROOT)} line {node.lineno}: {node.func.id}()"
        for path in modules(area)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in calls
    ]
    assert not faults, f"locum.{area} decides on values only; broken by:\n" + "\n".join(faults)


# Lifetimes and timers are on steady seconds, which no clock step moves.
WALL_CLOCK = {
    "node/apps/shown/captures.py": "the time of a captured packet is for people",
    "node/apps/data.py": "compares it with the times of directories",
    "node/clock.py": "compares the two",
    "node/events.py": "an event's time is for people",
    "node/policy/pushes.py": "compares it with the times of policy servers' requests",
    "node/wireguard/service.py": "compares it with the times of handshakes",
    "sessions/programs/freezer.py": "compares it with the time of a file",
}


def wall_clock_read(source: str) -> list[str]:
    """Places where a module reads the wall clock."""
    names = {"time", "time_ns"}
    return [
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(source))
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "time"
            and node.attr in names
        )
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "time"
            and names & {imported.name for imported in node.names}
        )
    ]


@pytest.mark.parametrize("area", ["node", "sessions", "dataplane"])
def test_lifetimes_are_on_steady_seconds(area: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)} {fault}"
        for path in modules(area)
        if str(path.relative_to(SOURCE)) not in WALL_CLOCK
        for fault in wall_clock_read(path.read_text())
    ]
    assert not faults, "use node.clock.now() or boot_seconds() of locum.node.clock:\n" + "\n".join(faults)
    assert wall_clock_read("import time\ntime.time()") and wall_clock_read("from time import time")
    assert not wall_clock_read("import time\ntime.monotonic()\nloop.time()")


def test_every_package_has_a_rule() -> None:
    found = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert found <= RULES.keys(), "a new package needs a row in RULES, with its reason"
    loose = {path.name for path in SOURCE.glob("*.py")} - {"__init__.py", "__main__.py"}
    assert not loose, f"modules belong into a package of the layout: {sorted(loose)}"


def test_the_table_of_packages_has_the_permitted_imports() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$",
        TABLE.read_text().partition("\n## ")[2].partition("\n## ")[0],
        re.M,
    )
    told = {package: set(re.sub(r" \([^)]*\)", "", allowed).split(", ")) for package, allowed in rows}
    assert told == {
        area: {name.split(".")[1] for name in rule.locum} or {"nothing of locum"}
        for area, rule in RULES.items()
        if (SOURCE / area).is_dir()
    }


def test_module_names_are_specific() -> None:
    vague = {"helper", "helpers", "util", "utils", "common", "manager", "misc"}
    proper = {"service_manager"}  # systemd's word for itself
    stems = {path.stem: str(path.relative_to(ROOT)) for path in SOURCE.rglob("*")}
    found = [path for stem, path in stems.items() if stem not in proper and vague & set(stem.split("_"))]
    assert not found, f"a name that could hold anything holds everything: {found}"


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("import socket", ["line 1: socket"]),
        ("import os.path", ["line 1: os.path"]),
        ("from time import monotonic", ["line 1: time.monotonic"]),
        ("def f():\n    import asyncio", ["line 2: asyncio"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import random", ["line 3: random"]),
        ("from locum.roles import actions", ["line 1: locum.roles.actions"]),
        ("from locum import node", ["line 1: locum.node"]),
        ("from ...roles.actions import Reply", ["line 1: locum.roles.actions.Reply"]),
        ("from ... import node", ["line 1: locum.node"]),
        ("import tests.wire", ["line 1: tests.wire"]),
        ("import struct\nfrom locum.wire.errors import WireError\nfrom ..cursor import Cursor", []),
        ("from locum import __version__", []),
    ],
)
def test_import_check_finds_every_form_of_import(source: str, faults: list[str]) -> None:
    package = "locum.wire.control"
    # "from ... import node" climbs from locum.wire.control to locum
    assert broken(source, package, RULES["wire"]) == faults


# Roles decide on neutral values (roles/action_values/registration.py), whatever the signalling version. Only these files
# of roles/ know messages of Mobile IPv4. Remove a file here when it no longer does; the list only shrinks.
MOBILE_IPV4_FILES = {
    "foreign_agent/admission.py",
    "foreign_agent/advertising.py",
    "foreign_agent/relay.py",
    "registrant/discovery.py",
}


def knows_mobile_ipv4(source: str, package: str) -> bool:
    """True if a module of `package` imports messages of Mobile IPv4."""
    return any(
        within(name, ("locum.wire.mobile_ip",)) for _line, name in imported(ast.parse(source), package)
    )


def test_only_the_edge_of_roles_knows_mobile_ipv4() -> None:
    edge = SOURCE / "roles" / "mobile_ipv4"
    found = {
        str(path.relative_to(SOURCE / "roles"))
        for path in modules("roles")
        if path.parent != edge and knows_mobile_ipv4(path.read_text(), package_of(path))
    }
    new = sorted(found - MOBILE_IPV4_FILES)
    assert not new, f"read and write messages in roles/mobile_ipv4, decide on its values: {new}"
    gone = sorted(MOBILE_IPV4_FILES - found)
    assert not gone, f"no longer imports locum.wire.mobile_ip, remove from MOBILE_IPV4_FILES: {gone}"
    assert knows_mobile_ipv4("from locum.wire import mobile_ip", "locum.roles")
    assert not knows_mobile_ipv4("from locum.wire.errors import WireError", "locum.roles")
