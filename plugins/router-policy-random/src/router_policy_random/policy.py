"""The `random` policy."""

from __future__ import annotations

import random
from collections.abc import Sequence

from router_core.api import PolicyConfig, PoolContext, Worker, hookimpl


class RandomPolicy:
    """Give every candidate the same chance, whatever its load."""

    class Config(PolicyConfig):
        """Options of `random`."""

        seed: int | None = None
        """Seeds a random source of the policy's own. By default it draws from the pool's, which the router seeds."""

    def __init__(self, config: Config) -> None:
        self._has_own_source = config.seed is not None
        self._draw = random.Random(config.seed).random  # noqa: S311  spreads load, guards nothing

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Draw from the pool's random source unless the options name a seed."""
        if not self._has_own_source:
            self._draw = pool.random.random

    @hookimpl
    def select_single(self, workers: Sequence[Worker]) -> Worker:
        """Return any of the candidates."""
        return workers[int(self._draw() * len(workers))]
