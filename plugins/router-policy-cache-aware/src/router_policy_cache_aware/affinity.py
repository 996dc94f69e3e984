"""The policy's own way of deciding: longest known prefix while loads are even, else the shortest queue.

Compared with the gateway these rules come from, it differs where that one was seen to fail; README.md lists where.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router_core.api import OutcomeStatus, RequestOutcome, RoutingRequest, Worker, least_loaded
from router_policy_cache_aware.decision import Decision, Limits, Reason, routing_namespace
from router_policy_cache_aware.node import Holder, Holding
from router_policy_cache_aware.tree import Match, PrefixTree


class Affinity:
    """Decides for one pool.

    Args:
        limits: The thresholds.
        evicts: Whether `limits.tree_chars` is enforced.
    """

    def __init__(self, limits: Limits, *, evicts: bool) -> None:
        self._limits = limits
        self._tree = PrefixTree(limits.tree_chars if evicts else None)
        self._views: dict[tuple[Worker, ...], _Candidates] = {}
        self._lessons: dict[tuple[str, str], Holding] = {}
        self._is_trimming = False

    def choose(self, workers: Sequence[Worker], request: RoutingRequest) -> Decision:
        """Choose the worker that computes a prompt, and remember it."""
        candidates = self._view(tuple(workers))
        text, limits = request.text, self._limits
        loads = [worker.load for worker in candidates.workers]
        highest, lowest = max(loads), min(loads)
        match = self._tree.match(routing_namespace(request), text)
        matched = match.chars
        reason: Reason

        # 1. Loads are uneven: the shortest queue, whoever knows the prompt.
        if limits.is_imbalanced(highest, lowest):
            reason, worker = "imbalanced", least_loaded(candidates.workers)
        else:
            keys: list[str] = []
            if limits.is_hit(matched, len(text)):
                matched, keys = self._tree.deepest(match, candidates.by_url)
            # 2. Enough of it is known to a candidate: the least loaded of those who know most of it.
            if limits.is_hit(matched, len(text)):
                reason, worker = "cache_hit", least_loaded([candidates.by_url[key] for key in keys])
            # 3. It is as good as new: of the least loaded, the one with most room.
            else:
                reason, worker = "cache_miss", candidates.roomiest(loads, lowest)
        self._learn(match, candidates.holders[worker.url], request)
        return Decision(worker, reason, matched, len(text), highest, lowest)

    def least_loaded(self, workers: Sequence[Worker]) -> Worker:
        """Choose a worker whose cache does not matter."""
        return least_loaded(workers)

    def completed(self, worker_url: str, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Keep what an attempt taught if its prompt was computed, else take it back."""
        holding = self._lessons.pop((request.id, worker_url), None) if self._lessons else None
        if holding is None:
            return
        if _was_computed(outcome):
            self._tree.confirm(holding)
        else:
            self._tree.retract(holding)

    def added(self, worker_url: str) -> None:
        """Nothing to do: a worker is known when it is first a candidate."""

    def removed(self, worker_url: str) -> None:
        """Forget a worker that left for good, little by little."""
        self._tree.remove_holder(worker_url)
        self._views.clear()

    def evict(self) -> None:
        """Begin to make some room ahead of need; `upkeep` does it."""
        self._is_trimming = True

    def upkeep(self) -> None:
        """Forget a few texts of workers that left, and of what was not used for longest while making room."""
        self._tree.sweep(_UPKEEP_STEPS)
        if self._is_trimming:
            self._is_trimming = not self._tree.evict(self._limits.tree_chars * 15 // 16, limit=_UPKEEP_STEPS)

    def tree_chars(self) -> Iterable[tuple[str, int]]:
        """Return how many characters each worker holds."""
        return [(key, holder.chars) for key, holder in self._tree.holders.items()]

    def _view(self, workers: tuple[Worker, ...]) -> _Candidates:
        """Return what is known of these very workers; the same tuple comes again and again."""
        view = self._views.get(workers)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            view = self._views[workers] = _Candidates(workers, self._tree)
        return view

    def _learn(self, match: Match, holder: Holder, request: RoutingRequest) -> None:
        """Remember where a prompt went: at once, so that the next one follows it, but provisionally."""
        holding = self._tree.learn(match, holder)
        if holding is not None and not holding.is_confirmed:
            if len(self._lessons) >= _MAX_LESSONS:
                self._lessons.clear()
            self._lessons[request.id, holder.key] = holding


class _Candidates:
    """One set of candidates, with what does not change from request to request."""

    __slots__ = ("workers", "by_url", "holders")

    def __init__(self, workers: tuple[Worker, ...], tree: PrefixTree) -> None:
        self.workers = workers
        self.by_url = {worker.url: worker for worker in workers}
        self.holders = {worker.url: tree.holder(worker.url) for worker in workers}

    def roomiest(self, loads: list[int], lowest: int) -> Worker:
        """Return the worker with the smallest tree among those with the lowest load; of equals, whose turn it is."""
        best: Worker | None = None
        best_chars = 0
        for worker, holder, load in zip(self.workers, self.holders.values(), loads, strict=True):
            if load == lowest:
                chars = holder.chars
                if (
                    best is None
                    or chars < best_chars
                    or (chars == best_chars and worker.last_reserved < best.last_reserved)
                ):
                    best, best_chars = worker, chars
        assert best is not None  # noqa: S101  `lowest` is one of `loads`
        return best


def _was_computed(outcome: RequestOutcome) -> bool:
    """Say whether the worker has the prompt's prefix in its cache now, as far as can be told."""
    if outcome.status is OutcomeStatus.SUCCESS:
        return True
    was_cut_short = outcome.status in (OutcomeStatus.CANCELLED, OutcomeStatus.TIMEOUT)
    return was_cut_short and outcome.ttft_s is not None


_UPKEEP_STEPS = 512
"""Ends let go of in one upkeep: about a millisecond."""

_MAX_VIEWS = 64
"""Candidate sets remembered: models times momentary health."""

_MAX_LESSONS = 65_536
"""Unconfirmed lessons remembered: more than requests in flight. Past it they are kept as if they were true."""
