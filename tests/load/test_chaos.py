"""Six engines that die, freeze, reset, hold, drip and refuse at random, and clients that leave; nothing may be lost.

Every request ends in the right answer, byte for byte, or in a clear error; afterwards no load, no connection and no
memory is left over.

    CHAOS_SECONDS=300 python -m pytest -m load tests/load/test_chaos.py -q -s
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from router_core.testing.engine_request import expected_text

from .children import Router, router_process
from .faulty_engine import FaultyEngine
from .test_load import is_idle, ledger, report, until
from .traffic import Call, call

_PATH = "/v1/chat/completions"
_CLEAR_STATUSES = {408, 429, 500, 502, 503, 504}
_SETTINGS = {
    "HEALTH__INTERVAL_S": "1",
    "HEALTH__TIMEOUT_S": "1",
    "HEALTH__FAILURE_THRESHOLD": "2",
    "LIMITS__CONNECT_TIMEOUT_S": "1",
    "LIMITS__FIRST_BYTE_TIMEOUT_S": "3",
    "LIMITS__STALL_TIMEOUT_S": "3",
    "LIMITS__REQUEST_TIMEOUT_S": "20",
    "BREAKER__OPEN_S": "2",
    "RETRIES__BUDGET_SHARE": "1",
}


class Sizes(NamedTuple):
    """How much.

    Attributes:
        seconds: How long there are faults.
        clients: Clients at a time.
        engines: Engines.
        seed: Same seed, same faults at the same times.
    """

    seconds: float = float(os.environ.get("CHAOS_SECONDS", "120"))
    clients: int = 200
    engines: int = 6
    seed: int = int(os.environ.get("CHAOS_SEED", "1"))


FULL = pytest.param(Sizes(), id="full", marks=[pytest.mark.load, pytest.mark.async_timeout(3600)])
SMALL = pytest.param(Sizes(seconds=6, clients=30, engines=3), id="small")


@pytest.mark.parametrize("sizes", [SMALL, FULL])
async def test_whatever_fails_each_request_ends_rightly_or_with_a_clear_error(sizes):
    arguments = ("--tokens", "12", "--ttft", "0.02", "--token-interval", "0.01")
    endings: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        engines = [await stack.enter_async_context(FaultyEngine(*arguments)) for _ in range(sizes.engines)]
        router = await stack.enter_async_context(
            router_process([engine.url for engine in engines], "power_of_two", _SETTINGS)
        )
        await _visit(router, random.Random(0))  # so that what is made once is there before memory is measured
        descriptors, memory = _descriptors(router), router.rss_bytes()
        until_s = time.monotonic() + sizes.seconds

        async def client(seed: int) -> None:
            chance = random.Random(seed)
            while time.monotonic() < until_s:
                ending = await _visit(router, chance)
                endings[ending] += 1
                if ending.startswith("with error"):
                    await asyncio.sleep(0.1)  # as a client does, so that not all visits fall into the outages

        async with asyncio.TaskGroup() as tasks:
            for number in range(sizes.clients):
                tasks.create_task(client(sizes.seed * 1000 + number))
            for number, engine in enumerate(engines):
                tasks.create_task(_trouble(engine, random.Random(sizes.seed * 7 + number), until_s, faults))

        await until(lambda: is_idle(router), "no load")
        selections, completions = await ledger(router)
        assert selections == sum(completions.values())
        await until(lambda: _has_recovered(router), "right answers again")
        for engine in engines:
            engine.close()
        await until(lambda: _at_most(_descriptors, router, descriptors + 2 * sizes.engines), "no descriptors left over")
        report(
            f"{sizes.seconds:g} s of trouble, {sizes.clients} clients, {sizes.engines} engines, seed {sizes.seed}",
            {
                "requests": sum(endings.values()),
                **{f"ended {name}": count for name, count in endings.most_common()},
                **{f"fault: {name}": count for name, count in faults.most_common()},
                "attempts": f"{selections}: {dict(completions)}",
                "router memory": f"{memory / 1e6:.1f} MB before, {router.rss_bytes() / 1e6:.1f} MB after",
            },
        )
        assert endings["right"] > 0
        assert not [name for name in endings if name.startswith("WRONG")], endings
        assert router.rss_bytes() < memory + 40e6


# --- clients ---


async def _visit(router: Router, chance: random.Random) -> str:
    """Ask once and return how it ended; `WRONG ...` is what must not happen."""
    words = " ".join(chance.choice(("alpha", "beta", "gamma", "delta")) for _ in range(chance.randrange(1, 80)))
    body: dict[str, Any] = {
        "model": "simulated-model",
        "messages": [{"role": "user", "content": words}],
        "max_tokens": 12,
    }
    if chance.random() < 0.6:
        body["stream"] = True
    data = json.dumps(body).encode()
    head = f"POST {_PATH} HTTP/1.1\r\nhost: r\r\ncontent-length: {len(data)}\r\nconnection: close\r\n\r\n"
    leaves_after = chance.random() * 0.3 if chance.random() < 0.15 else None
    made = await call(router.url, head.encode() + data, hang_up_after_s=leaves_after)
    return "left" if made.has_hung_up else _judge(made, body)


def _judge(made: Call, body: dict[str, Any]) -> str:
    received = bytes(made.received)
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return f"WRONG answer without a head: {received[:80]!r}"
    status = int(head[9:12])
    if status in _CLEAR_STATUSES:
        error = json.loads(rest)["error"]
        return f"with error {status} {error['code']}"
    if status != 200:
        return f"WRONG status {status}"
    expected = expected_text(body, path=_PATH)
    if not body.get("stream"):
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        if len(rest) < length:
            return "broken off visibly"
        text = json.loads(rest)["choices"][0]["message"]["content"]
        return "right" if text == expected else f"WRONG text {text!r}"
    text, error_code, is_done, is_whole = _read_stream(rest)
    if error_code is not None:
        return f"mid-stream with {error_code}" if is_whole and expected.startswith(text) else "WRONG error event"
    if is_done and is_whole:
        return "right" if text == expected else f"WRONG text {text!r}"
    return f"WRONG end of a stream: {rest[-80:]!r}"


def _read_stream(chunked: bytes) -> tuple[str, str | None, bool, bool]:
    """Return the text, the code of an error event, whether it is done, and whether its framing ended properly."""
    data = b""
    is_whole = False
    while chunked:
        size, _, chunked = chunked.partition(b"\r\n")
        if not size:
            break
        length = int(size, 16)
        if not length:
            is_whole = True
            break
        data += chunked[:length]
        chunked = chunked[length + 2 :]
    text, code, is_done = "", None, False
    for event in data.split(b"\n\n"):
        payload = event.partition(b"data: ")[2]
        if not payload:
            continue
        if payload == b"[DONE]":
            is_done = True
            continue
        try:
            document = json.loads(payload)
        except ValueError:
            continue  # what an engine had begun to say when it died
        if "error" in document:
            code = document["error"].get("code", "none")
        for choice in document.get("choices", ()):
            text += choice["delta"].get("content") or ""
    return text, code, is_done, is_whole


# --- faults ---


async def _trouble(engine: FaultyEngine, chance: random.Random, until_s: float, faults: Counter[str]) -> None:
    """Give an engine one fault after another, with health between them, until the time is over; then heal it."""
    kinds: dict[str, Callable[[FaultyEngine], Awaitable[None] | None]] = {
        "killed": FaultyEngine.kill,
        "frozen": FaultyEngine.freeze,
        "reset": FaultyEngine.reset,
        "closed": FaultyEngine.close,
        "held": FaultyEngine.hold,
        "dripped": FaultyEngine.drip,
        "refused": FaultyEngine.refuse,
    }
    while time.monotonic() < until_s:
        await asyncio.sleep(chance.uniform(0.1, 2))
        name = chance.choice(sorted(kinds))
        faults[name] += 1
        pending = kinds[name](engine)
        if pending is not None:
            await pending
        await asyncio.sleep(chance.uniform(0.1, 3))
        engine.heal()
        await engine.revive()
    engine.heal()
    await engine.revive()


# --- what is left over ---


async def _has_recovered(router: Router) -> bool:
    return await _visit(router, random.Random(0)) in ("right", "left")


async def _at_most(measure: Callable[[Router], int], router: Router, most: int) -> bool:
    return measure(router) <= most


def _descriptors(router: Router) -> int:
    """Return how many descriptors the router has open; 0 where /proc does not tell."""
    folder = Path(f"/proc/{router.pid}/fd")
    return len(list(folder.iterdir())) if folder.is_dir() else 0
