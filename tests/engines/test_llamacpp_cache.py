"""What cache-aware routing is for, seen at a real prefix cache."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.engines

TEMPLATE_TOKENS = 16
"""No more than what the chat template itself says at the start of every prompt: cached everywhere, worth nothing."""


def ask(client, prompt):
    """Return the usage an engine reports for that prompt."""
    answer = client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": prompt}], max_tokens=1)
    return answer.usage


def test_repeated_prompts_find_their_cache_under_cache_aware(client, write_prompt):
    prompts = [write_prompt(1000) for _ in range(4)]
    first = [ask(client, prompt) for prompt in prompts]

    again = [ask(client, prompt) for prompt in prompts]

    for usage in first:
        assert usage.prompt_tokens_details.cached_tokens <= TEMPLATE_TOKENS
    for usage in again:
        assert usage.prompt_tokens_details.cached_tokens >= 0.99 * usage.prompt_tokens


def test_growing_conversation_stays_with_its_cache_under_cache_aware(client, write_prompt):
    conversation = write_prompt(1000)
    known = ask(client, conversation).prompt_tokens

    for _ in range(3):
        conversation += " " + write_prompt(100)
        usage = ask(client, conversation)
        assert usage.prompt_tokens_details.cached_tokens >= 0.9 * known
        known = usage.prompt_tokens


def test_repeated_prompt_misses_its_cache_under_round_robin(connect, round_robin_router, engines, write_prompt):
    client = connect(round_robin_router)
    prompt = write_prompt(1000)
    read_before = [engine.metric("prompt_tokens_total") for engine in engines]

    first, second = ask(client, prompt), ask(client, prompt)

    assert first.prompt_tokens_details.cached_tokens <= TEMPLATE_TOKENS
    assert second.prompt_tokens_details.cached_tokens <= TEMPLATE_TOKENS
    read = [engine.metric("prompt_tokens_total") for engine in engines]
    for now, before in zip(read, read_before, strict=True):
        assert now - before >= first.prompt_tokens - TEMPLATE_TOKENS
