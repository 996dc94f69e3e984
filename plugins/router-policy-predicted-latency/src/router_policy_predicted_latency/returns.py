"""How many requests to expect on each worker: conversations that come back, and all others. Knows nothing of routers.

A conversation goes on where its beginning is, so its next turn waits behind whatever its worker was given meanwhile.
How soon it comes depends on how long ago it was answered: people and tools take their time, and who has been away for
long stays away. From what came back when, the chance to come back is learned for each time away; summed up over those
who are away from a worker it says how many will turn up there.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection
from math import exp, sqrt
from operator import mul

from router_policy_predicted_latency.worker_state import AWAY_TICKS, BURST_S, WorkerState

TICK_S = 0.5
"""How often to look, and how exactly times away are known."""

_AHEAD_S = 2.0
"""How far to look ahead: about as long as a prefill holds others up."""

_AHEAD_TICKS = round(_AHEAD_S / TICK_S)

_HORIZON_S = 60.0
"""How far back the rate of those who do not come back looks: as far as the same traffic goes on."""

_UNLIKELY = 4.0
"""By how many standard deviations the last seconds must exceed the last minute to be a burst."""

_MEMORY_S = 600.0
"""What was learned of times away so long ago counts for a third."""

_UNSURE_S = 0.1
"""Seconds away without a return that are taken to have been seen from the first."""

_MOST = 65_536
"""Conversations to remember; the oldest go first."""

_ENDS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, AWAY_TICKS)
"""Where spans of time away end, in ticks; in each the chance to come back is about the same."""

_SPANS = [next(span for span, end in enumerate(_ENDS) if tick < end) for tick in range(AWAY_TICKS)]


class Returns:
    """Expects requests on the workers of one pool.

    A conversation is known by the last block of its latest prompt, which its next prompt holds, too.
    """

    __slots__ = ("_away", "_away_all", "_tick", "_away_s", "_came", "_active_s", "_soon", "_watched")

    def __init__(self) -> None:
        # A dict would be searched from its start for the oldest again and again.
        self._away: OrderedDict[int, tuple[WorkerState, int]] = OrderedDict()
        self._away_all = deque([0] * AWAY_TICKS, AWAY_TICKS)
        self._tick = 0
        # For each span: seconds that conversations were away, and how many came back.
        self._away_s = [0.0] * len(_ENDS)
        self._came = [0.0] * len(_ENDS)
        # Seconds that requests were in flight, and how many were followed by another within the time ahead.
        self._active_s = self._soon = 0.0
        self._watched = 0.0

    def __len__(self) -> int:
        return len(self._away)

    def left(self, last_block: int, state: WorkerState) -> None:
        """A conversation was answered on a worker."""
        away = self._away
        if last_block in away:
            self._forget(last_block)
        elif len(away) >= _MOST:
            self._forget(next(iter(away)))
        away[last_block] = state, self._tick
        state.away[0] += 1
        self._away_all[0] += 1

    def came(self, last_block: int) -> bool:
        """A request came whose prompt goes on after this block; says whether it is a conversation's next turn."""
        ticks = self._forget(last_block) if last_block in self._away else AWAY_TICKS
        if ticks >= AWAY_TICKS:
            return False
        span = _SPANS[ticks]
        self._came[span] += 1
        self._away_s[span] += TICK_S / 2
        gap_s = (ticks + 0.5) * TICK_S
        if gap_s < _AHEAD_S:
            # Of those that end at any moment of the time ahead, so many are back before it is over.
            self._soon += 1 - gap_s / _AHEAD_S
        return True

    def look(self, states: Collection[WorkerState]) -> None:
        """A tick passed: say in each worker's state what to expect there."""
        flights = sum(state.flights for state in states)
        arrivals = sum(state.arrivals for state in states)
        self._learn(flights)
        chances = self._chances() if self._away else None
        soon_rate = self._soon / (self._active_s + _UNSURE_S)
        # While nothing at all happens there is no rate, and the one before holds when it goes on.
        keep = exp(-TICK_S / _HORIZON_S) if flights or arrivals else 1.0
        added = 1 - keep
        self._watched = keep * self._watched + added
        fade = exp(-TICK_S / BURST_S)
        for state in states:
            state.arrival_sum = keep * state.arrival_sum + added * state.arrivals / TICK_S
            state.arrivals = 0
            rate = state.arrival_sum / self._watched if self._watched else 0.0
            state.burst_rate *= fade
            state.burst_from = _burst_from(rate)
            state.other_rate = rate if state.burst_rate <= state.burst_from else state.burst_rate
            state.return_rate = soon_rate * state.flights
            if chances is not None:
                state.return_rate += sum(map(mul, state.away, chances)) / _AHEAD_S
            state.away.appendleft(0)
        self._tick += 1
        self._away_all.appendleft(0)
        self._forget_old()

    def newcomer(self, state: WorkerState, peers: Collection[WorkerState]) -> None:
        """A worker joins: it counts as if it had had its share, else all that is new would go there."""
        if peers:
            state.other_rate = sum(peer.other_rate + peer.return_rate for peer in peers) / len(peers)
            state.arrival_sum = state.other_rate * self._watched
        state.burst_from = _burst_from(state.other_rate)

    def _learn(self, flights: int) -> None:
        keep = exp(-TICK_S / _MEMORY_S)
        away_s, came = self._away_s, self._came
        for span in range(len(_ENDS)):
            away_s[span] *= keep
            came[span] *= keep
        for span, away in zip(_SPANS, self._away_all, strict=True):
            away_s[span] += away * TICK_S
        self._active_s = keep * self._active_s + flights * TICK_S
        self._soon *= keep

    def _chances(self) -> list[float]:
        """Return the chance to come back in the time ahead, for each time away in ticks."""
        sums, total = [], 0.0
        for span in _SPANS:
            sums.append(total)
            total += TICK_S * self._came[span] / (self._away_s[span] + _UNSURE_S)
        sums += [total] * _AHEAD_TICKS
        return [1 - exp(sums[tick] - sums[tick + _AHEAD_TICKS]) for tick in range(AWAY_TICKS)]

    def _forget(self, last_block: int) -> int:
        """Return how many ticks a conversation was away, at most `AWAY_TICKS`; it no longer is."""
        state, left_at = self._away.pop(last_block)
        ticks = self._tick - left_at
        if ticks < AWAY_TICKS:
            state.away[ticks] -= 1
            self._away_all[ticks] -= 1
        return ticks

    def _forget_old(self) -> None:
        away, oldest = self._away, self._tick - AWAY_TICKS
        while away:
            last_block = next(iter(away))
            if away[last_block][1] > oldest:
                break
            del away[last_block]


def _burst_from(rate: float) -> float:
    """Return what a rate of the last seconds must exceed to say more than that of the last minute."""
    return rate + _UNLIKELY * sqrt((rate + 1 / BURST_S) / (2 * BURST_S))
