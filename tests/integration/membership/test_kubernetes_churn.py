"""Much at once: whatever happens in whatever order, in the end the router knows the pods there are, and no others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from router_core.fleet.membership.watch import WatchTiming

from .fake_kubernetes import FakeKubernetes
from .following import following_cluster
from .objects import pod

pytestmark = pytest.mark.usefixtures("kubernetes_library")

LEGS = ("prefill", "decode")


class Churn:
    """A cluster in which anything may happen next."""

    def __init__(self, cluster: FakeKubernetes, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.pods: dict[str, tuple[int, bool, str]] = {}
        self.deeds = (
            *[self.put] * 8,
            *[self.delete] * 4,
            *[cluster.drop_watches] * 2,
            lambda: cluster.drop_watches(partial_line=b'{"type":"DELETED","object":{"metadata":{"name":'),
            cluster.compact,
            cluster.send_gone,
            cluster.end_watches,
            cluster.send_bookmarks,
            lambda: cluster.send_line(b"<html>\n"),
            lambda: cluster.faults["list"].append(random.choice([429, 500, 503])),
            lambda: cluster.faults["watch"].append(random.choice([410, 500])),
        )

    def step(self) -> None:
        self.random.choice(self.deeds)()

    def put(self) -> None:
        name = f"pod-{self.random.randrange(12)}"
        last_octet, is_ready, leg = self.random.randrange(1, 200), self.random.random() < 0.8, self.random.choice(LEGS)
        taken = {octet for other, (octet, _, _) in self.pods.items() if other != name}
        if last_octet not in taken:
            self.pods[name] = (last_octet, is_ready, leg)
            self.cluster.put("pods", pod(name, f"10.0.0.{last_octet}", labels={"leg": leg}, is_ready=is_ready))

    def delete(self) -> None:
        if self.pods:
            name = self.random.choice(sorted(self.pods))
            del self.pods[name]
            self.cluster.delete("pods", name)

    def workers(self) -> dict[str, str]:
        return {f"http://10.0.0.{octet}:8000": leg for octet, is_ready, leg in self.pods.values() if is_ready}


@pytest.mark.parametrize("seed", range(6))
async def test_after_any_churn_the_pool_holds_the_ready_pods(tmp_path: Path, seed: int):
    random = Random(seed)
    async with FakeKubernetes() as cluster:
        cluster.gone_as = random.choice(["status", "event"])
        cluster.page_items = random.choice([2, 500])
        churn = Churn(cluster, random)
        selectors = {"selector": None, "prefill_selector": "leg=prefill", "decode_selector": "leg=decode"}
        async with following_cluster(cluster, tmp_path, timing=WatchTiming(watch_s=1), **selectors) as found:
            for _ in range(120):
                churn.step()
                if random.random() < 0.5:  # let some of it arrive, but never all
                    for _ in range(random.randrange(20)):
                        await asyncio.sleep(0)
                    if random.random() < 0.05:
                        await cluster.stop()
                        churn.step()
                        await cluster.start()
            cluster.faults = {"list": [], "watch": []}
            wanted = churn.workers()
            await found.until(lambda: {w.url: w.role.value for w in found.pool.workers} == wanted)
