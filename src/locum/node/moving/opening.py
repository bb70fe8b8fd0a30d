"""The start of following the host's suspends, if it is a device with a stand-in."""

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from locum.node.control.view import NodeView
    from locum.node.moving.following import FollowingHost


def follow_host(node: "NodeView", closers: AsyncExitStack) -> "FollowingHost | None":
    """Follow it from now on, until `closers` end it; None: there is nothing to hand over, or nobody wants it."""
    mobile = node.settings.mobile_node
    if mobile is None or not mobile.stand_ins or not mobile.suspend:
        return None
    from locum.node.control.sleep import SleepControl
    from locum.node.moving.following import FollowingHost
    from locum.node.moving.suspending import Suspending

    device = SleepControl(node, node.driver.slots["mobile_node"])
    suspending = Suspending(device, node.host_store, node.events, node.clock.now)
    moved = (lambda: None) if node.wireguard is None else node.wireguard.moved
    following = FollowingHost(node.settings.node.name, suspending, node.events, moved)
    following.begin()
    closers.push_async_callback(following.close)
    return following
