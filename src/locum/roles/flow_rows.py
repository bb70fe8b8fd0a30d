"""Flows in rows of the store, the table of handovers, and one verdict for many flows. Values only."""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from locum.roles.action_values.addresses import JSON
from locum.roles.action_values.forwarding import FlowEntry as Entry
from locum.roles.action_values.forwarding import FlowVerdict, SetFlow
from locum.wire.control import Flow

TABLE: Final = "handover"


def flow_to_row(flow: Flow) -> JSON:
    """A flow as JSON."""
    return [flow.protocol, str(flow.local), flow.local_port, str(flow.peer), flow.peer_port]


def flow_from_row(row: JSON) -> Flow:
    """The flow in a row of our own; raises ValueError or TypeError for anything else."""
    if not isinstance(row, list | tuple) or len(row) != 5:
        raise ValueError("a flow has five parts")
    protocol, local, local_port, peer, peer_port = row
    if not (isinstance(protocol, int) and isinstance(local_port, int) and isinstance(peer_port, int)):
        raise ValueError("protocol and ports are whole numbers")
    return Flow(protocol, ip_address(str(local)), local_port, ip_address(str(peer)), peer_port)


def set_flows(flows: Iterable[Flow], verdict: FlowVerdict) -> list[SetFlow]:
    """The same verdict for all."""
    return [SetFlow(Entry(flow, verdict)) for flow in flows]
