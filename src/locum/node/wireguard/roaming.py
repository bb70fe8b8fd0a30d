"""The way back to a peer with an end point of its own: decides when to call, to ask for an echo, and to begin anew.

Without clock and input: time comes in as an argument in steady seconds, actions go out. WireGuard alone is slow here. Its
keepalive has no answer, so that a server which forgot the session is found after 15 s, and a lost handshake is repeated
after 5 s. wireguard-go's clock stands still in a suspended host, whose session the server has ended long since.

After a move a keepalive tells the server the new address at once, and an echo inside the tunnel brings the proof. Without
an answer the peer is set anew, which makes WireGuard begin a handshake at once; each time with the next address of its
name, which is resolved again.
"""

from dataclasses import dataclass
from enum import Enum

ECHOES = (0.1, 0.25, 0.5)  # seconds after a call, of further echoes
FIRST_RENEWAL = 1.0  # seconds without an answer
LONGEST_RENEWAL = 30.0  # seconds between two renewals
REJECT_AFTER = 180.0  # seconds; WireGuard paper section 6.1: no packet is taken after that
SILENCE = 10.0  # seconds in which we send and nothing comes
MOST_UNANSWERED = 96  # bytes sent in such a time without suspicion: three keepalives
LATE = 5.0  # seconds without an answer after which people are told


class Act(Enum):
    """One thing to do now."""

    CALL = "send a keepalive from the present address"
    RENEW = "set the peer anew, and send a keepalive"
    ECHO = "ask for an echo inside the tunnel"
    LATE = "tell that the peer does not answer"
    BACK = "tell that it answers again"


@dataclass(frozen=True, slots=True)
class Seeking:
    """No proof of the way yet."""

    since: float
    called: float
    echoes: int  # sent since the call
    renewals: int
    told: bool  # that it is late


@dataclass(frozen=True, slots=True)
class Settled:
    """The peer was heard since the last change. `took`: seconds that it took."""

    took: float
    renewals: int


State = Seeking | Settled


class Roaming:
    """One peer."""

    def __init__(self) -> None:
        self.state: State = Settled(0.0, 0)
        self._received = self._sent = 0
        self._silent_since: float | None = None

    def moved(self, *, now: float, handshake_age: float) -> list[Act]:
        """The way has changed, or the host has slept. `handshake_age`: seconds by the wall clock; infinite: none."""
        before = self.state
        seeking = isinstance(before, Seeking)
        anew = handshake_age > REJECT_AFTER
        since = before.since if isinstance(before, Seeking) else now
        renewals = before.renewals if isinstance(before, Seeking) else 0
        told = isinstance(before, Seeking) and before.told
        self.state = Seeking(since if seeking else now, now, 0, renewals + anew, told)
        self._silent_since = None
        return [Act.RENEW if anew else Act.CALL, Act.ECHO]

    def answered(self, *, now: float) -> list[Act]:
        """An echo has come back, or a handshake is done."""
        self._silent_since = None
        if isinstance(self.state, Settled):
            return []
        self.state = Settled(now - self.state.since, self.state.renewals)
        return [Act.BACK]

    def counted(self, received: int, sent: int, *, now: float) -> list[Act]:
        """Bytes of the peer as WireGuard has counted them: silence in answer to our packets is suspicious."""
        heard, self._received = received != self._received, received
        if heard or self._silent_since is None:
            self._silent_since, self._sent = now, sent
            return []
        unanswered = sent - self._sent > MOST_UNANSWERED
        if isinstance(self.state, Settled) and unanswered and now - self._silent_since >= SILENCE:
            self.state = Seeking(now, now, 0, 0, False)
            self._silent_since = None
            return [Act.ECHO]
        return []

    def timeout(self, *, now: float) -> list[Act]:
        """The deadline has come."""
        state = self.state
        if not isinstance(state, Seeking) or now < (self.deadline() or 0.0):
            return []
        told = state.told or now - state.since >= LATE
        acts = [Act.LATE] if told and not state.told else []
        if now >= state.called + self._patience(state):
            self.state = Seeking(state.since, now, 0, state.renewals + 1, told)
            return [*acts, Act.RENEW, Act.ECHO]
        if state.echoes < len(ECHOES) and now >= state.called + ECHOES[state.echoes]:
            self.state = Seeking(state.since, state.called, state.echoes + 1, state.renewals, told)
            return [*acts, Act.ECHO]
        self.state = Seeking(state.since, state.called, state.echoes, state.renewals, told)
        return acts

    def deadline(self) -> float | None:
        """Time of the next call of `timeout`; None: there is nothing to wait for."""
        state = self.state
        if not isinstance(state, Seeking):
            return None
        times = [state.called + self._patience(state)]
        if state.echoes < len(ECHOES):
            times.append(state.called + ECHOES[state.echoes])
        if not state.told:
            times.append(state.since + LATE)
        return min(times)

    @staticmethod
    def _patience(state: Seeking) -> float:
        return float(min(FIRST_RENEWAL * 2 ** min(state.renewals, 10), LONGEST_RENEWAL))
