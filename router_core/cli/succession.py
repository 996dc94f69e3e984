"""Other policies in the place of those that pools have: built, started, and put in place together, or not at all."""

from __future__ import annotations

from collections.abc import Iterable

from router_core.cli.served_pool import ServedPool
from router_core.config import PoolSettings
from router_core.contract.errors import StartupError
from router_core.plugin_host.manager import PolicyManager
from router_core.plugin_host.pair import PairManager


class Succession:
    """Policies, built and checked, that are to take the places of those some pools have.

    Use as `async with`: inside, all of them have started; those that have not taken their places by the end of it are
    stopped again.

    Args:
        wanted: The pools, and what their new policies are built from.

    Raises:
        StartupError: With one sentence for each problem of any of them.
    """

    def __init__(self, wanted: Iterable[tuple[ServedPool, PoolSettings]]) -> None:
        problems: list[str] = []
        self._waiting: list[tuple[ServedPool, PoolSettings, PolicyManager | PairManager]] = []
        for pool, settings in wanted:
            try:
                self._waiting.append((pool, settings, pool.build_successor(settings)))
            except StartupError as error:
                problems += error.problems
        if problems:
            raise StartupError(dict.fromkeys(problems))

    async def __aenter__(self) -> Succession:
        """Start all of them.

        Raises:
            StartupError: One does not start; those that had are stopped again.
        """
        waiting, self._waiting = self._waiting, []
        try:
            for pool, settings, manager in waiting:
                try:
                    await pool.start_successor(manager, settings)
                except StartupError as error:
                    raise StartupError(f"pool {pool.name}: {problem}" for problem in error.problems) from error
                self._waiting.append((pool, settings, manager))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    def take_place(self) -> None:
        """Have them choose from now on, all in one step of the event loop."""
        for pool, settings, manager in self._waiting:
            pool.succeed(manager, settings)
        self._waiting.clear()

    async def _stop(self) -> None:
        while self._waiting:
            await self._waiting.pop()[2].stop()
