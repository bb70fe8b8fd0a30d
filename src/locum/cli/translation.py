"""`locum translation | group`: translated addresses, and forwarded multicast groups."""

import click

from locum.cli.target import list_command


@click.group()
def translation() -> None:
    """Home addresses that become a stand-in's own address at this node."""


@click.group()
def group() -> None:
    """Multicast groups that an access node forwards to its visitors."""


list_command(
    translation,
    "translation list",
    (
        "home_address",
        "interface_address",
        "tunnel",
        "packets_towards",
        "bytes_towards",
        "packets_back",
        "bytes_back",
    ),
    "Translations, with packets and bytes towards the stand-in and back.",
)
list_command(
    group,
    "group list",
    ("group", "upstream", "links", "packets", "bytes"),
    "Multicast groups, where they come from and go to, with the copies made.",
)
