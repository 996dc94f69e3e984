"""What engines tell of their models while somebody asks for the list is learned on the way."""

from __future__ import annotations

from typing import Any

from router_core.fleet.engine_client import EngineClient
from router_core.fleet.engine_facts import models_and_adapters
from router_core.fleet.pool import WorkerPool


class ModelLearner:
    """Asks engines which models they serve, and tells the fleet."""

    def __init__(self, fleet: WorkerPool, client: EngineClient) -> None:
        self._fleet = fleet
        self._client = client

    async def fetch(self, base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        """Return what the engine at an address lists, as it came.

        Raises:
            EngineReplyError: If it does not answer, or not with a list of models.
        """
        items = await self._client.fetch_models(base_url, timeout_s)
        models, adapters = models_and_adapters(items)
        for worker in self._fleet.workers:
            if worker.base_url == base_url:
                self._fleet.learn_models(worker, models, adapters)
        return items
