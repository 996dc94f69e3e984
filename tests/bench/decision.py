"""What a policy costs for one request: microseconds of CPU from the prompt's text to the decision, and afterwards.

    .venv/bin/python tests/bench/decision.py --policy predicted_latency cache_aware --workers 16 64

Prompts share their first half with an earlier one. The router's own calls of the hooks are included, JSON is not.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections import deque

from router_core.plugin_host.discovery import load_policy
from router_core.plugin_host.options import build_policy
from router_core.testing.builders import make_request
from router_core.testing.harness import Attempt, PolicyHarness

PROMPT_TOKENS = (100, 1_000, 10_000, 100_000)
IN_FLIGHT_EACH = 8


def main() -> None:
    """Print a table for each policy and number of workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--policy", nargs="+", default=["predicted_latency"])
    parser.add_argument("--workers", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--rounds", type=int, default=300)
    arguments = parser.parse_args()
    for name in arguments.policy:
        for workers in arguments.workers:
            print(f"\n{name}, {workers} workers, microseconds for one request (median)")
            print(f"{'tokens':>8}{'decision':>10}{'first token, end':>18}")
            for tokens in PROMPT_TOKENS:
                decision, rest = measure(name, workers, tokens, arguments.rounds)
                print(f"{tokens:>8}{decision:>10.1f}{rest:>18.1f}")


def measure(name: str, workers: int, tokens: int, rounds: int) -> tuple[float, float]:
    """Return the median CPU microseconds of a selection, and of all hooks after it."""
    rng = random.Random(1)
    policy = build_policy(load_policy(name), {}, where=name)
    stems = [rng.randbytes(tokens).hex() for _ in range(4)]  # half of the prompt's four bytes a token
    in_flight: deque[Attempt] = deque()
    decisions, rests = [], []
    with PolicyHarness(policy, workers) as harness:
        gc.disable()
        for number in range(rounds + workers * IN_FLIGHT_EACH):
            text = stems[number % 4] + rng.randbytes(tokens).hex()
            request = make_request(text, id=f"request-{number}", needs=harness.policy.needs)
            harness.pool.advance(0.05)
            began = time.process_time_ns()
            attempt = harness.select(request)
            decisions.append(time.process_time_ns() - began)
            assert attempt is not None
            in_flight.append(attempt)
            if len(in_flight) > workers * IN_FLIGHT_EACH:
                oldest = in_flight.popleft()
                began = time.process_time_ns()
                oldest.first_token()
                oldest.complete(prompt_tokens=tokens, cached_tokens=tokens // 2, completion_tokens=100)
                rests.append(time.process_time_ns() - began)
        gc.enable()
        while in_flight:
            in_flight.popleft().complete()
    return sorted(decisions)[len(decisions) // 2] / 1000, sorted(rests)[len(rests) // 2] / 1000


if __name__ == "__main__":
    main()
