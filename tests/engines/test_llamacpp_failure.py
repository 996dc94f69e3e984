"""An engine that dies, freezes or comes back takes as little with it as can be."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from .processes import wait_until
from .router import RouterProcess

pytestmark = pytest.mark.engines

NOT_CHECKED = {"HEALTH__INTERVAL_S": "3600", "HEALTH__FAILURE_THRESHOLD": "1000"}
"""Health checks notice nothing: what happens is the requests' own doing."""

OFTEN_CHECKED = {"HEALTH__INTERVAL_S": "0.2", "HEALTH__TIMEOUT_S": "1", "HEALTH__FAILURE_THRESHOLD": "1"}

LONG_ANSWER = {"max_tokens": 3000, "extra_body": {"ignore_eos": True}}
"""An answer that is still being computed when the test harms its engine."""


@pytest.fixture
def doomed_engines(start_engine):
    """Two engines of the test's own."""
    with start_engine() as first, start_engine() as second:
        yield first, second


@pytest.fixture
def start_router(doomed_engines, tmp_path):
    with ExitStack() as stack:

        def start(settings):
            workers = [engine.url for engine in doomed_engines]
            log = tmp_path / "router.log"
            return stack.enter_context(RouterProcess(workers, log, policy="round_robin", settings=settings))

        yield start


def ask(client, prompt):
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": prompt}],
        extra_body={"grammar": 'root ::= "still here"'},
    )
    return answer.choices[0].message.content


def begin_stream(client, prompt):
    return client.chat.completions.with_streaming_response.create(
        model="tiny", messages=[{"role": "user", "content": prompt}], stream=True, **LONG_ANSWER
    )


def ask_long(client, prompt):
    return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": prompt}], **LONG_ANSWER)


def running_one(engines):
    """Return the engine that computes, and the other."""
    wait_until(lambda: any(engine.running for engine in engines), "a request on an engine")
    first, second = engines
    return (first, second) if first.running else (second, first)


def events_of(lines):
    return [line.removeprefix("data: ") for line in lines if line]


def outcomes(router, status):
    """Return how many attempts ended so, by worker."""
    return {worker: int(count) for worker, count in router.figures("requests_total", status=status).items()}


def assert_ended_with_error(events, code):
    *answer, error, done = events
    assert json.loads(error)["error"]["code"] == code
    assert done == "[DONE]"
    assert all(json.loads(chunk)["object"] == "chat.completion.chunk" for chunk in answer)


def settle(router):
    wait_until(lambda: router.in_flight() == 0, "no reservation in the router")


# --- killed ---


def test_stream_of_a_killed_engine_ends_in_an_error_event(connect, start_router, doomed_engines, write_prompt):
    import openai

    router = start_router(NOT_CHECKED)
    client = connect(router)
    with begin_stream(client, write_prompt(5)) as response:
        lines = response.iter_lines()
        first = next(lines)
        killed, _ = running_one(doomed_engines)

        killed.kill()

        assert_ended_with_error(events_of([first, *lines]), "upstream_connection_lost")
    settle(router)
    assert outcomes(router, "error") == {killed.url: 1}

    killed.start_again()
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], stream=True, **LONG_ANSWER
    )
    next(stream)
    running_one(doomed_engines)[0].kill()
    with pytest.raises(openai.APIError, match="lost"), stream:
        list(stream)


def test_answer_of_an_engine_killed_before_its_first_byte_comes_from_another(
    connect, start_router, doomed_engines, write_prompt
):
    router = start_router(NOT_CHECKED)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask_long, connect(router), write_prompt(5))
        killed, survivor = running_one(doomed_engines)

        killed.kill()

        answer = asked.result()
    assert answer.usage.completion_tokens == 3000
    settle(router)
    assert outcomes(router, "error") == {killed.url: 1}
    assert outcomes(router, "success") == {survivor.url: 1}
    assert sum(router.figures("retries_total").values()) == 1


def test_request_refused_by_a_killed_engine_is_tried_elsewhere(connect, start_router, doomed_engines, write_prompt):
    client = connect(start_router(NOT_CHECKED))
    assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

    doomed_engines[0].kill()

    assert [ask(client, write_prompt(5)) for _ in range(4)] == ["still here"] * 4


def test_refused_request_makes_the_router_look_at_once(connect, start_router, doomed_engines, write_prompt):
    router = start_router({"HEALTH__INTERVAL_S": "3600", "HEALTH__FAILURE_THRESHOLD": "1"})
    client = connect(router)
    assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

    doomed_engines[0].kill()
    assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

    wait_until(lambda: router.healthy_workers() == 1, "one healthy worker")


def test_restarted_engine_gets_requests_again(connect, start_router, doomed_engines, write_prompt):
    router = start_router(OFTEN_CHECKED)
    client = connect(router)
    restarted, survivor = doomed_engines
    assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

    restarted.kill()
    wait_until(lambda: router.healthy_workers() == 1, "one healthy worker")
    served_before = survivor.metric("tokens_predicted_total")
    assert [ask(client, write_prompt(5)) for _ in range(4)] == ["still here"] * 4
    assert survivor.metric("tokens_predicted_total") > served_before

    restarted.start_again()
    wait_until(lambda: router.healthy_workers() == 2, "both healthy")
    assert restarted.metric("tokens_predicted_total") == 0
    assert [ask(client, write_prompt(5)) for _ in range(4)] == ["still here"] * 4
    assert restarted.metric("tokens_predicted_total") > 0
    settle(router)


# --- frozen ---


def test_silent_engine_is_given_up_before_the_first_byte(connect, start_router, doomed_engines, write_prompt):
    router = start_router({**NOT_CHECKED, "LIMITS__FIRST_BYTE_TIMEOUT_S": "0.5"})
    client = connect(router)
    frozen, other = doomed_engines

    with frozen.frozen():
        assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2
        settle(router)
        assert set(outcomes(router, "timeout")) == {frozen.url}
        assert outcomes(router, "success") == {other.url: 2}

    frozen.wait_until_idle()


def test_stream_that_stalls_ends_in_an_error_event(connect, start_router, doomed_engines, write_prompt):
    router = start_router({**NOT_CHECKED, "LIMITS__STALL_TIMEOUT_S": "0.5"})
    with begin_stream(connect(router), write_prompt(5)) as response:
        lines = response.iter_lines()
        first = next(lines)
        frozen, _ = running_one(doomed_engines)

        with frozen.frozen():
            assert_ended_with_error(events_of([first, *lines]), "upstream_timeout")
            settle(router)
            assert outcomes(router, "timeout") == {frozen.url: 1}

    frozen.wait_until_idle()  # it computed for nobody and was told


def test_requests_of_an_engine_found_frozen_are_served_elsewhere(connect, start_router, doomed_engines, write_prompt):
    router = start_router(OFTEN_CHECKED)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(ask_long, connect(router), write_prompt(5))
        frozen, other = running_one(doomed_engines)

        with frozen.frozen():
            assert asked.result().usage.completion_tokens == 3000
            assert router.healthy_workers() == 1
            settle(router)
            assert outcomes(router, "success") == {other.url: 1}

    wait_until(lambda: router.healthy_workers() == 2, "both healthy")
    frozen.wait_until_idle()


def test_circuit_of_a_silent_engine_opens_and_closes_again(connect, start_router, doomed_engines, write_prompt):
    router = start_router(
        {
            **NOT_CHECKED,
            "LIMITS__FIRST_BYTE_TIMEOUT_S": "0.5",
            "BREAKER__FAILURE_THRESHOLD": "2",
            "BREAKER__OPEN_S": "1",
            "BREAKER__SUCCESS_THRESHOLD": "1",
        }
    )
    client = connect(router)
    frozen, _ = doomed_engines

    def circuit():
        return router.figures("worker_circuit_state")[frozen.url]

    with frozen.frozen():
        while circuit() == 0:
            assert ask(client, write_prompt(5)) == "still here"
        assert circuit() > 0
        assert outcomes(router, "timeout") == {frozen.url: 2}

    def closed():
        assert ask(client, write_prompt(5)) == "still here"
        return circuit() == 0

    wait_until(closed, "a closed circuit")
    settle(router)


def test_client_that_leaves_a_frozen_engine_leaves_nothing_behind(connect, start_router, doomed_engines, write_prompt):
    router = start_router(NOT_CHECKED)
    with begin_stream(connect(router), write_prompt(5)) as response:
        lines = response.iter_lines()  # kept: a stream that nobody reads is closed
        next(lines)
        frozen, _ = running_one(doomed_engines)
        with frozen.frozen():
            response.close()
            settle(router)
            assert outcomes(router, "cancelled") == {frozen.url: 1}

    frozen.wait_until_idle()
