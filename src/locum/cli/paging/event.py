"""`locum event`: event tables at a stand-in, and events that were stored for a device (P3)."""

import click

from locum.cli.target import Target, json_option, list_command

_ENTRIES = ("home_address", "entry", "name", "when", "within", "actions", "limits", "paged_at", "waits")


@click.group()
def event() -> None:
    """Event tables of devices at a stand-in, and events that were stored while a device slept."""


list_command(
    event,
    "event list",
    ("home_address", "happened_at", "entry", "app", "event", "events", "detail", "stand_in"),
    "Stored events: at a device those that it has received, at a stand-in those that wait for their devices.",
)
list_command(event, "event tables", _ENTRIES, "At a stand-in: the entries of every device's table.")


@event.command()
@click.argument("home_address")
@json_option
@click.pass_obj
def show(target: Target, home_address: str) -> None:
    """At a stand-in: the table of the device HOME_ADDRESS, its stored events, and the page that waits."""
    target.output.record(target.ask("event show", home_address=home_address))


@event.command()
@json_option
@click.pass_obj
def clear(target: Target) -> None:
    """At a device: forget the events that it has received."""
    result = target.ask("event clear")
    target.output.done(result, f"{result['events']} events are forgotten")
