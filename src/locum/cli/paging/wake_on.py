"""`locum wake-on`: what shall wake a device that sleeps."""

import shlex
import sys
from collections.abc import Mapping
from typing import Any

import click

from locum.cli.selector import selector_keys, selector_options
from locum.cli.target import Target, json_option, list_command
from locum.node.exits import Exit

FORMS = ("ssh", "tcp", "udp", "ping", "packets", "mail", "download", "mqtt", "call", "event")
_COLUMNS = ("wish", "text", "for", "watched_by", "state", "reason")
_PATIENCE = 20.0  # seconds; the node itself waits for a few


class _WakeOnGroup(click.Group):
    """`locum wake-on ssh` is `locum wake-on add ssh`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command with that name; that of a form is `add`."""
        return self.commands.get("add" if cmd_name in FORMS else cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command with that name, or `add` for a form."""
        if args and args[0] not in self.commands:
            args = ["add", *args]
        return super().resolve_command(ctx, args)


@click.group(cls=_WakeOnGroup, subcommand_metavar="FORM [OPTIONS] | add FORM | remove NUMBER | list")
def wake_on() -> None:
    """At a device: what shall wake it while it sleeps.

    \b
    locum wake-on ssh                             a connection to port 22
    locum wake-on tcp 8080 --from 192.0.2.0/24    packets to a port; udp likewise
    locum wake-on ping                            ICMP
    locum wake-on packets --protocol esp          packets by selector options
    locum wake-on mail --from boss@example.org    a message in a watched mailbox
    locum wake-on download                        a file is there, or cannot be had
    locum wake-on mqtt --topic 'alerts/#'         a message of a broker
    locum wake-on call --from sip:a@example.org   a call
    locum wake-on event KIND --where 'rows > 9'   any event of a proxy
    """


@wake_on.command("add")
@click.argument("form", type=click.Choice(FORMS), metavar="FORM")
@click.argument("value", required=False)
@click.option(
    "--from", "sender", metavar="TEXT", help="Of a mail or a call; of packets, an address or a prefix."
)
@click.option("--subject", metavar="TEXT", help="Part of the subject of a mail.")
@click.option(
    "--topic", metavar="FILTER", help="Of a message of a broker, with the wildcards + and # of MQTT."
)
@click.option("--app", metavar="NAME", help="With event: the proxy or order.")
@click.option(
    "--where", multiple=True, metavar="CONDITION", help="With event: such as 'size > 1000'. All must hold."
)
@click.option(
    "--every", type=click.IntRange(min=1), metavar="SECONDS", help="At most one page in so many seconds."
)
@click.option("--quiet", multiple=True, metavar="HH:MM-HH:MM", help="No page at these times of the day.")
@click.option(
    "--not-later",
    is_flag=True,
    help="Forget what --every or --quiet held back, instead of a page afterwards.",
)
@click.option(
    "--direct", is_flag=True, help="Page by the access node, which brings the event itself (1172A)."
)
@click.option("--store", is_flag=True, help="Keep the event for the device as well.")
@click.option("--tell", metavar="TEXT", help="Tell the correspondent this text.")
@click.option(
    "--order",
    type=click.Choice(("before", "with", "after")),
    help="Packets change their way before, with, or after the page.",
)
@selector_options
@json_option
@click.pass_obj
def add(target: Target, /, form: str, value: str | None, **options: Any) -> None:
    """Be woken by FORM. It holds for every sleep until it is removed; a device that sleeps already sends it at once.

    Exit code 1: it is kept, but not in force yet.
    """
    made = target.ask("wake-on add", timeout=_PATIENCE, wish=_keys(form, value, options))
    target.output.done(made, said(made))
    if made["state"] != "in force":
        sys.exit(Exit.FAILED)


@wake_on.command("remove")
@click.argument("number", type=int)
@json_option
@click.pass_obj
def remove(target: Target, number: int) -> None:
    """Forget the wish NUMBER."""
    gone = target.ask("wake-on remove", timeout=_PATIENCE, number=number)
    if gone["warning"]:
        click.echo(f"locum: warning: {gone['warning']}", err=True)
    target.output.done(gone, f"wish {number} is gone: {gone['text']}")


list_command(
    wake_on, "wake-on list", _COLUMNS, "Every wish, the node that watches for it, and whether it does."
)


def said(row: Mapping[str, Any]) -> str:
    """One line about a wish."""
    if row["state"] == "in force":
        return f"wish {row['wish']}: {row['text']}"
    return f"wish {row['wish']}: {row['text']}; not in force: {row['reason']}"


def watched(result: Mapping[str, Any]) -> list[str]:
    """A line for each wish and each problem in the result of a sleep."""
    wishes = result.get("wishes", [])
    told = [f"  wakes it: {wish['text']}" for wish in wishes if wish["state"] == "in force"]
    told += [
        f"  does not wake it: {wish['text']}: {wish['reason']}"
        for wish in wishes
        if wish["state"] != "in force"
    ]
    return told + [f"  paging: {problem}" for problem in result.get("paging_problems", [])]


def amiss(result: Mapping[str, Any]) -> bool:
    """True if a wish is not in force, or a node has not taken what it was told."""
    out = any(wish["state"] != "in force" for wish in result.get("wishes", []))
    return out or bool(result.get("paging_problems"))


def until(text: str) -> dict[str, Any]:
    """The keys of a wish in one text, such as "mail --from boss@example.org". Raises click.UsageError."""
    try:
        words = shlex.split(text)
    except ValueError as problem:
        raise click.UsageError(f"--until: {problem}") from None
    if not words or words[0] in ("list", "remove"):
        raise click.UsageError("--until: a form of `locum wake-on` is expected, such as ssh")
    words = words[1:] if words[0] == "add" else words
    try:
        given = add.make_context("--until", words).params
    except click.UsageError as problem:  # its context is no command that a user could ask for help
        raise click.UsageError(f"--until: {problem.format_message()}") from None
    return _keys(given.pop("form"), given.pop("value"), given)


def _keys(form: str, value: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The wish as the node reads it: given options only."""
    keys: dict[str, Any] = {"form": form, **({} if value is None else {"value": value})}
    names = {"sender": "from", "subject": "subject", "topic": "topic", "app": "app", "every": "every"}
    keys |= {key: options[name] for name, key in names.items() if options[name] is not None}
    keys |= {name: list(options[name]) for name in ("where", "quiet") if options[name]}
    if options["not_later"]:
        keys["later"] = False
    if options["direct"] or options["store"]:
        keys["actions"] = [
            "direct" if options["direct"] else "page",
            *(["store"] if options["store"] else []),
        ]
    keys |= {name: options[name] for name in ("tell", "order") if options[name] is not None}
    return keys | selector_keys(options)
