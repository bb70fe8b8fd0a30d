"""The tables [[mobile_node.listen]]: ports of the device's programs, and policies for new connections."""

import os
import re
from dataclasses import replace
from typing import Any

from locum.node.config.toml_table import Table
from locum.roles.registrant.configuration import ListeningPort
from locum.wire.control import MAX_LISTENERS, MAX_WAITING, MAX_WINDOW, Policy

_POLICIES = {"refuse": Policy.REFUSE, "ignore": Policy.IGNORE, "accept": Policy.ACCEPT}
_WRITTEN = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_MOST_PORTS = MAX_LISTENERS // 2  # a device has a home address of each family


def listening(table: Table) -> tuple[ListeningPort, ...]:
    """All of them, in the order given. Raises ConfigError."""
    found = tuple(port for item in table.tables("listen") for port in _ports(item))
    if len({port.port for port in found}) != len(found):
        raise table.error("listen", "two tables name one port")
    if len(found) > _MOST_PORTS:
        raise table.error("listen", f"names {len(found)} ports in all, more than {_MOST_PORTS}")
    return found


def possible(ports: tuple[ListeningPort, ...]) -> tuple[ListeningPort, ...]:
    """The same, but nothing is accepted where the kernel could not give it to a program: such a port is left unanswered."""
    from locum.sessions.listening.replay import impossible

    if impossible(os.uname().release) is None:
        return ports
    return tuple(
        replace(port, policy=Policy.IGNORE) if port.policy is Policy.ACCEPT else port for port in ports
    )


def _ports(table: Table) -> list[ListeningPort]:
    first, last = table.converted("port", _range, 'a port, or a range such as "8000-8003"')
    policy = _POLICIES[table.choice("while_asleep", tuple(_POLICIES))]
    most = table.integer("most", 64, least=1, most=MAX_WAITING)
    window = table.size("window", 32 << 10, least=4608, most=MAX_WINDOW)
    table.close()
    if last - first >= _MOST_PORTS:
        raise table.error(
            "port", f"names more than {_MOST_PORTS} ports; only listening ports have to be named"
        )
    return [ListeningPort(port, policy, most, window) for port in range(first, last + 1)]


def _range(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        if (written := _WRITTEN.fullmatch(value)) is None:
            raise TypeError
        first, last = int(written[1]), int(written[2] or written[1])
    elif isinstance(value, int) and not isinstance(value, bool):
        first = last = value
    else:
        raise TypeError
    if not 1 <= first <= last <= 0xFFFF:
        raise ValueError
    return first, last
