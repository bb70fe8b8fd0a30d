"""Values that are frozen for the type checker only behave otherwise like frozen dataclasses."""

from dataclasses import dataclass, field, fields, replace

import pytest

from locum.wire.values import value


@dataclass(frozen=True, slots=True)
class Plain:
    first: int
    second: tuple[str, ...] = ("two",)
    third: bytes = field(default=b"", compare=False, repr=False)


@value
class Fast:
    first: int
    second: tuple[str, ...] = ("two",)
    third: bytes = field(default=b"", compare=False, repr=False)


def test_value_behaves_like_a_frozen_dataclass() -> None:
    plain, fast = Plain(1, third=b"3"), Fast(1, third=b"3")
    assert hash(fast) == hash(plain) and repr(fast) == repr(plain).replace("Plain", "Fast")
    assert fast == Fast(1) != Fast(2) and {fast: 1}[Fast(1)] == 1
    assert replace(fast, first=2) == Fast(2)
    assert [field.name for field in fields(Fast)] == [field.name for field in fields(Plain)]
    match fast:
        case Fast(1, second):
            assert second == ("two",)


def test_value_has_only_its_fields() -> None:
    assert not hasattr(Fast(1), "__dict__")
    with pytest.raises(AttributeError):
        Fast(1).fourth = 4  # type: ignore[attr-defined]
