"""Roles and their parts: every part is listed, and a part that is listed gets every call."""

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

import locum.roles.actions as a
from locum.roles.parts import Part, Parts
from tests.roles.world import Host, World

ROLES = ("ha", "an1", "mn", "mnps")  # hosts of the world whose roles consist of parts
CALLS = {name for name in vars(Part) if not name.startswith("_") and inspect.isfunction(getattr(Part, name))}


class NewPart(Part):
    """Records its calls, and is due at 7."""

    def __init__(self) -> None:
        self.calls: set[str] = set()

    def restore(self, rows: Sequence[a.Persist], *, now: float) -> list[a.Action]:
        self.calls.add("restore")
        return [a.Count("new-part-restored")]

    def happened(self, event: a.Event, *, now: float) -> list[a.Action] | None:
        self.calls.add("happened")
        return [a.Count("new-part-concerned")] if isinstance(event, a.NoAnswer) else None

    def timeout(self, *, now: float) -> list[a.Action]:
        self.calls.add("timeout")
        return [a.Count("new-part-due")]

    def deadline(self) -> float | None:
        self.calls.add("deadline")
        return 7.0


def host(name: str) -> Host:
    world = World()
    found: Host = getattr(world, name)
    return found


def listed(parts: Any) -> Iterator[Part]:
    for part in parts._parts:
        yield part
        yield from listed(part._parts) if isinstance(getattr(part, "_parts", None), Parts) else ()


def owned(thing: object, seen: set[int]) -> Iterator[object]:
    """Everything of `locum.roles` that can be reached from `thing` by attributes."""
    if id(thing) in seen or not type(thing).__module__.startswith("locum.roles"):
        return
    seen.add(id(thing))
    yield thing
    for value in vars(thing).values() if hasattr(thing, "__dict__") else ():
        yield from owned(value, seen)


def is_part(thing: object) -> bool:
    return Part in type(thing).__mro__  # by declaration, not by having methods of these names


@pytest.mark.parametrize("name", ROLES)
def test_a_new_part_gets_every_call(name: str) -> None:
    role: Any = host(name).make()
    new = NewPart()
    role._parts._parts = (*role._parts._parts, new)
    assert a.Count("new-part-restored") in role.restore((), now=0.0)
    assert a.Count("new-part-concerned") in role.happened(a.NoAnswer(1, "timeout"), now=0.0)
    assert a.Count("new-part-due") in role.timeout(now=0.0)
    assert role.deadline() is not None and role.deadline() <= 7.0
    assert new.calls == CALLS


@pytest.mark.parametrize("name", ROLES)
def test_a_role_lists_all_its_parts(name: str) -> None:
    role: Any = host(name).make()
    known = {id(part) for part in listed(role._parts)}
    parts = [thing for thing in owned(role, set()) if is_part(thing) and not isinstance(thing, Parts)]
    assert len(parts) > 1
    assert [type(part).__name__ for part in parts if id(part) not in known] == []


def subclasses(of: type) -> Iterator[type]:
    children: list[type] = of.__subclasses__()
    for child in children:
        yield child
        yield from subclasses(child)


def test_a_part_with_a_timeout_has_a_deadline() -> None:
    for part in subclasses(Part):
        assert ("timeout" in vars(part)) == ("deadline" in vars(part)), part


def test_parts_are_called_in_order() -> None:
    class Named(Part):
        def __init__(self, name: str, at: float | None) -> None:
            self.name, self.at = name, at

        def timeout(self, *, now: float) -> list[a.Action]:
            return [a.Count(self.name)]

        def deadline(self) -> float | None:
            return self.at

    parts = Parts(Named("first", None), Named("second", 5.0), Named("third", 3.0))
    assert parts.timeout(now=0.0) == [a.Count("first"), a.Count("second"), a.Count("third")]
    assert (parts.deadline(), Parts(Named("only", None)).deadline(), Parts().deadline()) == (3.0, None, None)
    assert parts.restore((), now=0.0) == [] and parts.happened(a.LinkUp("radio0"), now=0.0) is None
