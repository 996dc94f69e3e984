"""What every way of deciding has in common: the options it reads, the question and the answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from router_core.api import RequestOutcome, RoutingRequest, Worker

Reason = Literal["cache_hit", "cache_miss", "imbalanced", "owner_lost"]
"""`owner_lost` is only said by the original rules: the worker that knew the prompt is not among the candidates."""


Gate = Literal["fleet", "worker"]
"""Whose load may turn affinity off: the busiest worker's of the fleet, or that of the one who knows the prompt."""


class Limits(NamedTuple):
    """The thresholds.

    Attributes:
        cache: Share of the prompt that must be known, strictly exceeded.
        balance_abs: Difference between the highest and the lowest load, strictly exceeded, and
        balance_rel: ratio between them, strictly exceeded, that make the loads uneven.
        tree_chars: Characters to remember.
    """

    cache: float
    balance_abs: int
    balance_rel: float
    tree_chars: int

    def is_imbalanced(self, highest: int, lowest: int) -> bool:
        """Say whether loads between these two are so uneven that the queue matters more than the cache."""
        return highest - lowest > self.balance_abs and highest > self.balance_rel * lowest

    def is_hit(self, matched: int, chars: int) -> bool:
        """Say whether enough of a prompt is known to follow it."""
        return chars > 0 and matched / chars > self.cache  # a quotient: 29 of 100 is exactly 0.29, 0.29 * 100 is not 29


class Decision(NamedTuple):
    """Whom to send a request to, and why.

    Attributes:
        worker: Whom.
        reason: Why.
        matched: Characters of the prompt known at the workers that counted.
        chars: Characters of the prompt.
        highest: The highest load seen.
        lowest: The lowest load seen.
    """

    worker: Worker
    reason: Reason
    matched: int
    chars: int
    highest: int
    lowest: int

    @property
    def ratio(self) -> float:
        """The share of the prompt that is known, 0 for an empty one."""
        return self.matched / self.chars if self.chars else 0.0


class Rules(Protocol):
    """One way of deciding, with its memory of who was given what."""

    def choose(self, workers: Sequence[Worker], request: RoutingRequest) -> Decision | None:
        """Choose the worker that computes a prompt, and remember it."""

    def least_loaded(self, workers: Sequence[Worker]) -> Worker | None:
        """Choose a worker whose cache does not matter."""

    def completed(self, request: RoutingRequest, outcome: RequestOutcome) -> None:
        """An attempt that `choose` placed, or another, has ended."""

    def added(self, worker_url: str) -> None:
        """A worker joined."""

    def removed(self, worker_url: str) -> None:
        """A worker left for good."""

    def evict(self) -> None:
        """The eviction interval has passed."""

    def upkeep(self) -> None:
        """Do a little of what is left to do; called often."""

    def tree_chars(self) -> Iterable[tuple[str, int]]:
        """Return how many characters each worker holds."""
