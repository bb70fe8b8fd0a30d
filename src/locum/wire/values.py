"""Values that are made for every message: frozen for the type checker, not at run time. It must not know any value.

A frozen dataclass sets each field past its own guard, one call a field. There are some eighty fields in a registration, and
at a home agent that was a tenth of its cost. Rarer values are ordinary frozen dataclasses.
"""

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

C_ = TypeVar("C_")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[C_]) -> type[C_]:
    """`dataclass(frozen=True, slots=True)`, of which `make check` sees to the first."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
