"""The fixtures a policy's tests get for free: `fake_pool`, `make_worker`, `make_request`, `policy_harness`.

pytest loads this file before it starts measuring coverage, so nothing of ours is imported here at module level: every
line that runs on import would otherwise count as never run. The same holds for the two `__init__` files above it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from router_core.contract.request import RoutingRequest
    from router_core.contract.worker import Worker
    from router_core.testing.builders import FakePool
    from router_core.testing.harness import PolicyHarness


@pytest.fixture
def fake_pool() -> FakePool:
    """A pool context with virtual time, a seeded random source and recorded metrics."""
    from router_core.testing.builders import FakePool

    return FakePool()


@pytest.fixture
def make_worker() -> Callable[..., Worker]:
    """`make_worker("http://a", load=3)` builds one worker; see `router_core.testing.builders.make_worker`."""
    from router_core.testing.builders import make_worker

    return make_worker


@pytest.fixture
def make_request() -> Callable[..., RoutingRequest]:
    """`make_request("Hello", user="ada")` builds one request; see `router_core.testing.builders.make_request`."""
    from router_core.testing.builders import make_request

    return make_request


@pytest.fixture
def policy_harness() -> Iterator[Callable[..., PolicyHarness]]:
    """`policy_harness(policy, workers=4, seed=0)` runs a policy as the core would; stopped when the test ends."""
    from router_core.testing.harness import PolicyHarness

    started: list[PolicyHarness] = []

    def start(policy: object, workers: Sequence[Worker] | int = 4, *, seed: int = 0) -> PolicyHarness:
        harness = PolicyHarness(policy, workers, seed=seed)
        started.append(harness)
        return harness

    yield start
    for harness in reversed(started):
        harness.stop()
