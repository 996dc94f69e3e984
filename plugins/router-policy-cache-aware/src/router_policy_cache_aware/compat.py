"""The rules of an older router to the letter, for people who compare: `compat` chooses them, nothing else uses them.

`sglang-0.3.2` sends what is not known to the lowest load, `tree_size` (its first release) to the smallest tree.
Kept on purpose, though each is a defect: among equals the first wins; the load range covers whoever is passed; a worker
that is momentarily not a candidate is forgotten, and what it knew goes to the first candidate; the creator of a prefix
answers for it; failed requests teach; the size limit holds for each worker and model, and only when the timer comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from router_core.api import RequestOutcome, RoutingRequest, Worker, healthy
from router_policy_cache_aware.compat_tree import OriginalTree
from router_policy_cache_aware.decision import Decision, Limits, Reason


class OriginalRules:
    """Decides for one pool.

    Args:
        limits: The thresholds.
        misses_by_tree_size: Whether a miss goes to the smallest tree instead of the lowest load.
    """

    def __init__(self, limits: Limits, *, misses_by_tree_size: bool) -> None:
        self._limits = limits
        self._misses_by_tree_size = misses_by_tree_size
        self._trees: dict[str | None, OriginalTree] = {}

    def choose(self, workers: Sequence[Worker], request: RoutingRequest) -> Decision | None:
        """Choose the worker that computes a prompt, and remember it."""
        candidates = healthy(workers)
        if not candidates:
            return None
        text = request.text
        tree = self._tree(workers, request.model)
        highest, lowest = max(worker.load for worker in workers), min(worker.load for worker in workers)

        if self._limits.is_imbalanced(highest, lowest):
            worker = _first_with_lowest_load(candidates)
            tree.insert(text, worker.url)
            return Decision(worker, "imbalanced", 0, len(text), highest, lowest)

        matched, tenant = tree.prefix_match(text)
        reason: Reason = "cache_hit"
        if not self._limits.is_hit(matched, len(text)):
            reason = "cache_miss"
            tenant = tree.smallest_tenant() if self._misses_by_tree_size else _first_with_lowest_load(candidates).url
        for worker in candidates:
            if worker.url == tenant:
                tree.insert(text, worker.url)
                return Decision(worker, reason, matched, len(text), highest, lowest)
        if tenant is not None:
            tree.remove_tenant(tenant)
        return Decision(candidates[0], "owner_lost", matched, len(text), highest, lowest)

    def least_loaded(self, workers: Sequence[Worker]) -> Worker | None:
        """Choose a worker whose cache does not matter."""
        candidates = healthy(workers)
        return _first_with_lowest_load(candidates) if candidates else None

    def completed(self, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """Nothing: the tree sees decisions, not what became of them."""

    def added(self, worker_url: str) -> None:
        """Make the worker known to every tree, with nothing in it."""
        for tree in self._trees.values():
            tree.insert("", worker_url)

    def removed(self, worker_url: str) -> None:
        """Forget the worker, in one go."""
        for tree in self._trees.values():
            tree.remove_tenant(worker_url)

    def evict(self) -> None:
        """Cut every worker's part of every tree down to the limit, in one go."""
        for tree in self._trees.values():
            tree.evict_tenants_by_size(self._limits.tree_chars)

    def upkeep(self) -> None:
        """Nothing is done by and by."""

    def tree_chars(self) -> Iterable[tuple[str, int]]:
        """Return how many characters each worker holds, over all models."""
        total: dict[str, int] = {}
        for tree in self._trees.values():
            for tenant, chars in tree.tenant_chars.items():
                total[tenant] = total.get(tenant, 0) + chars
        return total.items()

    def _tree(self, workers: Sequence[Worker], model: str | None) -> OriginalTree:
        tree = self._trees.get(model)
        if tree is None:
            tree = self._trees[model] = OriginalTree()
            for worker in workers:
                tree.insert("", worker.url)
        return tree


def _first_with_lowest_load(workers: Sequence[Worker]) -> Worker:
    return min(workers, key=lambda worker: worker.load)
