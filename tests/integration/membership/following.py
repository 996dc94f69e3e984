"""A membership source at work: what it reported, and the pool a roster keeps by it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from router_core.contract.membership import MembershipSource, WorkerSpec
from router_core.fleet.membership.kubernetes import KubernetesMembership
from router_core.fleet.membership.roster import Roster
from router_core.fleet.membership.watch import WatchTiming
from router_core.fleet.pool import WorkerPool

from .fake_kubernetes import TOKEN, FakeKubernetes


@dataclass
class Following:
    """What became of a source's reports."""

    task: asyncio.Task[None]
    pool: WorkerPool = field(default_factory=WorkerPool)
    reports: list[tuple[WorkerSpec, ...]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def urls(self) -> list[str]:
        return sorted(worker.url for worker in self.pool.workers)

    async def until(self, state: Callable[[], object]) -> None:
        """Wait until `state()` is true; looked at after each report and pause. A source that ended is an error."""
        async with asyncio.timeout(20):
            while not state():
                self.news.clear()
                waiting = asyncio.ensure_future(self.news.wait())
                await asyncio.wait((waiting, self.task), return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if self.task.done():
                    self.task.result()
                    raise AssertionError("the source ended by itself")

    async def until_urls(self, *urls: str) -> None:
        await self.until(lambda: self.reports and self.urls == sorted(urls))


@contextlib.asynccontextmanager
async def following(
    source: MembershipSource, pauses: list[float] | None = None, news: asyncio.Event | None = None
) -> AsyncIterator[Following]:
    """Run a source and keep a pool by it."""
    pool, reports, news = WorkerPool(), [], news or asyncio.Event()
    take = Roster(pool).report("source")

    def report(specs: tuple[WorkerSpec, ...]) -> None:
        if reports and specs is reports[-1]:  # a sign of life
            return
        reports.append(specs)
        take(specs)
        news.set()

    task = asyncio.ensure_future(source.run(report))
    try:
        yield Following(task, pool, reports, [] if pauses is None else pauses, news)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def following_cluster(
    cluster: FakeKubernetes,
    folder: Path,
    *,
    timing: WatchTiming | None = None,
    silence_s: float = 10.0,
    token: str = TOKEN,
    **options: Any,
) -> AsyncIterator[Following]:
    """Follow a cluster; pauses between tries take no time and are noted."""
    pauses: list[float] = []
    news = asyncio.Event()

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        news.set()
        await asyncio.sleep(0)

    config = KubernetesMembership.Config.model_validate(
        {"selector": {"app": "vllm"}, "kubeconfig": write_kubeconfig(cluster, folder, token), **options}
    )
    source = KubernetesMembership(
        config, timing=timing or WatchTiming(), silence_s=silence_s, random=Random(7), sleep=pause
    )
    async with following(source, pauses, news) as found:
        yield found


def write_kubeconfig(cluster: FakeKubernetes, folder: Path, token: str = TOKEN) -> Path:
    path = folder / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": cluster.url}}],
        "users": [{"name": "router", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "router"}}],
    }
    path.write_text(json.dumps(config))
    return path
