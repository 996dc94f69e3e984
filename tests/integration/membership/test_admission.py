"""From a pod to a candidate: the source finds it, the roster lets it join, the health checker admits it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from router_core.fleet.engine_client import EngineClient
from router_core.fleet.health import HealthChecker
from router_core.fleet.pool import WorkerPool
from router_core.testing.simulated_engine import SimulatedEngine, simulated_engines

from .fake_kubernetes import FakeKubernetes
from .following import following_cluster
from .objects import pod

pytestmark = pytest.mark.usefixtures("kubernetes_library")


def pod_of(name: str, engine: SimulatedEngine) -> dict[str, object]:
    port = {"containerPort": urlsplit(engine.url).port}
    return pod(name, "127.0.0.1", containers=[{"name": "engine", "ports": [port]}])


@contextlib.asynccontextmanager
async def checked(pool: WorkerPool) -> AsyncIterator[asyncio.Queue[tuple[str, bool]]]:
    """Check a pool's workers, and tell who became healthy."""
    changes: asyncio.Queue[tuple[str, bool]] = asyncio.Queue()
    async with EngineClient() as client:
        checker = HealthChecker(
            pool,
            client,
            interval_s=0.05,
            random=Random(3),
            on_change=lambda worker, is_healthy, reason: changes.put_nowait((worker.url, is_healthy)),
        )
        checker.start()
        try:
            yield changes
        finally:
            await checker.stop()


async def test_a_found_pod_becomes_a_candidate_once_its_engine_answers(tmp_path: Path):
    async with FakeKubernetes() as cluster, simulated_engines(2) as (first, second):
        cluster.put("pods", pod_of("a", first))
        async with following_cluster(cluster, tmp_path) as found, checked(found.pool) as changes:
            assert await changes.get() == (first.url, True)
            cluster.put("pods", pod_of("b", second))
            assert await changes.get() == (second.url, True)
            assert [worker.url for worker in found.pool.candidates()] == [first.url, second.url]
            assert all(worker.models for worker in found.pool.candidates())
            cluster.delete("pods", "a")
            await found.until_urls(second.url)
            assert [worker.url for worker in found.pool.candidates()] == [second.url]
