"""The results of the steps that the node performs during a wake. Values only."""

from collections.abc import Mapping

from locum.roles.action_values.sessions import (
    Drained,
    DrainRound,
    Finished,
    FinishSessions,
    InjectData,
    Injected,
    NotPerformed,
    SessionFailure,
    Tighten,
    Tightened,
)
from locum.roles.actions import Event
from locum.roles.mobile_node.wake.states import Completing, Draining, Injecting, State, Tightening
from locum.wire.control import Flow

StepResult = Tightened | Injected | Drained | Finished | NotPerformed


def step_result(state: State, event: Event) -> StepResult | None:
    """Return the result of the current step; None: the event is late, or about something else.

    A step that failed as a whole gives a failure for each of its sessions where it changes them.
    """
    match state, event:
        case Tightening(flows), Tightened() if event.flows == flows:
            return event
        case Tightening(), NotPerformed(action=Tighten()):
            return event
        case Injecting(pieces), Injected() if _same(pieces, event):
            return event
        case Injecting(pieces), NotPerformed(action=InjectData()):
            return Injected((), tuple(SessionFailure(flow, event.reason) for flow in pieces))
        case Draining(flows), Drained() if {flow for flow, _ in event.unread} <= flows:
            return event
        case Draining(), NotPerformed(action=DrainRound()):
            return event
        case Completing(flows), Finished() if event.flows == flows:
            return event
        case Completing(flows), NotPerformed(action=FinishSessions()):
            return Finished(flows, tuple(SessionFailure(flow, event.reason) for flow in flows))
    return None


def _same(pieces: Mapping[Flow, bytes], event: Injected) -> bool:
    told = (*(flow for flow, _ in event.taken), *(failure.flow for failure in event.failures), *event.gone)
    return all(flow in pieces for flow in told)
