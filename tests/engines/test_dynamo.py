"""The router before Dynamo's mocked vLLM engines, several workers with a prefix cache each that behaves like vLLM's."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from .dynamo import BLOCK_TOKENS, RECIPE, DynamoWorker
from .processes import wait_until
from .router import RouterProcess

pytestmark = pytest.mark.big_engines

WORKERS = 3
PROMPTS = 4
"""No multiple of `WORKERS`: a second round under `round_robin` must not meet the first one's workers by chance."""


@pytest.fixture(scope="module")
def start_workers(install, tiny_checkpoint, tmp_path_factory):
    """Start that many workers; whoever calls ends them by the stack it hands in."""
    python = install(RECIPE)

    def start(count, stack):
        logs = tmp_path_factory.mktemp("dynamo")
        workers = [DynamoWorker(python, tiny_checkpoint, logs / str(number)) for number in range(count)]
        return [stack.enter_context(worker) for worker in workers]

    return start


@pytest.fixture(scope="module")
def workers(start_workers):
    with ExitStack() as stack:
        yield start_workers(WORKERS, stack)


@pytest.fixture
def start_router(tmp_path):
    with ExitStack() as stack:

        def start(workers, policy, **settings):
            urls = [worker.url for worker in workers]
            log = tmp_path / f"{policy}.log"
            return stack.enter_context(RouterProcess(urls, log, policy=policy, settings=settings))

        yield start


def ask(client, prompt, **fields):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="tiny", messages=messages, **fields)


def cached_share(answers):
    usages = [answer.usage for answer in answers]
    return sum(usage.prompt_tokens_details.cached_tokens for usage in usages) / sum(
        usage.prompt_tokens for usage in usages
    )


def test_plain_and_streamed_chats_are_answered(workers, start_router, connect, write_prompt):
    client = connect(start_router(workers, "cache_aware"))

    plain = ask(client, write_prompt(50), max_tokens=8)
    with ask(client, write_prompt(50), max_tokens=8, stream=True, stream_options={"include_usage": True}) as stream:
        *chunks, last = list(stream)

    assert plain.choices[0].message.content
    assert plain.usage.completion_tokens == last.usage.completion_tokens == 8
    assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 8
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_repeated_prompts_find_their_cache_under_cache_aware_and_miss_it_under_round_robin(
    workers, start_router, connect, write_prompt
):
    shares = {}
    for policy in ("cache_aware", "round_robin"):
        client = connect(start_router(workers, policy))
        prompts = [write_prompt(1000) for _ in range(PROMPTS)]
        first = [ask(client, prompt, max_tokens=1) for prompt in prompts]
        again = [ask(client, prompt, max_tokens=1) for prompt in prompts]
        shares[policy] = cached_share(first), cached_share(again)

    print(f"\ncached share of prompt tokens, first and second round: {shares}")
    assert shares["cache_aware"][0] < 0.1
    assert shares["cache_aware"][1] > 0.9
    assert shares["round_robin"][1] < 0.1


def test_growing_conversation_recomputes_no_more_than_its_new_blocks(workers, start_router, connect, write_prompt):
    client = connect(start_router(workers, "cache_aware"))
    conversation = write_prompt(600)
    known = ask(client, conversation, max_tokens=1).usage.prompt_tokens

    for _ in range(3):
        conversation += " " + write_prompt(100)
        usage = ask(client, conversation, max_tokens=1).usage
        assert usage.prompt_tokens_details.cached_tokens >= known - 2 * BLOCK_TOKENS
        known = usage.prompt_tokens


def test_closed_stream_frees_the_worker_and_its_reservation(workers, start_router, connect, write_prompt):
    router = start_router(workers, "cache_aware")
    stream = ask(connect(router), write_prompt(50), max_tokens=7000, stream=True)
    next(stream)
    assert sum(worker.running for worker in workers) == 1
    assert router.in_flight() == 1

    stream.close()

    for worker in workers:
        worker.wait_until_idle()
    wait_until(lambda: router.in_flight() == 0, "no reservation in the router")


def test_client_that_gives_up_on_a_plain_answer_frees_the_worker(workers, start_router, connect, write_prompt):
    import openai

    router = start_router(workers, "round_robin")
    with pytest.raises(openai.APITimeoutError):
        ask(connect(router), write_prompt(50), max_tokens=7000, timeout=0.5)

    for worker in workers:
        worker.wait_until_idle()
    wait_until(lambda: router.in_flight() == 0, "no reservation in the router")
    assert router.figures("requests_total", status="cancelled")


def test_frontend_without_its_engine_is_healthy_and_its_requests_are_served_elsewhere(
    start_workers, start_router, connect, write_prompt
):
    with ExitStack() as stack:
        workers = start_workers(2, stack)
        router = start_router(workers, "round_robin")
        client = connect(router)

        workers[0].kill_engine()

        answers = [ask(client, write_prompt(20), max_tokens=2) for _ in range(6)]
        assert all(answer.usage.completion_tokens == 2 for answer in answers)
        assert router.healthy_workers() == 2
        assert set(router.figures("requests_total", status="success")) == {workers[1].url}
        assert set(router.figures("requests_total", status="backpressure")) == {workers[0].url}
        wait_until(lambda: router.in_flight() == 0, "no reservation in the router")
