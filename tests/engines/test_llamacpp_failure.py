"""An engine that dies takes as little with it as can be."""

from __future__ import annotations

import contextlib

import pytest

from .processes import wait_until
from .router import RouterProcess

pytestmark = pytest.mark.engines


@pytest.fixture
def doomed_engines(start_engine):
    """Two engines of the test's own."""
    with start_engine() as first, start_engine() as second:
        yield first, second


@pytest.fixture
def start_router(doomed_engines, tmp_path):
    """Start a router that checks health that often and believes the first failure."""
    workers = [engine.url for engine in doomed_engines]

    def start(interval_s):
        settings = {"HEALTH__INTERVAL_S": str(interval_s), "HEALTH__FAILURE_THRESHOLD": "1"}
        return RouterProcess(workers, tmp_path / "router.log", policy="round_robin", settings=settings)

    return start


def ask(client, prompt):
    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": prompt}],
        extra_body={"grammar": 'root ::= "still here"'},
    )
    return answer.choices[0].message.content


def test_requests_go_on_elsewhere_once_a_killed_engine_is_noticed(connect, start_router, doomed_engines, write_prompt):
    killed, survivor = doomed_engines
    with start_router(interval_s=0.2) as router:
        client = connect(router)
        assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

        killed.kill()
        wait_until(lambda: router.healthy_workers() == 1, "one healthy worker")

        served_before = survivor.metric("tokens_predicted_total")
        assert [ask(client, write_prompt(5)) for _ in range(4)] == ["still here"] * 4
        assert survivor.metric("tokens_predicted_total") > served_before


def test_request_refused_by_a_killed_engine_is_tried_elsewhere(connect, start_router, doomed_engines, write_prompt):
    with start_router(interval_s=3600) as router:  # health checks will not notice
        client = connect(router)
        assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

        doomed_engines[0].kill()

        assert [ask(client, write_prompt(5)) for _ in range(4)] == ["still here"] * 4


def test_refused_request_makes_the_router_look_at_once(connect, start_router, doomed_engines, write_prompt):
    import openai

    with start_router(interval_s=3600) as router:
        client = connect(router)
        assert [ask(client, write_prompt(5)) for _ in range(2)] == ["still here"] * 2

        doomed_engines[0].kill()
        with contextlib.suppress(openai.APIError):
            ask(client, write_prompt(5))

        wait_until(lambda: router.healthy_workers() == 1, "one healthy worker")


def test_stream_of_a_killed_engine_ends_in_an_error(connect, start_router, doomed_engines, write_prompt):
    import openai

    with start_router(interval_s=3600) as router:
        stream = connect(router).chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": write_prompt(5)}],
            stream=True,
            max_tokens=7000,
            extra_body={"ignore_eos": True},
        )
        next(stream)

        next(engine for engine in doomed_engines if engine.running).kill()

        with pytest.raises(openai.APIError), stream:
            for _ in stream:
                pass
