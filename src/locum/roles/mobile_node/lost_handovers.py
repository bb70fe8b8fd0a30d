"""The end of a handover whose sessions cannot come back: its report, events and row. It decides nothing."""

from dataclasses import replace

from locum.roles.action_values.addresses import JSON, Addr
from locum.roles.actions import Action, Emit
from locum.roles.mobile_node.handover import Handover, Stage
from locum.roles.session_report import Fate, Report


def lost(
    handover: Handover, reason: str, report: Report, home_address: Addr
) -> tuple[Handover, list[Action]]:
    """The handover as it is abandoned, and the actions that say that all of its sessions are lost."""
    # Those that were back have ended as well.
    ended = replace(handover.at(Stage.ABANDONED), returned=(), processes=(), loose=False)
    for session in ended.sessions:
        report.tell(session.flow, Fate.LOST, reason, session.processes, session.programs)
    detail: dict[str, JSON] = {"sessions": len(ended.sessions), "reason": reason}
    return ended, [
        ended.persist(),
        Emit("sessions-lost", None, home_address, None, detail),
        *(Emit("session-lost", None, flow.local, flow, {"reason": reason}) for flow in ended.flows),
    ]


def outlived(handover: Handover, boot: str) -> bool:
    """True if its sockets and programs ended with an earlier boot of this host; `boot` names this one."""
    over = handover.stage in (Stage.PREPARING, Stage.RETURNED)
    return not over and not handover.order and handover.boot != boot
