"""No import circle in src/locum, and no import against the flow between its folders.

At each package its children are compared: modules, and sub-packages as a whole. A circle of modules is a circle of
children at the lowest package that holds all of it, so these checks find both kinds. Imports under TYPE_CHECKING and
in functions count.
"""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tests.test_imports import SOURCE, imported, package_of

# Sub-packages by parent, and the siblings that each may import. Modules beside them are judged by circles alone.
FLOW: dict[str, dict[str, tuple[str, ...]]] = {
    "locum.apps": {
        "call": (),
        "computing": (),
        "decode": (),
        "download": ("decode",),
        "header_log": (),
        "keep_alive": (),
        "mail": (),
        "publish": (),
        "shell": (),
    },
    "locum.dataplane": {
        "layout": (),
        "model": ("layout",),
        "kernel": ("layout", "model"),
        "mtu": ("kernel", "layout", "model"),
        "emitting": ("kernel", "layout"),
    },
    "locum.dataplane.kernel": {
        "hooks": (),
        "host": (),
        "senders": (),
    },
    "locum.lab": {
        "network": (),
        "captures": ("network",),
        "report": ("network",),
        "programs": ("captures", "network"),
        "steps": ("captures", "network", "programs", "report"),
        "forging": ("captures", "network", "steps"),
        "jobs": ("network", "programs", "report", "steps"),
        "scenarios": ("captures", "forging", "jobs", "network", "programs", "report", "steps"),
    },
    "locum.lab.programs": {"paging": (), "peers": (), "radius": ()},
    "locum.lab.scenarios": {
        "sleep": (),
        "stand_ins": (),
        "routing": ("sleep", "stand_ins"),
        "apps": ("sleep",),
        "paging": ("apps", "sleep"),
    },
    "locum.node": {
        "config": (),
        "translated": (),
        "host": ("config", "translated"),
        "plane": ("config",),
        "coap": ("config", "host"),
        "registration": ("config", "host"),
        "policy": ("coap", "config", "host"),
        "sessions": ("config", "registration"),
        "apps": ("config", "sessions"),
        "multicast": ("host", "registration"),
        "setup": (),
        "uses": ("config", "host", "sessions"),
        "wireguard": ("config", "host"),
        "moving": ("config", "control"),
        "enrolment": (),
        "control": ("apps", "coap", "config", "host", "plane", "sessions", "uses", "wireguard"),
    },
    "locum.node.config": {"paging": (), "server": (), "uses": (), "wireguard": ()},
    "locum.node.apps": {
        "shown": (),
        "paging": ("shown",),
        "awake": (),
        "starts": (),
    },
    "locum.cli": {"orders": (), "paging": (), "programs": (), "setup": ()},
    "locum.roles.foreign_agent": {"contexts": (), "pages": ("contexts",), "ways": ()},
    "locum.roles.mobile_node": {"paging": (), "wake": ()},
    "locum.roles.home_agent": {"keying": (), "paging": ()},
    "locum.roles": {
        "action_values": (),
        "location": ("action_values",),
        "mobile_ipv4": ("action_values",),
        "registrant": ("action_values", "mobile_ipv4"),
        "foreign_agent": ("action_values", "location", "mobile_ipv4", "paging"),
        "paging": ("action_values",),
        "home_agent": ("action_values", "location", "mobile_ipv4", "paging"),
        "mobile_node": ("action_values", "location", "mobile_ipv4", "paging", "registrant"),
        "mnps": ("action_values", "location", "mobile_ipv4", "paging", "registrant"),
    },
    "locum.sessions": {
        "programs": (),
        "search": ("programs",),
        "tcp": ("search",),
        "datagrams": ("search", "tcp"),
        "listening": ("programs", "search", "tcp"),
        "handed": ("tcp",),
    },
    "locum.wire": {
        "ip": (),
        "mobile_ip": ("ip",),
        "control": ("mobile_ip",),
        "enrolment": (),
    },
}


@cache
def modules() -> dict[str, Path]:
    """Every module of locum by dotted name; a package by its own name."""
    named = {}
    for path in SOURCE.rglob("*.py"):
        package = package_of(path)
        named[package if path.name == "__init__.py" else f"{package}.{path.stem}"] = path
    return named


def packages() -> list[str]:
    return sorted(name for name, path in modules().items() if path.name == "__init__.py")


@cache
def imports() -> dict[str, frozenset[str]]:
    """The modules of locum that each module imports."""
    known = modules()
    found = {}
    for name, path in known.items():
        named = (module for _line, module in imported(ast.parse(path.read_text()), package_of(path)))
        # "from a import b" names the module a.b, or something in the module a
        targets = (module if module in known else module.rpartition(".")[0] for module in named)
        found[name] = frozenset(node for node in targets if node in known and node != name)
    return found


def child(package: str, module: str) -> str | None:
    """The child of `package` that holds `module`; "__init__" for the package itself, None for modules elsewhere."""
    if module == package:
        return "__init__"
    return module[len(package) + 1 :].partition(".")[0] if module.startswith(package + ".") else None


def children(package: str) -> dict[str, set[str]]:
    """Which children of `package` import which others."""
    arrows: dict[str, set[str]] = {}
    for module, targets in imports().items():
        importer = child(package, module)
        if importer is not None:
            reached = {node for target in targets if (node := child(package, target)) is not None}
            arrows.setdefault(importer, set()).update(reached - {importer})
    return arrows


def reachable(arrows: Mapping[str, set[str]], start: str) -> set[str]:
    """All that `start` imports, directly or not; with `start` itself when it is in a circle."""
    seen: set[str] = set()
    waiting = list(arrows.get(start, ()))
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += arrows.get(node, ())
    return seen


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups whose members all import each other, directly or not."""
    reach = {name: reachable(arrows, name) for name in arrows}
    groups = {
        tuple(sorted(other for other in reach[name] if name in reach[other]))
        for name in arrows
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def behind(package: str, importer: str, target: str) -> list[str]:
    """The imports of modules that make `importer` import `target`, for the message of a failure."""
    return sorted(
        f"{module} imports {node}"
        for module, targets in imports().items()
        if child(package, module) == importer
        for node in targets
        if child(package, node) == target
    )


@pytest.mark.parametrize("package", packages())
def test_children_of_a_package_import_in_no_circle(package: str) -> None:
    arrows = children(package)
    found = circles(arrows)
    lines = [
        line
        for group in found
        for importer in group
        for target in sorted(arrows[importer] & set(group))
        for line in behind(package, importer, target)
    ]
    assert not found, f"import circles in {package}: {found}, closed by\n" + "\n".join(lines)


def against_the_flow() -> Iterator[str]:
    for parent, rows in FLOW.items():
        for importer, targets in children(parent).items():
            for target in sorted(targets & rows.keys()):
                if importer in rows and target not in rows[importer]:
                    yield from behind(parent, importer, target)


def test_folders_import_with_the_flow() -> None:
    found = list(against_the_flow())
    assert not found, "FLOW does not allow:\n" + "\n".join(found)


def test_every_folder_beside_others_has_a_row_in_the_flow() -> None:
    siblings: dict[str, set[str]] = {}
    for package in packages():
        parent, _dot, name = package.rpartition(".")
        if parent not in {"", "locum"}:  # packages of locum: RULES in test_imports.py
            siblings.setdefault(parent, set()).add(name)
    assert {parent: names for parent, names in siblings.items() if len(names) > 1} == {
        parent: set(rows) for parent, rows in FLOW.items()
    }


def test_the_flow_itself_has_no_circle() -> None:
    for parent, rows in FLOW.items():
        assert circles({name: set(targets) for name, targets in rows.items()}) == [], parent


@pytest.mark.parametrize(
    ("arrows", "found"),
    [
        ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
        ({"a": {"b"}, "b": {"a"}}, [["a", "b"]]),
        ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, [["a", "b", "c"]]),
        ({"a": {"b"}, "b": {"a"}, "c": {"d", "a"}, "d": {"c"}}, [["a", "b"], ["c", "d"]]),
    ],
)
def test_the_check_finds_every_circle(arrows: dict[str, set[str]], found: list[list[str]]) -> None:
    assert circles(arrows) == found
