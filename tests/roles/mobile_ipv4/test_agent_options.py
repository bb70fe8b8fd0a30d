"""Answers about UDP tunnels (RFC 3519) among several in one reply."""

import pytest

from locum.roles.action_values.registration import UdpTunnelAnswer
from locum.roles.mobile_ipv4.agent_options import udp_answer
from locum.wire.mobile_ip.extensions import UdpTunnelCode, UdpTunnelReply

DECLINED = UdpTunnelReply(UdpTunnelCode.DECLINED, False, 10)
EARLY, LATE = (UdpTunnelReply(UdpTunnelCode.WILL_TUNNEL, True, interval) for interval in (20, 30))
FIRST_ACCEPTANCE = UdpTunnelAnswer(True, True, 20)


@pytest.mark.parametrize(
    "said", [(EARLY, LATE), (EARLY, DECLINED), (DECLINED, EARLY), (DECLINED, EARLY, LATE, DECLINED)]
)
def test_the_first_acceptance_of_a_udp_tunnel_counts(said: tuple[UdpTunnelReply, ...]) -> None:
    assert udp_answer(said) == FIRST_ACCEPTANCE


def test_without_acceptance_the_first_udp_refusal_counts() -> None:
    later = UdpTunnelReply(UdpTunnelCode.DECLINED, False, 40)
    assert udp_answer((DECLINED, later)) == UdpTunnelAnswer(False, False, 10)
    assert udp_answer(()) is None
