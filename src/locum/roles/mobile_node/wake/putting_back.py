"""The bytes of one wake (C3): the next fetches, fetched data, and bytes taken by each socket.

The end of the received data comes with the final state and is not fetched. It must not know states, nor when to finish.
"""

from collections.abc import Iterable, Iterator, Mapping

from locum.roles.action_values.sessions import Injected
from locum.roles.actions import Action, Answered
from locum.roles.mobile_node.handover import StandInDialogue
from locum.roles.mobile_node.wake.fetch_window import FetchAhead, Want
from locum.roles.mobile_node.wake.progress import Progress
from locum.wire.control import FinalState, Flow, Status, decode_632
from locum.wire.errors import WireError

BATCH = 8 << 20  # bytes put back in one step: some ten milliseconds, after which other answers are looked at


class PuttingBack:
    """Puts back the bytes of the sessions of `progress`, and keeps that up to date."""

    def __init__(self, dialogue: StandInDialogue, handover: bytes, progress: Progress) -> None:
        self._progress = progress
        self._ahead = FetchAhead(dialogue, handover)

    def __contains__(self, request: int) -> bool:
        return request in self._ahead

    @property
    def fetching(self) -> bool:
        """An answer is being waited for."""
        return self._ahead.busy

    @property
    def arrived(self) -> bool:
        """Bytes of any session are here."""
        return bool(self._ahead.arrived)

    def fetch(self) -> list[Action]:
        """Fetch missing data, as far as the window is open."""
        return self._ahead.more(self._wanted())

    def _wanted(self) -> Iterator[Want]:
        """Data that may be fetched now, and its end: the tail came with the final state."""
        for progress in self._progress.taking():
            tail = progress.final if progress.tail else None
            end = progress.target if tail is None else tail.tail_offset
            yield progress.session.session, progress.offset, end

    def keep(self, event: Answered) -> str | None:
        """The answer to a fetch; a reason when it has not all that was asked for."""
        try:
            answer = decode_632(event.body)
        except WireError as error:
            return str(error)
        if answer.status is not Status.OK:
            return answer.status.name.lower()
        return None if self._ahead.keep(event.request, answer.data) else "short"

    def pieces(self) -> dict[Flow, bytes]:
        """Fetched data that can be put back, up to the size of one step."""
        pieces: dict[Flow, bytes] = {}
        size = 0
        for number in self._ahead.arrived:
            progress = self._progress.numbered(number)
            if progress is None or not progress.taking:
                continue
            if data := self._ahead.take(number, progress.offset):
                pieces[progress.session.flow] = data
                size += len(data)
                if size >= BATCH:
                    break
        return pieces

    def took(self, event: Injected, pieces: Mapping[Flow, bytes]) -> None:
        """Handle the results of the pieces; bytes not taken are kept. Failures are left to the caller."""
        self._progress.place((), event.gone)
        for flow, taken in event.taken:
            data = pieces[flow]
            self._progress.took(flow, taken, len(data))
            if taken < len(data):
                number, offset = self._progress.session(flow).session, self._progress.offset(flow)
                self._ahead.put_back(number, offset, data[taken:])

    def start_over(self) -> None:
        """Drop all requests and all data, and start over."""
        self._ahead.clear()
        self._progress.forget_tails()

    def stopped(self, finals: Mapping[Flow, FinalState]) -> None:
        """These are the last states."""
        self._ahead.clear()
        self._progress.stopped(finals)

    def add_tails(self) -> None:
        """Add the end of the received data that is not here yet."""
        for flow in self._progress.flows:
            final = self._progress[flow].final
            if final is None or not final.tail:
                continue
            offset = max(final.tail_offset, self._progress.offset(flow))
            if data := final.tail[offset - final.tail_offset :]:
                self._ahead.add(self._progress.session(flow).session, offset, data)
                self._progress.tail_is_here(flow)

    def forget(self, flows: Iterable[Flow]) -> None:
        """These sessions are no part of the wake any more."""
        listed = tuple(flows)
        for flow in listed:
            self._ahead.forget(self._progress.session(flow).session)
        self._progress.remove(listed)
