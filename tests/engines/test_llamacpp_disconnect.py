"""A client that goes away frees the engine.

Streamed answers only: this llama.cpp notices a lost client of a plain answer no sooner than it has computed it all.
"""

from __future__ import annotations

import pytest

from .processes import wait_until

pytestmark = pytest.mark.engines

LONG_ANSWER = {"max_tokens": 7000, "extra_body": {"ignore_eos": True}}
"""An answer of some seconds: long over before it ends is proof that it was cut short."""


def running(engines):
    return sum(engine.running for engine in engines)


def generated(engines):
    return sum(engine.metric("tokens_predicted_total") for engine in engines)


@pytest.fixture
def idle_engines(engines):
    for engine in engines:
        engine.wait_until_idle()
    return engines


def test_closed_stream_frees_the_engine_and_its_reservation(client, cache_aware_router, idle_engines, write_prompt):
    generated_before = generated(idle_engines)
    stream = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], stream=True, **LONG_ANSWER
    )
    chunks = [next(stream) for _ in range(5)]
    assert running(idle_engines) == 1
    assert cache_aware_router.in_flight() == 1

    stream.close()

    wait_until(lambda: running(idle_engines) == 0, "no request on any engine")
    wait_until(lambda: cache_aware_router.in_flight() == 0, "no reservation in the router")
    assert len(chunks) == 5
    assert generated(idle_engines) - generated_before < 7000


def test_one_closed_stream_leaves_the_others_running(client, idle_engines, write_prompt):
    question = [{"role": "user", "content": write_prompt(5)}]
    leaving = client.chat.completions.create(model="tiny", messages=question, stream=True, **LONG_ANSWER)
    staying = client.chat.completions.create(
        model="tiny", messages=question, stream=True, max_tokens=300, extra_body={"ignore_eos": True}
    )
    next(leaving)

    leaving.close()

    with staying:
        chunks = list(staying)
    assert chunks[-1].choices == [] or chunks[-1].choices[0].finish_reason == "length"
    wait_until(lambda: running(idle_engines) == 0, "no request on any engine")
