"""Reads from the store which sessions a mobile node handed over and has not taken back."""

import contextlib

from locum.node.boot import boot_id
from locum.node.tables import HostStore, HostTable
from locum.roles.mobile_node.handover import Handover, Stage
from locum.wire.control import Flow

_OVER = (Stage.RETURNED, Stage.ABANDONED)


def claimed_flows(store: HostStore) -> dict[Flow, bool]:
    """The flows of handovers of this boot that are not over, each with whether it is loose."""
    boot = boot_id()
    claimed: dict[Flow, bool] = {}
    for key, row in store.rows(HostTable.DEVICE_HANDOVER).items():
        with contextlib.suppress(ValueError, KeyError, TypeError):
            handover = Handover.from_row(key, row)
            if handover.stage not in _OVER and handover.boot == boot:
                claimed |= dict.fromkeys(handover.flows, handover.loose)
    return claimed
