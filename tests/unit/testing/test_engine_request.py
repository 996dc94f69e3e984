from __future__ import annotations

import pytest

from router_core.testing.engine_request import BadRequestError, answer_tokens, expected_text, read_ask, read_prompts


def test_the_answer_is_fixed_by_the_prompt_and_longer_ones_continue_it():
    assert answer_tokens("a b", 40)[:10] == answer_tokens("a b", 10)
    assert answer_tokens("a b", 40) != answer_tokens("a c", 40)
    assert "".join(answer_tokens("one two", 5)).startswith("You said: one two [")


@pytest.mark.parametrize(
    ("path", "body", "prompts"),
    [
        ("/v1/completions", {"prompt": ["a", "b"]}, ("a", "b")),
        ("/v1/completions", {"prompt": [1, 2]}, ("1 2",)),
        ("/v1/completions", {"prompt": [[1, 2], [3]]}, ("1 2", "3")),
        ("/generate", {"input_ids": [5]}, ("5",)),
        ("/v1/responses", {"instructions": "be brief", "input": "hi"}, ("<|system|>\nbe brief\n<|user|>\nhi\n",)),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]},
            ("<|user|>\na\n",),
        ),
    ],
)
def test_every_api_yields_its_prompts(path, body, prompts):
    assert read_prompts(path, body) == prompts


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {}),
        ("/v1/chat/completions", {"messages": []}),
        ("/v1/chat/completions", {"messages": ["hello"]}),
        ("/v1/completions", {"prompt": "x", "max_tokens": "many"}),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}),
    ],
)
def test_what_cannot_be_answered_is_refused(path, body):
    with pytest.raises(BadRequestError):
        read_ask(path, body)


def test_expected_text_guesses_the_api_from_the_body():
    assert expected_text({"prompt": "x"}) == expected_text({"prompt": "x"}, path="/v1/completions")
    assert expected_text({"input": "x"}) == expected_text({"input": "x"}, path="/v1/responses")
    assert expected_text({"prompt": "x"}, tokens=3) == "".join(answer_tokens("x", 3))


def test_a_short_question_is_echoed_without_its_role():
    body = {"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why?"}]}
    assert expected_text(body).startswith("You said: why? [")
