"""Options that select packets: the keys of a flow rule's table, for `locum flow` and `trigger`."""

from collections.abc import Callable, Mapping
from typing import Any

import click

_OPTIONS = (
    ("--source", "ADDRESS", "From this address, prefix or range (first-last)."),
    ("--destination", "ADDRESS", "To this address; the home address unless it says otherwise."),
    ("--source-port", "PORT", "The sender's port, or a range such as 8000-8099."),
    ("--destination-port", "PORT", "The port at the home address, or a range."),
    ("--protocol", "NAME", "tcp, udp, icmp, icmpv6, gre, esp, ah, sctp, or a number."),
    ("--dscp", "NUMBER", "Differentiated services code point, or a range."),
    ("--spi", "NUMBER", "Security parameter index of ESP or AH, or a range."),
    ("--flow-label", "NUMBER", "IPv6 flow label, or a range."),
    ("--family", "4|6", "Packets of IPv4 or of IPv6 only; without, of both where nothing else says."),
)


def selector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The selector's options; `selector_keys` collects the given ones."""
    for name, metavar, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


def selector_keys(options: Mapping[str, str | None]) -> dict[str, Any]:
    """The keys of the rule's table; numeric text becomes a number."""
    names = [name.removeprefix("--").replace("-", "_") for name, _, _ in _OPTIONS]
    return {name: number_or_text(value) for name in names if (value := options.get(name)) is not None}


def number_or_text(value: str) -> int | str:
    """A whole number (decimal, or hexadecimal with 0x) as one, everything else as it is."""
    try:
        return int(value, 0)
    except ValueError:
        return value
