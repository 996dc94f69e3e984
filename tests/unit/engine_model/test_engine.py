"""The engine model: queueing, batching, chunked prefill, memory. Its time is arithmetic, so every test is exact."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_core.engine_model.engine import Engine
from router_core.engine_model.prefix_cache import PrefixCache
from router_core.engine_model.sequence import Sequence, Stage
from router_core.engine_model.timing import EngineConstants

UNIT = EngineConstants(step_s=1.0, prefill_token_s=0.01, step_token_budget=100, max_running=8)


def engine(constants=UNIT, *, capacity_blocks=1000, block_tokens=10):
    return Engine(constants, PrefixCache(capacity_blocks, block_tokens))


def drain(model, max_steps=None):
    """Run to the end and return when each sequence got its first and its last token, by owner."""
    now, first, last = 0.0, {}, {}
    while run := model.plan(max_steps):
        now += run.seconds
        finished = model.finish(run)
        first |= {sequence.owner: now for sequence in finished.first_tokens}
        last |= {sequence.owner: now for sequence in finished.completed}
    return first, last


def submit(model, owner, prompt_tokens, output_tokens, blocks=(), **options):
    sequence = Sequence(prompt_tokens, blocks, output_tokens, owner=owner, **options)
    model.submit(sequence)
    return sequence


def test_a_long_prompt_takes_several_steps_and_then_a_token_a_step():
    model = engine()
    submit(model, "a", 250, 3)
    assert drain(model) == ({"a": pytest.approx(5.5)}, {"a": pytest.approx(7.5)})


def test_prompts_share_a_step_as_far_as_its_budget_goes():
    model = engine()
    submit(model, "a", 60, 1)
    submit(model, "b", 60, 1)
    run = model.plan()
    assert [(sequence.owner, tokens) for sequence, tokens in run.chunks] == [("a", 60), ("b", 40)]
    assert run.seconds == pytest.approx(2.0)


def test_decoding_sequences_get_a_token_in_a_step_that_prefills():
    model = engine(replace(UNIT, decode_sequence_s=0.5))
    submit(model, "a", 10, 3)
    model.finish(model.plan())
    submit(model, "b", 100, 1)
    run = model.plan()
    assert run.seconds == pytest.approx(1.0 + 1.0 + 0.5)
    model.finish(run)
    assert model.generated_tokens == 3


def test_what_is_cached_is_not_computed_but_the_last_token_always_is():
    model = engine()
    submit(model, "a", 100, 1, tuple(range(10)))
    drain(model)
    again = submit(model, "b", 100, 1, tuple(range(10)))
    first, _ = drain(model)
    assert again.cached_tokens == 99
    assert first["b"] == pytest.approx(1.01)


def test_a_request_waits_until_prompt_and_output_fit_into_memory():
    model = engine(capacity_blocks=20)
    submit(model, "a", 100, 50, tuple(range(10)))
    waiting = submit(model, "b", 100, 50, tuple(range(100, 110)))
    run = model.plan()
    assert [sequence.owner for sequence, _ in run.chunks] == ["a"]
    assert waiting.stage is Stage.WAITING
    first, last = drain(model)
    assert first["b"] > last["a"]


def test_a_request_larger_than_the_memory_runs_alone_and_uncached():
    model = engine(capacity_blocks=5)
    submit(model, "a", 100, 2, tuple(range(10)))
    first, last = drain(model)
    assert set(first) == set(last) == {"a"}
    assert len(model.cache) == 0


def test_no_more_run_at_once_than_allowed():
    model = engine(replace(UNIT, max_running=2))
    for owner in "abc":
        submit(model, owner, 10, 5)
    model.plan()
    assert (model.running, len(model.waiting)) == (2, 1)


def test_a_received_sequence_needs_no_prefill():
    model = engine()
    sequence = submit(model, "a", 500, 2, is_received=True)
    assert drain(model) == ({"a": 1.0}, {"a": 2.0})
    assert sequence.cached_tokens == 499


@pytest.mark.parametrize("steps_before", [0, 1, 3])
def test_an_aborted_sequence_leaves_nothing_behind(steps_before):
    model = engine()
    gone = submit(model, "a", 150, 9, tuple(range(15)))
    submit(model, "b", 50, 4)
    for _ in range(steps_before):
        model.finish(model.plan(1))
    model.abort(gone)
    model.abort(gone)
    _, last = drain(model)
    assert set(last) == {"b"}
    assert (model.running, model.context_tokens, model.cache.pinned_tokens) == (0, 0, 0)


def test_a_run_is_cut_at_the_step_that_is_being_taken():
    model = engine(replace(UNIT, decode_context_token_s=0.01))
    submit(model, "a", 10, 50)
    model.finish(model.plan())
    run = model.plan()
    assert run.steps == 49
    for steps in (1, 2, 7, 49):
        assert model.steps_until(run, model.cut(run, steps).seconds) == steps
        assert model.steps_until(run, model.cut(run, steps).seconds - 1e-6) == steps
    assert model.steps_until(run, 0.0) == 1


_sequences = st.lists(st.tuples(st.integers(1, 300), st.integers(1, 30), st.integers(0, 3)), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(_sequences, st.integers(5, 60))
def test_many_steps_at_once_take_as_long_as_one_by_one(rows, capacity_blocks):
    constants = EngineConstants(
        step_s=0.01,
        prefill_token_s=1e-3,
        prefill_pair_s=1e-6,
        decode_context_token_s=1e-5,
        decode_sequence_s=1e-3,
        step_token_budget=64,
        max_running=5,
    )

    def filled():
        model = engine(constants, capacity_blocks=capacity_blocks)
        for owner, (prompt_tokens, output_tokens, family) in enumerate(rows):
            blocks = tuple(range(1000 * family, 1000 * family + prompt_tokens // 10))
            submit(model, owner, prompt_tokens, output_tokens, blocks)
        return model

    whole, single = filled(), filled()
    first, last = drain(whole)
    assert set(first) == set(last) == set(range(len(rows)))
    first_single, last_single = drain(single, 1)
    assert first == pytest.approx(first_single)
    assert last == pytest.approx(last_single)
    for model in (whole, single):
        assert model.generated_tokens == sum(row[1] for row in rows)
        assert (model.running, model.context_tokens, model.cache.pinned_tokens) == (0, 0, 0)
        assert len(model.cache) <= capacity_blocks
