"""The router before two instances of vLLM."""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack

import pytest

from .processes import wait_until
from .router import RouterProcess
from .vllm_cpu import BLOCK_TOKENS, RECIPE, VllmServer

pytestmark = pytest.mark.big_engines

LONG_ANSWER = {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
"""An answer that takes far longer than any test waits: over before it ends is proof that it was cut short."""


@pytest.fixture(scope="module")
def engines(install, tiny_checkpoint, tmp_path_factory):
    python, logs = install(RECIPE), tmp_path_factory.mktemp("vllm")
    starting = [VllmServer(python, tiny_checkpoint, logs / f"{number}.log") for number in range(2)]
    with ExitStack() as stack:
        yield [stack.enter_context(engine) for engine in starting]


@pytest.fixture(scope="module")
def start_router(engines, tmp_path_factory):
    with ExitStack() as stack:

        def start(policy, **more):
            log = tmp_path_factory.mktemp("router") / f"{policy}.log"
            return stack.enter_context(RouterProcess([engine.url for engine in engines], log, policy=policy, **more))

        yield start


@pytest.fixture(scope="module")
def router(start_router):
    return start_router("cache_aware")


@pytest.fixture
def client(connect, router):
    return connect(router)


def ask(client, prompt, **fields):
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model="tiny", messages=messages, **fields)


def running(engines):
    return sum(engine.running for engine in engines)


def test_both_are_healthy_and_their_model_is_listed_once(router, client):
    assert router.healthy_workers() == 2
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_plain_chat_is_answered(client, write_prompt):
    answer = ask(client, write_prompt(20), max_tokens=8, extra_body={"ignore_eos": True})

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 8


def test_streamed_chat_arrives_as_role_deltas_and_usage(client, write_prompt):
    with ask(
        client,
        write_prompt(20),
        max_tokens=8,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    ) as stream:
        first, *deltas, usage = list(stream)

    assert first.choices[0].delta.role == "assistant"
    assert deltas[-1].choices[0].finish_reason == "length"
    assert usage.choices == []
    assert usage.usage.completion_tokens == 8


def test_responses_and_messages_are_answered(router, client, write_prompt):
    response = client.responses.create(model="tiny", input=write_prompt(5), max_output_tokens=8)
    body = {"model": "tiny", "max_tokens": 8, "messages": [{"role": "user", "content": write_prompt(5)}]}
    request = urllib.request.Request(
        f"{router.url}/v1/messages", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        message = json.load(answer)

    assert response.usage.output_tokens <= 8
    assert message["type"] == "message"
    assert message["usage"]["output_tokens"] <= 8


def test_engine_knows_a_request_by_the_clients_id(client, write_prompt):
    raw = client.chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "user", "content": write_prompt(5)}],
        max_tokens=1,
        extra_headers={"x-request-id": "asked-by-a-test"},
    )

    assert raw.headers["x-request-id"] == "asked-by-a-test"
    assert raw.parse().id == "chatcmpl-asked-by-a-test"


def test_error_of_the_engine_arrives_as_it_said_it(client, write_prompt):
    import openai

    with pytest.raises(openai.BadRequestError, match="4096"):
        ask(client, write_prompt(4000), max_tokens=1)


@pytest.mark.parametrize(("policy", "hits"), [("cache_aware", True), ("round_robin", False)])
def test_repeated_prompts_find_their_cache(start_router, connect, write_prompt, policy, hits):
    client = connect(start_router(policy))
    prompts = [write_prompt(500) for _ in range(3)]  # an odd number: round robin over two swaps their workers
    for prompt in prompts:
        ask(client, prompt, max_tokens=1)

    usages = [ask(client, prompt, max_tokens=1).usage for prompt in prompts]

    for usage in usages:
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
        assert (cached >= usage.prompt_tokens - 2 * BLOCK_TOKENS) is hits
        assert hits or cached == 0


def test_closed_stream_frees_the_engine_and_its_reservation(router, client, engines, write_prompt):
    stream = ask(client, write_prompt(20), stream=True, **LONG_ANSWER)
    next(stream)
    wait_until(lambda: running(engines) == 1, "one request on an engine")
    assert router.in_flight() == 1

    stream.close()

    wait_until(lambda: running(engines) == 0, "no request on any engine")
    wait_until(lambda: router.in_flight() == 0, "no reservation in the router")


def test_client_that_gives_up_on_a_plain_answer_frees_the_engine(router, client, engines, write_prompt):
    import openai

    with pytest.raises(openai.APITimeoutError):
        ask(client, write_prompt(20), timeout=1, **LONG_ANSWER)

    wait_until(lambda: running(engines) == 0, "no request on any engine")
    wait_until(lambda: router.in_flight() == 0, "no reservation in the router")


def test_policy_that_wants_telemetry_goes_where_the_engine_is_idle(start_router, connect, engines, write_prompt):
    router = start_router("weighted", policy_options=["scorers=running=1"], settings={"TELEMETRY__INTERVAL_S": "0.1"})
    wait_until(lambda: len(router.figures("worker_telemetry_age_seconds")) == 2, "telemetry of both engines")
    busy, idle = engines
    with ask(connect(busy), write_prompt(20), stream=True, **LONG_ANSWER) as stream:  # behind the router's back
        next(stream)
        wait_until(lambda: busy.running == 1, "one request on an engine")

        def chosen():
            before = router.figures("requests_total")
            ask(connect(router), write_prompt(5), max_tokens=1)
            after = router.figures("requests_total")
            return {worker for worker, count in after.items() if count > before.get(worker, 0)}

        wait_until(lambda: chosen() == {idle.url}, "the idle engine chosen")  # as soon as it is known
        assert [chosen() for _ in range(4)] == [{idle.url}] * 4
    assert not any(router.figures("worker_telemetry_failures").values())
    wait_until(lambda: running(engines) == 0, "no request on any engine")
