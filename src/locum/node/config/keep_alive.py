"""The tables [[mobile_node.keepalive]]: UDP flows whose last datagram the stand-in repeats while the device sleeps."""

from locum.node.config.toml_table import Table
from locum.sessions.datagrams.keep_alive import MOST_RULES, KeepAliveRule


def keep_alive_rules(table: Table) -> tuple[KeepAliveRule, ...]:
    """All of them, in their order: the first that fits a flow counts. Raises ConfigError."""
    rules = tuple(_rule(subtable) for subtable in table.tables("keepalive"))
    if len(rules) > MOST_RULES:
        raise table.error("keepalive", f"{len(rules)} tables; at most {MOST_RULES}")
    return rules


def _rule(table: Table) -> KeepAliveRule:
    rule = KeepAliveRule(
        port=table.integer("port", least=1, most=0xFFFF),
        seconds=table.integer("seconds", least=1, most=86400),
        peer=table.optional("peer"),
        discard_answers=table.boolean("discard_answers", False),
    )
    table.close()
    return rule
