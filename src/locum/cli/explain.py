"""`locum explain`: the decision of a node's data plane about a packet, with its reasons."""

from typing import Any

import click

from locum.cli.target import Target, json_option


@click.command()
@click.argument("protocol")
@click.argument("source")
@click.argument("destination")
@click.option("--dscp", type=click.IntRange(0, 63), help="Differentiated services code point.")
@click.option("--spi", type=int, help="Security parameter index of ESP or AH.")
@click.option("--flow-label", type=click.IntRange(0, 0xFFFFF), help="IPv6 flow label.")
@click.option("--link", metavar="NAME", help="The link that it comes in on; without, the first of the node.")
@click.option("--here", is_flag=True, help="A program of this host sends it.")
@click.option("--tunnel-from", "outer_source", metavar="ADDRESS", help="It comes in a tunnel from there.")
@json_option
@click.pass_obj
def explain(
    target: Target,
    protocol: str,
    source: str,
    destination: str,
    dscp: int | None,
    spi: int | None,
    flow_label: int | None,
    link: str | None,
    here: bool,
    outer_source: str | None,
) -> None:
    """Say which rule of which binding would take a packet, and where it would go.

    SOURCE and DESTINATION are addresses, with ADDRESS:PORT where the protocol has ports; an IPv6 address with a port
    stands in brackets: [2001:db8::1]:80. Nothing is sent and nothing is counted.
    """
    arguments: dict[str, Any] = {"dscp": dscp, "spi": spi, "flow_label": flow_label, "link": link}
    arguments |= {"here": here or None, "outer_source": outer_source}
    result = target.ask(
        "explain",
        protocol=protocol,
        source=source,
        destination=destination,
        **{name: value for name, value in arguments.items() if value is not None},
    )
    if target.output.json:
        target.output.value(result)
        return
    for step in result["steps"]:
        click.echo(step)
    click.echo(f"the packet {result['verdict']}")
