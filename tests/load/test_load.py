"""500 streams at a time for a minute; then 10,000 requests of which every third client hangs up at a random moment.

    python -m pytest -m load tests/load -q -s        # the full size, and the report

Sizes come from the environment, see `_SIZES`. The same two tests run small in every test run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import pytest

from .children import Router, engine_process, router_process
from .traffic import call, chat_request

_STATE_TIMEOUT_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much; each can be set by `LOAD_<NAME>`.

    Attributes:
        policy: Of the router.
        workers: Engines.
        streams: Streams at a time.
        seconds: How long new streams are begun.
        tokens: Tokens of a stream.
        token_interval_s: Seconds between two of them.
        requests: Requests of the second test.
        at_once: Of them at a time.
        rss_growth: What the router's memory may grow by in the second half; checked at full size alone.
    """

    policy: str = "cache_aware"
    workers: int = 4
    streams: int = 500
    seconds: float = 60.0
    tokens: int = 100
    token_interval_s: float = 0.1
    requests: int = 10_000
    at_once: int = 200
    rss_growth: float = 0.05


def _from_environment(sizes: Sizes) -> Sizes:
    given = {field.name: os.environ.get(f"LOAD_{field.name.upper()}") for field in fields(Sizes)}
    return replace(
        sizes, **{name: type(getattr(sizes, name))(value) for name, value in given.items() if value is not None}
    )


FULL = pytest.param(_from_environment(Sizes()), id="full", marks=[pytest.mark.load, pytest.mark.async_timeout(1800)])
SMALL = pytest.param(
    Sizes(streams=60, seconds=0.5, tokens=20, token_interval_s=0.02, requests=300, at_once=60, rss_growth=1.0),
    id="small",
)


async def until(state: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + _STATE_TIMEOUT_S
    while not await state():
        assert time.monotonic() < deadline, f"not within {_STATE_TIMEOUT_S:g} s: {what}"
        await asyncio.sleep(0.05)


async def loads(router: Router) -> list[float]:
    metrics = await router.metrics()
    names = ("worker_requests_active", "worker_pending_prompt_tokens", "worker_decode_tokens")
    return [sample.value for name in names for sample in metrics[name]]


async def is_idle(router: Router) -> bool:
    return not any(await loads(router))


async def ledger(router: Router) -> tuple[int, Counter[str]]:
    """Return selections, and completions by status."""
    metrics = await router.metrics()
    # On a machine that has something else to do, a decision may be late; nothing else may go wrong.
    faults = metrics.get("policy_faults_total", ())
    assert {sample.labels["kind"] for sample in faults if sample.value} <= {"over_budget"}
    completions: Counter[str] = Counter()
    for sample in metrics.get("requests_total", ()):
        completions[sample.labels["status"]] += int(sample.value)
    return int(metrics["policy_decision_seconds_count"][0].value), completions


def report(title: str, rows: dict[str, object]) -> None:
    width = max(map(len, rows))
    print(f"\n{title}\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items()))


@pytest.mark.parametrize("sizes", [SMALL, FULL])
async def test_many_streams_all_arrive_whole(sizes):
    knobs = {"ttft_s": 0.05, "token_interval_s": sizes.token_interval_s, "tokens": sizes.tokens}
    async with (
        engine_process(sizes.workers, **knobs) as engines,
        router_process(engines.urls, sizes.policy) as router,
    ):
        began, cpu_began = time.monotonic(), router.cpu_s()
        tokens = streams = 0
        memory: list[int] = []

        async def client(seed: int) -> None:
            nonlocal tokens, streams
            chance = random.Random(seed)
            while time.monotonic() - began < sizes.seconds:
                made = await call(router.url, chat_request(chance, stream=True))
                assert made.is_whole(), bytes(made.received[:300])
                assert made.tokens() == sizes.tokens
                tokens += made.tokens()
                streams += 1
                memory.append(router.rss_bytes())

        async with asyncio.TaskGroup() as clients:
            for seed in range(sizes.streams):
                clients.create_task(client(seed))
        took, cpu = time.monotonic() - began, router.cpu_s() - cpu_began

        await until(lambda: is_idle(router), "no load")
        selections, completions = await ledger(router)
        counters = await engines.counters()
        middle, end = memory[len(memory) // 2], router.rss_bytes()
        report(
            f"{sizes.streams} streams at a time, {sizes.policy}",
            {
                "streams": streams,
                "tokens": tokens,
                "tokens a second": f"{tokens / took:.0f}",
                "router CPU": f"{cpu / took:.0%} of a core, {cpu / max(tokens, 1) * 1e6:.1f} us a token",
                "router memory": f"{middle / 1e6:.1f} MB half-way, {end / 1e6:.1f} MB at the end",
                "most at once": f"{counters['peak_running']} (sum of the engines' peaks)",
            },
        )
        assert selections == streams
        assert completions == {"success": streams}
        assert (counters["completed"], counters["aborted"], counters["failed"]) == (streams, 0, 0)


@pytest.mark.parametrize("sizes", [SMALL, FULL])
async def test_clients_that_hang_up_at_random_moments_leave_nothing_behind(sizes):
    knobs = {"ttft_s": 0.05, "token_interval_s": 0.02, "tokens": 8}
    async with (
        engine_process(sizes.workers, **knobs) as engines,
        router_process(engines.urls, sizes.policy) as router,
    ):
        chance = random.Random(10_000)
        whole = hung_up = hung_up_in_answer = 0
        memory: list[int] = []
        began, cpu_began = time.monotonic(), router.cpu_s()

        async def visit(leaves: bool) -> None:
            """Ask for a short answer and read it, or for an endless one and leave."""
            nonlocal whole, hung_up, hung_up_in_answer
            if leaves:
                # Endless, so that the engine cannot have finished before it sees its client go.
                endless = {"max_tokens": 3000, "ignore_eos": True, "stream": chance.random() < 0.8}
                made = await call(router.url, chat_request(chance, **endless), hang_up_after_s=chance.random() * 0.2)
                assert made.has_hung_up
                hung_up += 1
                hung_up_in_answer += bool(made.received)
            else:
                made = await call(router.url, chat_request(chance, stream=True))
                assert made.is_whole(), bytes(made.received[:300])
                assert made.tokens() == 8
                whole += 1

        numbers = iter(range(sizes.requests))

        async def client() -> None:
            for number in numbers:
                await visit(number % 3 == 0)
                memory.append(router.rss_bytes())

        async with asyncio.TaskGroup() as clients:
            for _ in range(sizes.at_once):
                clients.create_task(client())
        took, cpu = time.monotonic() - began, router.cpu_s() - cpu_began

        await until(lambda: is_idle(router), "no load")

        async def engines_are_idle() -> bool:
            return (await engines.counters())["running"] == 0

        await until(engines_are_idle, "idle engines")
        selections, completions = await ledger(router)
        counters = await engines.counters()
        middle, end = memory[len(memory) // 2], router.rss_bytes()
        unseen = hung_up - completions["cancelled"]
        report(
            f"{sizes.requests} requests, {sizes.at_once} at a time, every third client hangs up, {sizes.policy}",
            {
                "answers read to the end": whole,
                "clients that hung up": f"{hung_up}, {hung_up_in_answer} of them in mid-answer",
                "selections": selections,
                "completions": dict(completions),
                "hung up before they were routed": unseen,
                "engines": {name: counters[name] for name in ("accepted", "completed", "aborted", "failed")},
                "cancelled before a worker read them": completions["cancelled"] - counters["aborted"],
                "load left": sum(await loads(router)),
                "router CPU": f"{cpu / took:.0%} of a core, {cpu / sizes.requests * 1e6:.0f} us a request",
                "router memory": f"{middle / 1e6:.1f} MB half-way, {end / 1e6:.1f} MB at the end",
            },
        )
        assert sum(completions.values()) == selections
        assert completions["success"] == whole == counters["completed"]
        assert set(completions) <= {"success", "cancelled"}
        assert counters["failed"] == 0
        # Who had seen an answer begin was surely being served; who had not may have gone before it reached an engine.
        assert hung_up_in_answer <= counters["aborted"] <= completions["cancelled"] <= hung_up
        assert end <= middle * (1 + sizes.rss_growth)
