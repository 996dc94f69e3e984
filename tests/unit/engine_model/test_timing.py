from __future__ import annotations

import pytest

from router_core.engine_model.presets import FAST, H100_8B, PRESETS
from router_core.engine_model.timing import EngineConstants


def test_a_short_prefill_takes_one_step_and_its_tokens():
    assert H100_8B.prefill_seconds(1000) == pytest.approx(6e-3 + 1000 * 55.6e-6 + 1000 * 500 * 1.05e-9)


def test_a_long_prefill_pays_the_floor_once_for_each_chunk():
    constants = EngineConstants(step_s=1.0, step_token_budget=100)
    assert constants.prefill_seconds(250) == 3.0


def test_cached_tokens_are_attended_to_but_not_computed():
    assert H100_8B.prefill_seconds(100, cached_tokens=10_000) == pytest.approx(
        H100_8B.prefill_seconds(100) + 100 * 10_000 * 1.05e-9
    )
    assert H100_8B.prefill_seconds(100, cached_tokens=10_000) < H100_8B.prefill_seconds(10_100) / 20


def test_a_fully_cached_prompt_still_takes_a_step():
    assert FAST.prefill_seconds(0, cached_tokens=500) == FAST.step_s


def test_a_decode_step_grows_with_sequences_and_context():
    assert H100_8B.decode_seconds(1, 100, 200_000) == pytest.approx(6e-3 + 100 * 20e-6 + 200_000 * 56e-9)
    assert FAST.decode_seconds(1, 100) == FAST.step_s


@pytest.mark.parametrize("name", ["step_token_budget", "max_running"])
def test_a_step_without_room_is_refused(name):
    with pytest.raises(ValueError, match=name):
        EngineConstants(step_s=1.0, **{name: 0})


def test_presets_are_known_by_name():
    assert PRESETS["fast"] is FAST
    assert PRESETS["h100_8b"] is H100_8B
