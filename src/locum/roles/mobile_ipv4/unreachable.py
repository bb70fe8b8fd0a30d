"""Refusals for home agents that cannot be reached, by ICMP's types and codes (RFC 5944 section 3.4). Values only."""

from locum.wire.mobile_ip.registration import Code

_DESTINATION_UNREACHABLE, _TIME_EXCEEDED, _PARAMETER_PROBLEM = 3, 11, 12  # ICMP types (RFC 792)
_FRAGMENTATION_NEEDED = 4
_UNREACHABLE = {  # codes of RFC 792 and RFC 1122 section 3.2.2.1; others are "other" (88)
    0: Code.FA_HOME_NETWORK_UNREACHABLE,
    6: Code.FA_HOME_NETWORK_UNREACHABLE,  # unknown
    9: Code.FA_HOME_NETWORK_UNREACHABLE,  # prohibited
    11: Code.FA_HOME_NETWORK_UNREACHABLE,  # for the type of service
    1: Code.FA_HOME_AGENT_HOST_UNREACHABLE,
    7: Code.FA_HOME_AGENT_HOST_UNREACHABLE,  # unknown
    10: Code.FA_HOME_AGENT_HOST_UNREACHABLE,  # prohibited
    12: Code.FA_HOME_AGENT_HOST_UNREACHABLE,  # for the type of service
    3: Code.FA_HOME_AGENT_PORT_UNREACHABLE,
}


def refusal_code(icmp_type: int, icmp_code: int) -> Code | None:
    """The code for an ICMP error about the home agent (section 3.4); None for other errors.

    A message that was too long for the path is sent again in fragments when the mobile node asks again.
    """
    if icmp_type == _DESTINATION_UNREACHABLE:
        if icmp_code == _FRAGMENTATION_NEEDED:
            return None
        return _UNREACHABLE.get(icmp_code, Code.FA_HOME_AGENT_UNREACHABLE)
    if icmp_type in (_TIME_EXCEEDED, _PARAMETER_PROBLEM):
        return Code.FA_HOME_AGENT_UNREACHABLE
    return None
