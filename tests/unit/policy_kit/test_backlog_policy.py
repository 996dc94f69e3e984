"""A policy built on `BacklogPolicy` writes its choice and nothing else."""

from __future__ import annotations

from router_core.api import BacklogPolicy, PolicyConfig, hookimpl
from router_core.plugin_host.slips import find_slips
from router_core.testing.conformance import PolicyConformance, make_request


class ShortestWait(BacklogPolicy):
    """Take the worker whose pending prefill, with this prompt's, is least."""

    @hookimpl
    def select_single(self, workers, request):
        cached = self.backlog.match(workers, request)
        waits = [self.backlog.pending_tokens(each.url) - tokens for each, tokens in zip(workers, cached, strict=True)]
        worker = min(zip(waits, workers, strict=True), key=lambda pair: (pair[0], pair[1].last_reserved))[1]
        self.backlog.place(worker, request)
        return worker


class WithOptions(ShortestWait):
    """The same with an option."""

    class Config(BacklogPolicy.Config):
        margin: int = 0
        """Does nothing."""

    needs = BacklogPolicy.needs | {"header:x-tenant"}

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.margin = config.margin


class TestConformance(PolicyConformance):
    policy_class = ShortestWait
    memory_options = {"max_blocks": 100}


class TestConformanceWithOptionsOfItsOwn(PolicyConformance):
    policy_class = WithOptions
    memory_options = {"max_blocks": 100}


def test_a_policy_built_on_it_has_no_slips():
    assert find_slips(ShortestWait, kind="policy") == []
    assert find_slips(WithOptions, kind="policy") == []


def test_what_is_pending_counts_until_the_first_token(policy_harness):
    harness = policy_harness(ShortestWait(ShortestWait.Config()), 2)
    first, second = harness.select(make_request("a" * 40_000)), harness.select(make_request("b" * 4_000))
    assert first.worker is not second.worker
    assert harness.select(make_request("c" * 4_000)).worker is second.worker
    first.first_token()
    assert harness.select(make_request("d" * 4_000)).worker is first.worker


def test_its_options_are_those_of_the_index_and_the_authors_own():
    policy = WithOptions(WithOptions.Config(cache_tokens=5_000, margin=2))
    assert (policy.backlog.index.capacity_tokens("http://new"), policy.margin) == (5_000, 2)
    assert issubclass(WithOptions.Config, PolicyConfig)
