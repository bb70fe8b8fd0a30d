"""Changes of flow rules in the extensions of a registration: flow bindings (RFC 7629 section 4.2) and our names for them.

A name stands before the flow binding that it is about. The same name once more, right behind that, has the flow binding
for the other IP version. It must not know which rules there are.
"""

from collections.abc import Iterable

from locum.roles.action_values.flows import RuleVerdict, Selector
from locum.roles.action_values.registration import RuleChange, RuleOperation
from locum.wire.errors import WireError
from locum.wire.mobile_ip.extensions import Extension, FlowAction, FlowBinding
from locum.wire.mobile_ip.vendor import FlowOperation, FlowRule, encode_vendor
from locum.wire.traffic_selector import UnknownSelector

_OPERATIONS = {
    FlowOperation.ADD: RuleOperation.ADD,
    FlowOperation.REPLACE: RuleOperation.REPLACE,
    FlowOperation.REMOVE: RuleOperation.REMOVE,
}
_VERDICTS = {FlowAction.FORWARD: RuleVerdict.FORWARD, FlowAction.DROP: RuleVerdict.DROP}
_OPERATIONS_WRITTEN = {meant: operation for operation, meant in _OPERATIONS.items()}
_ACTIONS = {meant: action for action, meant in _VERDICTS.items()}


class RuleReader:
    """Collects the rule changes of one request, extension by extension. Every method raises WireError for a wrong order."""

    def __init__(self) -> None:
        self._found: list[tuple[FlowRule | None, list[FlowBinding]]] = []
        self._name: FlowRule | None = None  # whose flow binding comes next

    def binding(self, said: FlowBinding) -> None:
        """A flow binding has been read."""
        name, self._name = self._name, None
        if name is not None and self._found:
            last, bindings = self._found[-1]
            if last == name and len(bindings) == 1:
                bindings.append(said)
                return
        self._found.append((name, [said]))

    def name(self, said: FlowRule) -> None:
        """A name has been read."""
        self.other()
        if said.operation is FlowOperation.REMOVE:
            self._found.append((said, []))
        else:
            self._name = said

    def other(self) -> None:
        """The end of the options, or an option that is about no rule: no flow binding may be missing before it."""
        if self._name is not None:
            raise WireError("flow-rule", 0, "flow-binding-missing")

    def changes(self) -> tuple[RuleChange, ...]:
        """All changes, in their order."""
        self.other()
        return tuple([_change(name, bindings) for name, bindings in self._found])


def _change(name: FlowRule | None, bindings: list[FlowBinding]) -> RuleChange:
    if name is not None and not bindings:
        return RuleChange(name.identifier, RuleOperation.REMOVE)
    first = bindings[0]
    problem = _problem(bindings)
    selectors = () if problem else _selectors(bindings)
    verdict, to = _VERDICTS[first.action], first.bindings
    if name is None:
        return RuleChange(None, verdict=verdict, selectors=selectors, to=to, problem=problem)
    operation = _OPERATIONS[name.operation]
    return RuleChange(name.identifier, operation, name.priority, name.share, verdict, selectors, to, problem)


def _problem(bindings: list[FlowBinding]) -> str | None:
    """Reason why these flow bindings of one rule cannot be understood together."""
    first = bindings[0]
    if any(isinstance(binding.selector, UnknownSelector) for binding in bindings):
        return "a selector's format is not known"
    if any((binding.action, binding.bindings) != (first.action, first.bindings) for binding in bindings):
        return "the rule leads to different places"
    return None


def _selectors(bindings: list[FlowBinding]) -> tuple[Selector, ...]:
    known = [binding.selector for binding in bindings if not isinstance(binding.selector, UnknownSelector)]
    return tuple(known)


def write_changes(changes: Iterable[RuleChange]) -> list[Extension]:
    """The extensions that say these changes: one flow binding for each selector, each behind the name."""
    written: list[Extension] = []
    for change in changes:
        name = None
        if change.identifier is not None:
            operation = _OPERATIONS_WRITTEN[change.operation]
            name = encode_vendor(FlowRule(operation, change.identifier, change.priority, change.share))
        if change.operation is RuleOperation.REMOVE:
            written += [] if name is None else [name]
            continue
        for selector in change.selectors:
            written += [] if name is None else [name]
            written.append(FlowBinding(_ACTIONS[change.verdict], change.to, selector))
    return written
