"""Chat through the router with the official client, answered by a real engine."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = pytest.mark.engines

GRAMMAR = {"grammar": 'root ::= "the moon is full"'}
"""llama.cpp's own field: whatever the weights say, the answer is this sentence. No standard field can do it."""


def test_plain_chat_is_answered_by_an_engine(client, write_prompt):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], max_tokens=16
    )

    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert 1 <= answer.usage.completion_tokens <= 16


def test_fields_only_the_engine_knows_reach_it(client, write_prompt):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], extra_body=GRAMMAR
    )

    assert answer.choices[0].message.content == "the moon is full"


def test_fields_only_the_engine_knows_reach_the_client(client, write_prompt):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], max_tokens=4
    )

    assert answer.timings["predicted_n"] == answer.usage.completion_tokens


def test_streamed_chat_arrives_as_deltas_then_usage(client, write_prompt):
    with client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": write_prompt(5)}],
        stream=True,
        stream_options={"include_usage": True},
        extra_body=GRAMMAR,
    ) as stream:
        *deltas, usage = list(stream)

    assert deltas[0].choices[0].delta.role == "assistant"
    assert len(deltas) > 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in deltas) == "the moon is full"
    assert deltas[-1].choices[0].finish_reason == "stop"
    assert usage.choices == []
    assert usage.usage.total_tokens == usage.usage.prompt_tokens + usage.usage.completion_tokens


def test_stream_ends_with_done(client, write_prompt):
    with client.chat.completions.with_streaming_response.create(
        model="tiny", messages=[{"role": "user", "content": write_prompt(5)}], stream=True, max_tokens=4
    ) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]

    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_text_completion_is_answered_too(client, write_prompt):
    answer = client.completions.create(model="tiny", prompt=write_prompt(5), max_tokens=8)

    assert answer.choices[0].text
    assert answer.usage.completion_tokens <= 8


def test_responses_are_answered_too(client, write_prompt):
    answer = client.responses.create(model="tiny", input=write_prompt(5), max_output_tokens=8)

    assert answer.status == "completed"
    assert answer.output_text


def test_streamed_responses_arrive_as_events(client, write_prompt):
    with client.responses.create(model="tiny", input=write_prompt(5), max_output_tokens=8, stream=True) as stream:
        events = [event.type for event in stream]

    assert events[0] == "response.created"
    assert "response.output_text.delta" in events
    assert events[-1] == "response.completed"


def test_error_of_the_engine_arrives_as_it_said_it(client, write_prompt):
    import openai

    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="tiny", messages=[{"role": "user", "content": write_prompt(8000)}], max_tokens=1
        )

    assert refused.value.body["type"] == "exceed_context_size_error"
    assert refused.value.body["n_ctx"] == 8192


def test_models_of_the_engines_are_listed_once(client):
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_concurrent_chats_are_spread_and_none_is_mixed_up(connect, round_robin_router, engines, write_prompt):
    client = connect(round_robin_router)
    generated_before = [engine.metric("tokens_predicted_total") for engine in engines]

    def ask(number: int) -> str:
        answer = client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": prompts[number]}],
            extra_body={"grammar": f'root ::= "chat {number}"'},
        )
        return answer.choices[0].message.content

    prompts = [write_prompt(20) for _ in range(16)]
    with ThreadPoolExecutor(len(prompts)) as threads:
        answers = list(threads.map(ask, range(len(prompts))))

    assert answers == [f"chat {number}" for number in range(16)]
    generated = [engine.metric("tokens_predicted_total") for engine in engines]
    assert all(now > before for now, before in zip(generated, generated_before, strict=True))
