"""The packets that a stand-in takes: in registrations (vendor extension) and in message 634."""

from enum import IntEnum


class Takes(IntEnum):
    """Packets that a stand-in's care-of address gets."""

    ALL = 0  # what no flow rule takes, ahead of the mobile node's own care-of addresses (R5)
    RULED = 1  # only what flow rules send there (R6)
