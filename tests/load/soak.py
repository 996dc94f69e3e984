"""Load for a long time, to see whether the router's memory grows: `make soak`, or with figures of your own

    SOAK_SECONDS=300 SOAK_POLICIES=round_robin python -m tests.load.soak

Each policy has a router of its own before the same simulated engines, and its own clients: each asks again as soon as
it is answered, most for streams, some for plain answers, and some hang up at a random moment. Every prompt is new, and
what a policy may remember is kept so small that it has to forget all the time.

Memory is judged by its slope, by least squares over the second half. Fails if a slope is over its bound, an answer was
wrong, or load is left when all is over.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields, replace

import uvloop

from .children import Router, engine_process, router_process
from .traffic import call, chat_request

WORKERS = 4
SAMPLE_S = 1.0
IDLE_TIMEOUT_S = 60.0
PROMPTS = 10**12
"""So many that each is new."""

_SMALL_MEMORY = {
    "cache_aware": ("--policy-option", "max_tree_size=4000000"),
    "dynamo_cost": ("--policy-option", "max_blocks=10000"),
    "lmetric": ("--policy-option", "max_blocks=10000"),
    "lpwl": ("--policy-option", "max_blocks=10000"),
}
"""Arguments by policy: it shall forget from the first minutes on, or its memory grows because it may."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much; each can be set by `SOAK_<NAME>`.

    Attributes:
        seconds: How long new requests are begun.
        policies: Names, parted by commas.
        clients: Of each policy, at a time.
        max_slope: Bytes a minute that a router's memory may grow by.
    """

    seconds: float = 900.0
    policies: str = "cache_aware,lpwl"
    clients: int = 150
    max_slope: float = 262_144.0

    @classmethod
    def from_environment(cls) -> Sizes:
        given = {field.name: os.environ.get(f"SOAK_{field.name.upper()}") for field in fields(cls)}
        sizes = cls()
        return replace(
            sizes, **{name: type(getattr(sizes, name))(value) for name, value in given.items() if value is not None}
        )


@dataclass
class Watched:
    """A router under load, what its clients saw of it and how its memory went.

    Attributes:
        ended: Requests by how they ended for their clients.
        wrong: The first bytes of answers that were not right.
        memory: Seconds since the beginning, and resident bytes.
    """

    policy: str
    router: Router
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[bytes] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)

    def slope(self) -> float:
        """Return bytes a minute, by least squares over the second half of the samples."""
        half = self.memory[len(self.memory) // 2 :]
        if len(half) < 3:
            return 0.0
        seconds, sizes = zip(*half, strict=True)
        return statistics.linear_regression(seconds, sizes).slope * 60

    async def client(self, chance: random.Random, is_over: Callable[[], bool]) -> None:
        while not is_over():
            draw = chance.random()
            # 1. One in eight hangs up: its answer would be endless, so nothing can be over before.
            if draw < 0.125:
                request = chat_request(chance, prompts=PROMPTS, max_tokens=3000, ignore_eos=True, stream=draw < 0.1)
                made = await call(self.router.url, request, hang_up_after_s=chance.random() * 0.3)
                self.ended["hung up"] += 1
            # 2. One in four reads a plain answer, and 3. the others a stream.
            else:
                is_stream = draw > 0.375
                made = await call(self.router.url, chat_request(chance, prompts=PROMPTS, stream=is_stream))
                is_right = made.is_whole() if is_stream else made.is_whole_json()
                self.ended[("streamed" if is_stream else "plain") if is_right else "wrong"] += 1
                if not is_right:
                    self.wrong.append(bytes(made.received[:200]))

    async def load_left(self) -> float:
        """Return what its ledger still holds when it has had time to settle."""
        names = ("worker_requests_active", "worker_pending_prompt_tokens", "worker_decode_tokens")
        deadline = time.monotonic() + IDLE_TIMEOUT_S
        while True:
            metrics = await self.router.metrics()
            left = sum(sample.value for name in names for sample in metrics[name])
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.1)

    async def completions(self) -> Counter[str]:
        """Return the router's own count of attempts that ended, by outcome."""
        ended: Counter[str] = Counter()
        for sample in (await self.router.metrics()).get("requests_total", ()):
            ended[sample.labels["status"]] += int(sample.value)
        return ended


async def soak(sizes: Sizes) -> list[str]:
    """Run the load, print what was seen and return what was wrong with it."""
    knobs = {"ttft_s": 0.05, "token_interval_s": 0.02, "tokens": 16}
    async with AsyncExitStack() as stack:
        engines = await stack.enter_async_context(engine_process(WORKERS, **knobs))
        watched = []
        for policy in sizes.policies.split(","):
            running = router_process(engines.urls, policy, arguments=_SMALL_MEMORY.get(policy, ()))
            watched.append(Watched(policy, await stack.enter_async_context(running)))
        began = time.monotonic()
        spent = [each.router.cpu_s() for each in watched]

        async def sample() -> None:
            while (now := time.monotonic() - began) < sizes.seconds:
                for each in watched:
                    each.memory.append((now, each.router.rss_bytes()))
                await asyncio.sleep(SAMPLE_S)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(sample())
            for each in watched:
                for seed in range(sizes.clients):
                    chance = random.Random(f"{each.policy}-{seed}")
                    tasks.create_task(each.client(chance, lambda: time.monotonic() - began > sizes.seconds))
        took_s = time.monotonic() - began
        wrongs = []
        for each, before in zip(watched, spent, strict=True):
            wrongs += await judge(each, sizes, took_s, each.router.cpu_s() - before)
        return wrongs


async def judge(watched: Watched, sizes: Sizes, took_s: float, cpu_s: float) -> list[str]:
    """Print what was seen of a router and return what was wrong with it."""
    left, completions = await watched.load_left(), await watched.completions()
    ended, slope = watched.ended, watched.slope()
    requests = ended.total()
    answered = ended["streamed"] + ended["plain"]
    middle, last = (watched.memory[at][1] / 1e6 for at in (len(watched.memory) // 2, -1))
    rows = {
        "requests": f"{requests}, {requests / took_s:.0f} a second",
        "as their clients saw them": dict(ended),
        "as the router counted them": dict(completions),
        "load left": left,
        "router CPU": f"{cpu_s / took_s:.0%} of a core, {cpu_s / requests * 1e6:.0f} us a request",
        "router memory": f"{watched.memory[0][1] / 1e6:.1f} MB, {middle:.1f} half-way, {last:.1f} at the end",
        "slope, second half": f"{slope:+.0f} bytes a minute, {slope * took_s / 60 / requests:+.2f} a request",
    }
    print(f"\n{watched.policy}: {sizes.clients} clients at a time for {took_s:.0f} s")
    for name, value in rows.items():
        print(f"  {name:<27} {value}")
    found = {
        f"{ended['wrong']} answers were wrong, such as {watched.wrong[:3]}": ended["wrong"] > 0,
        f"{completions['success']} requests succeeded, {answered} were answered": completions["success"] != answered,
        f"outcomes that have no place here: {dict(completions)}": not completions.keys() <= {"success", "cancelled"},
        f"load is left: {left}": left > 0,
        f"memory grows by {slope:.0f} bytes a minute, the bound is {sizes.max_slope:.0f}": slope > sizes.max_slope,
    }
    return [f"{watched.policy}: {wrong}" for wrong, is_so in found.items() if is_so]


def main() -> int:
    """Return 1 if something was wrong."""
    wrongs = uvloop.run(soak(Sizes.from_environment()))
    print("\n" + ("\n".join(wrongs) or "nothing was wrong"))
    return bool(wrongs)


if __name__ == "__main__":
    sys.exit(main())
