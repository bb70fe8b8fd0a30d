"""Sockets about whose messages the kernel believes no path MTU.

Anybody can send an ICMP error about a datagram of a known port. A believed one would make the route to its receiver narrow,
and tunnels take that route too. Messages are short; a longer one leaves in fragments.
"""

import socket

# IP_MTU_DISCOVER and IPV6_MTU_DISCOVER with PMTUDISC_OMIT (linux/in.h, linux/in6.h); not in the socket module of Python 3.11.
_IPV4, _IPV6 = (socket.IPPROTO_IP, 10, 5), (socket.IPPROTO_IPV6, 23, 5)


def learn_no_path_mtu(made: socket.socket) -> None:
    """Set the option in each family whose packets the socket may have: one of IPv6 may have IPv4's too."""
    made.setsockopt(*_IPV4)
    if made.family == socket.AF_INET6:
        made.setsockopt(*_IPV6)
