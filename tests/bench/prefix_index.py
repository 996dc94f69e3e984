"""What the prefix index costs: microseconds of CPU for hashing, matching and following a prompt, bytes for a block.

    .venv/bin/python tests/bench/prefix_index.py --workers 16 64

Prompts share their first half with an earlier one; caches are full, so each placement also evicts.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
import tracemalloc

from router_core.api import PrefixIndex, Worker
from router_core.contract.prefix import BYTES_PER_TOKEN, chained_block_hashes

CAPACITY_TOKENS = 1_600_000
PROMPT_TOKENS = (100, 1_000, 10_000, 100_000)
NAMESPACE = ("model", None, None)
STEPS = ("hash", "match", "place", "release")


def main() -> None:
    """Print a table for each number of workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    for workers in arguments.workers:
        print(f"\n{workers} workers, microseconds for one prompt")
        print(f"{'tokens':>8}" + "".join(f"{step:>10}" for step in STEPS) + f"{'total':>10}")
        for tokens in PROMPT_TOKENS:
            took = measure(workers, tokens, arguments.rounds)
            figures = [took[step] for step in STEPS]
            print(f"{tokens:>8}" + "".join(f"{figure:>10.1f}" for figure in (*figures, sum(figures))))
    print(f"\nmemory: {bytes_per_block(16, 5_000):.0f} bytes for each block on each worker")


def measure(worker_count: int, tokens: int, rounds: int) -> dict[str, float]:
    """Return the mean CPU microseconds of each step."""
    rng = random.Random(1)
    workers = tuple(Worker(f"http://worker-{number}") for number in range(worker_count))
    index = PrefixIndex(CAPACITY_TOKENS)
    for worker in workers:
        while index.tokens(worker.url) + 100_000 <= CAPACITY_TOKENS:
            index.release(index.place(worker.url, chained_block_hashes(text(rng, 100_000))))
    stems = [text(rng, tokens // 2) for _ in range(4)]
    for stem in stems:
        for worker in workers:
            index.release(index.place(worker.url, chained_block_hashes(stem, NAMESPACE)))
    spent = dict.fromkeys(STEPS, 0)
    gc.disable()
    for number in range(rounds):
        prompt = stems[number % 4] + text(rng, tokens - tokens // 2)
        began = time.process_time_ns()
        prefix = chained_block_hashes(prompt, NAMESPACE)
        hashed = time.process_time_ns()
        index.match(prefix, workers)
        matched = time.process_time_ns()
        placement = index.place(workers[number % worker_count].url, prefix)
        placed = time.process_time_ns()
        index.release(placement)
        released = time.process_time_ns()
        moments = (began, hashed, matched, placed, released)
        for step, start, end in zip(STEPS, moments, moments[1:], strict=False):
            spent[step] += end - start
    gc.enable()
    return {step: nanoseconds / rounds / 1000 for step, nanoseconds in spent.items()}


def bytes_per_block(worker_count: int, blocks: int) -> float:
    """Return what a block costs that no other worker has, in prompts of 20 blocks."""
    rng = random.Random(1)
    index = PrefixIndex(2**40)
    tracemalloc.start()
    for _ in range(blocks // 20):
        for number in range(worker_count):
            index.release(index.place(f"http://worker-{number}", tuple(rng.getrandbits(64) for _ in range(20))))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return used / len(index)


def text(rng: random.Random, tokens: int) -> str:
    """Return text of about so many tokens."""
    return rng.randbytes(tokens * BYTES_PER_TOKEN // 2).hex()


if __name__ == "__main__":
    main()
