"""Layouts of entries: the words of keys, the identifiers of values, and a change of a word. As bpf/locum.h has them.

Knows which table has its values where, but no map.
"""

import struct

PROGRAM = "locum_change"

ENTRY = struct.Struct("<QQQ")
TRANSLATION_ENTRY = struct.Struct("<QQQQQ")
CHANGE = struct.Struct("<40sQq")
AFTER, AFTER_AT = struct.Struct("<Qq"), 40
"""Of a change that was made: the old word, and the result."""
CHANGES = 512
"""Changes in one run of the program."""

THERE = 1 << 63
LARGE = 1 << 32
LAST_NUMBER = 0xFFFFFFFF

# In the order of `enum locum_changed`: the tables of values of each, the smaller size first; without one the word is the value.
ENTRIES: dict[str, tuple[str, ...]] = {
    "endpoints": (),
    "flows": (),
    "rule_count": (),
    "bindings": ("binding_values",),
    "visited": ("binding_values",),
    "binding_more": ("more_values",),
    "acceptances": ("acceptance_values",),
    "outbound": ("tunnel_values",),
    "rules": ("rules_few", "rules_many"),
    "filters": ("filters_few", "filters_many"),
    "groups": ("group_values",),
    "translations": ("translation_values",),
    "access_links": (),
    "senders": (),
}
WORD_BYTES = {"senders": 8}
"""Bytes of a value that is the word itself, where they are not 4; it has at most 63 bits."""

# Tables of values: whether equal values are stored once. Values of these few are large, or never equal.
VALUES: dict[str, bool] = {
    "binding_values": True,
    "more_values": False,
    "acceptance_values": True,
    "tunnel_values": True,
    "rules_few": False,
    "rules_many": False,
    "filters_few": False,
    "filters_many": False,
    "group_values": False,
    "translation_values": False,
}


def number(value: int) -> bytes:
    """Key of a table of values."""
    return value.to_bytes(4, "little")
