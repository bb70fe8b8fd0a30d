"""Private names of aiocoap are used in one file, so that an upgrade of the library is checked in one place.

Names are read from the syntax trees of aiocoap and of locum. A class that derives from one of aiocoap is compared with
the private names of its own bases, because it may use any other name for itself.
"""

import ast
import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import aiocoap
import pytest

from tests.test_imports import SOURCE, imported, package_of

ADAPTER = SOURCE / "node" / "coap" / "aiocoap_adapter.py"


def private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def defined(tree: ast.AST) -> Iterator[str]:
    """The private names that a piece of source defines or assigns."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                pass
            case ast.Attribute(attr=name, ctx=ast.Store()) | ast.Name(id=name, ctx=ast.Store()):
                pass
            case _:
                continue
        if private(name):
            yield name


@cache
def names_of_library() -> frozenset[str]:
    assert aiocoap.__file__ is not None
    files = Path(aiocoap.__file__).parent.rglob("*.py")
    return frozenset(name for path in files for name in defined(ast.parse(path.read_text())))


@cache
def names_of_bases(module: str, name: str) -> frozenset[str]:
    """The private names of aiocoap in the bases of a class of locum; empty when none comes from there."""
    bases = getattr(importlib.import_module(module), name).__mro__
    found: set[str] = set()
    for base in bases:
        if base.__module__.partition(".")[0] == "aiocoap":
            with contextlib.suppress(OSError):  # a named tuple has no source
                found |= set(defined(ast.parse(textwrap.dedent(inspect.getsource(base)))))
    return frozenset(found)


def uses(tree: ast.Module, module: str, package: str) -> list[str]:
    """The uses of private names of aiocoap in one file, with their lines."""
    names = list(imported(tree, package))
    if not any("aiocoap" in name for _, name in names):
        return []
    found = [
        f"line {line}: {name}"
        for line, name in names
        if name.startswith("aiocoap.") and any(private(part) for part in name.split("."))
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                pass  # compared with the bases of its class, below
            case (
                ast.Attribute(attr=name)
                | ast.Call(
                    func=ast.Name(id="getattr" | "setattr" | "hasattr"),
                    args=[_, ast.Constant(value=str(name)), *_],
                )
            ) if name in names_of_library():
                found.append(f"line {node.lineno}: {name}")
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef):
            taken = names_of_bases(module, owner.name)
            for node in ast.walk(owner):
                match node:
                    case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                        pass
                    case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                        pass
                    case _:
                        continue
                if name in taken:
                    found.append(f"line {node.lineno}: {name} of a base of {owner.name}")
    return found


def test_only_the_adapter_uses_private_names_of_aiocoap() -> None:
    faults = [
        f"{path.relative_to(SOURCE)} {fault}"
        for path in sorted(SOURCE.rglob("*.py"))
        if path != ADAPTER
        for fault in uses(ast.parse(path.read_text()), f"{package_of(path)}.{path.stem}", package_of(path))
    ]
    assert not faults, "move to node/coap/aiocoap_adapter.py:\n" + "\n".join(faults)


def test_the_adapter_names_the_pinned_version() -> None:
    documented = ast.parse(ADAPTER.read_text())
    assert f"aiocoap {version('aiocoap')}" in (ast.get_docstring(documented) or "")


def test_the_check_sees_each_use_in_the_adapter() -> None:
    """The adapter is the example: the check finds private names of a module, of an object and of a base in it."""
    found = uses(ast.parse(ADAPTER.read_text()), "locum.node.coap.aiocoap_adapter", "locum.node.coap")
    used = {fault.split(": ")[1].split(" of a base")[0].rpartition(".")[2] for fault in found}
    assert used >= {
        "_append_tokenmanaged_transport",
        "_create_transport_endpoint",
        "_evict_from_pool",
        "_extract_message_size",
        "_spawn_protocol",
        "_spool",
        "_transport",
    }


@pytest.mark.parametrize(
    "line",
    [
        "from aiocoap.transports.tcp import _serialize",
        "import aiocoap; aiocoap.Context()._append_tokenmanaged_transport",
        "import aiocoap; getattr(aiocoap, '_spawn_protocol')",
    ],
)
def test_the_check_finds_a_private_name_in_a_line(line: str) -> None:
    assert uses(ast.parse(line), "locum.node.coap.oscore", "locum.node.coap")
