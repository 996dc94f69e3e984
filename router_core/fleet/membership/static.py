"""Workers that stand in the router's config and never change."""

from __future__ import annotations

import asyncio

from router_core.contract.membership import Report
from router_core.contract.policy import PolicyConfig
from router_core.fleet.membership.entries import WorkerEntries


class StaticMembership:
    """Reports the configured workers, once."""

    class Config(PolicyConfig):
        """Options of the source `static`."""

        workers: WorkerEntries
        """The workers: urls, or mappings with url, role, models, labels and bootstrap_port."""

    def __init__(self, config: Config) -> None:
        self._specs = tuple(entry.to_spec() for entry in config.workers)

    async def run(self, report: Report) -> None:
        """Report the list and wait to be cancelled."""
        report(self._specs)
        await asyncio.get_running_loop().create_future()
