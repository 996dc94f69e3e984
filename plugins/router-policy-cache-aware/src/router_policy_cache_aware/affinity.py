"""The policy's own way of deciding: longest known prefix while loads are even, else the shortest queue.

Compared with the gateway these rules come from, it differs where that one was seen to fail; README.md lists where.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from router_core.api import OutcomeStatus, RequestOutcome, RoutingRequest, Worker, least_loaded
from router_policy_cache_aware.decision import Decision, Gate, Limits, Reason
from router_policy_cache_aware.node import Holder, Holding
from router_policy_cache_aware.tree import Match, PrefixTree


class Affinity:
    """Decides for one pool.

    Args:
        limits: The thresholds.
        evicts: Whether `limits.tree_chars` is enforced.
        gate: Whose load turns affinity off: `fleet` the highest of all, for every prompt; `worker` that of the one who
            knows the prompt, for this prompt alone.
    """

    def __init__(self, limits: Limits, *, evicts: bool, gate: Gate = "fleet") -> None:
        self._limits = limits
        self._gate = gate
        self._tree = PrefixTree(limits.tree_chars if evicts else None)
        self._known: dict[str, _Known] = {}
        self._views: dict[tuple[Worker, ...], _Candidates] = {}
        self._view = _Candidates((), [])
        self._lessons: dict[RoutingRequest, Holding] = {}
        self._is_trimming = False

    def choose(self, workers: Sequence[Worker], request: RoutingRequest) -> Decision:
        """Choose the worker that computes a prompt, and remember it."""
        # The router gives the same tuple until membership or health changes.
        candidates = self._view if workers is self._view.workers else self._view_of(tuple(workers))
        text, limits = request.text, self._limits
        size = len(text)
        loads = [worker.load for worker in candidates.workers]
        highest, lowest = max(loads), min(loads)
        match = self._tree.match(request.namespace, text)
        matched = match.chars
        reason: Reason

        # 1. Loads are uneven: the shortest queue, whoever knows the prompt.
        if self._gate == "fleet" and highest != lowest and limits.is_imbalanced(highest, lowest):
            reason, worker = "imbalanced", least_loaded(candidates.workers)
        else:
            owners: list[Holder] = []
            if limits.is_hit(matched, size):
                known = matched
                matched, owners = self._tree.deepest(match, candidates.by_holder)
                if matched != known and not limits.is_hit(matched, size):
                    owners = []
            # 2. Enough of it is known to a candidate: the least loaded of those who know most of it.
            if owners:
                owner = candidates.by_holder
                reason = "cache_hit"
                worker = owner[owners[0]] if len(owners) == 1 else least_loaded([owner[each] for each in owners])
                if self._gate == "worker" and limits.is_imbalanced(worker.load, lowest):
                    reason, worker = "imbalanced", least_loaded(candidates.workers)
            # 3. It is as good as new: of the least loaded, the one with most room.
            else:
                reason, worker = "cache_miss", candidates.roomiest(loads, lowest)
        self._learn(match, candidates.known[worker.url].holder, request)
        return Decision(worker, reason, matched, size, highest, lowest)

    def least_loaded(self, workers: Sequence[Worker]) -> Worker:
        """Choose a worker whose cache does not matter."""
        return least_loaded(workers)

    def completed(self, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Keep what an attempt taught if its prompt was computed, else take it back."""
        holding = self._lessons.pop(request, None) if self._lessons else None
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
        self._known.pop(worker_url, None)
        self._views.clear()
        self._view = _Candidates((), [])

    def evict(self) -> None:
        """Begin to make some room ahead of need; `upkeep` does it."""
        self._is_trimming = True

    def upkeep(self) -> None:
        """Forget a few texts of workers that left, and of what was not used for longest while making room."""
        for known in self._known.values():
            known.head_start *= _HEAD_START_KEPT
        self._tree.sweep(_UPKEEP_STEPS)
        if self._is_trimming:
            self._is_trimming = not self._tree.evict(self._limits.tree_chars * 15 // 16, limit=_UPKEEP_STEPS)

    def tree_chars(self) -> Iterable[tuple[str, int]]:
        """Return how many characters each worker holds."""
        return [(key, holder.chars) for key, holder in self._tree.holders.items()]

    def _view_of(self, workers: tuple[Worker, ...]) -> _Candidates:
        """Return what is known of these very workers."""
        view = self._views.get(workers)
        if view is None:
            if len(self._views) >= _MAX_VIEWS:
                self._views.clear()
            view = self._views[workers] = _Candidates(workers, self._know(workers))
        self._view = view
        return view

    def _know(self, workers: tuple[Worker, ...]) -> list[_Known]:
        """Return what is known of each; a newcomer starts level with the smallest tree of its peers.

        Without that head start a fresh worker would draw every miss of a fleet that is equally busy, until its tree has
        caught up. It melts away, so the newcomer catches up over minutes.
        """
        peers = [self._known[worker.url] for worker in workers if worker.url in self._known]
        level = min((peer.size for peer in peers), default=0.0)
        for worker in workers:
            if worker.url not in self._known:
                self._known[worker.url] = _Known(self._tree.holder(worker.url), level)
        return [self._known[worker.url] for worker in workers]

    def _learn(self, match: Match, holder: Holder, request: RoutingRequest) -> None:
        """Remember where a prompt went: at once, so that the next one follows it, but provisionally."""
        holding = self._tree.learn(match, holder)
        if holding is not None and not holding.is_confirmed:
            if len(self._lessons) >= _MAX_LESSONS:
                self._lessons.clear()
            self._lessons[request] = holding


class _Known:
    """What is remembered of one worker: its part of the tree and what is left of its head start, in characters."""

    __slots__ = ("holder", "head_start")

    def __init__(self, holder: Holder, head_start: float) -> None:
        self.holder = holder
        self.head_start = head_start

    @property
    def size(self) -> float:
        """How full its cache is taken to be, in characters."""
        return self.holder.chars + self.head_start


class _Candidates:
    """One set of candidates, with what does not change from request to request."""

    __slots__ = ("workers", "known", "by_holder")

    def __init__(self, workers: tuple[Worker, ...], known: list[_Known]) -> None:
        self.workers = workers
        self.known = {worker.url: one for worker, one in zip(workers, known, strict=True)}
        self.by_holder = {one.holder: worker for worker, one in zip(workers, known, strict=True)}

    def roomiest(self, loads: list[int], lowest: int) -> Worker:
        """Return the worker with the smallest tree among those with the lowest load; of equals, whose turn it is."""
        equals = [worker for worker, load in zip(self.workers, loads, strict=True) if load == lowest]
        if len(equals) == 1:
            return equals[0]
        known = self.known
        sizes = [known[worker.url].size for worker in equals]
        smallest = min(sizes)
        return min(
            (worker for worker, size in zip(equals, sizes, strict=True) if size == smallest),
            key=attrgetter("last_reserved"),
        )


def _was_computed(outcome: RequestOutcome) -> bool:
    """Say whether the worker has the prompt's prefix in its cache now, as far as can be told."""
    if outcome.status is OutcomeStatus.SUCCESS:
        return True
    was_cut_short = outcome.status in (OutcomeStatus.CANCELLED, OutcomeStatus.TIMEOUT)
    return was_cut_short and outcome.ttft_s is not None


_UPKEEP_STEPS = 512
"""Ends let go of in one upkeep: about a millisecond."""

_HEAD_START_KEPT = 0.998
"""Of a head start, at each upkeep: half of it is gone after about six minutes."""

_MAX_VIEWS = 64
"""Candidate sets remembered: models times momentary health."""

_MAX_LESSONS = 65_536
"""Unconfirmed lessons remembered: more than requests in flight. Past it they are kept as if they were true."""
