from __future__ import annotations

from typing import Any

from router_core.contract.worker import Worker
from router_core.control.models import ModelCatalog
from router_core.fleet.pool import WorkerPool


async def test_an_old_answer_is_not_given_again() -> None:
    asked = []

    async def fetch(base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        asked.append(base_url)
        return [{"id": f"model-{len(asked)}"}]

    pool = WorkerPool("default", [Worker("http://a")])
    fresh = ModelCatalog([pool], fetch, max_age_s=0)
    assert [await fresh.models() for _ in range(2)] == [({"id": "model-1"},), ({"id": "model-2"},)]
    lasting = ModelCatalog([pool], fetch, max_age_s=3600)
    assert [await lasting.models() for _ in range(2)] == [({"id": "model-3"},)] * 2


async def test_nobody_is_asked_when_nobody_is_healthy() -> None:
    async def fetch(base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        raise AssertionError(base_url)

    assert await ModelCatalog([WorkerPool("default")], fetch).models() == ()
