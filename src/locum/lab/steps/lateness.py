"""A slow path through a router for the datagrams of one flow, so that later ones overtake them.

Packets of one way never overtake each other in the lab; on the internet they do. Stock tc and nft, as an operator would.
"""

from locum.lab.network.namespaces import inside, run
from locum.lab.world import Lab

_LONGEST_QUEUE = 1000
"""Packets."""


def delay(lab: Lab, router: str, interface: str, port: int, rate: int) -> None:
    """From now on UDP to `port`, in an IP-in-IP tunnel, leaves there at `rate` bits per second; all else as before."""
    enter = inside(lab.place, router)
    tc = [*enter, "tc"]
    run([*tc, *f"qdisc add dev {interface} root handle 1: htb default 20".split()])
    run([*tc, *f"class add dev {interface} parent 1: classid 1:20 htb rate 10gbit quantum 60000".split()])
    run([*tc, *f"class add dev {interface} parent 1: classid 1:30 htb rate {rate}bit quantum 1500".split()])
    run([*tc, *f"qdisc add dev {interface} parent 1:30 pfifo limit {_LONGEST_QUEUE}".split()])
    inner_port = "@th,176,16"  # behind the inner IP header
    rules = (
        "table ip late {\n chain out {\n  type filter hook postrouting priority mangle;\n"
        f'  oifname "{interface}" ip protocol 4 {inner_port} {port} meta priority set 1:30\n }}\n}}\n'
    )
    run([*enter, "nft", "-f", "-"], rules)
