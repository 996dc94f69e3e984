"""Token figures, found in the last bytes of an answer whatever engine wrote it."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.traffic.usage import Usage, read_usage

NOTHING = Usage(None, None, None)

ANSWERS = {
    "chat completion": (
        b'{"id":"c","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":11,"total_tokens":14,'
        b'"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}',
        Usage(11, 8, 3),
    ),
    "chat completion with spaces": (
        b'{\n  "usage": {\n    "prompt_tokens" : 11,\n    "completion_tokens":\t3\n  }\n}\n',
        Usage(11, None, 3),
    ),
    "stream": (
        b'2a\r\ndata: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n\r\n'
        b'40\r\ndata: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n\r\n'
        b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
        Usage(5, None, 7),
    ),
    "stream with running figures": (
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":1}}\n\n'
        b'data: {"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
        Usage(5, None, 2),
    ),
    "responses": (
        b'{"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":4},"output_tokens":2,"total_tokens":11}}',
        Usage(9, 4, 2),
    ),
    "messages": (
        b'{"usage":{"input_tokens":9,"cache_read_input_tokens":4,"output_tokens":2}}',
        Usage(9, 4, 2),
    ),
    "generate": (
        b'{"text":"x","meta_info":{"id":"1","prompt_tokens":6,"completion_tokens":2,"cached_tokens":0}}',
        Usage(6, 0, 2),
    ),
    "embeddings": (b'{"data":[],"usage":{"prompt_tokens":6,"total_tokens":6}}', Usage(6, None, None)),
    "nothing": (b'{"ok":true}', NOTHING),
    "null": (b'{"usage":null}', NOTHING),
    "not JSON": (b"\xff\x00 plain", NOTHING),
    "empty": (b"", NOTHING),
}


@pytest.mark.parametrize(("answer", "usage"), ANSWERS.values(), ids=ANSWERS)
def test_the_figures_of_each_kind_of_answer_are_read(answer, usage):
    assert read_usage(answer) == usage


def test_figures_behind_a_long_text_are_read():
    text = orjson.dumps({"choices": [{"text": "x" * 1_000_000}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}})
    assert read_usage(text) == Usage(1, None, 2)
    assert read_usage(text[-1000:]) == Usage(1, None, 2)


@given(st.text(max_size=30))
def test_generated_text_cannot_pose_as_figures(text):
    posing = text + '"usage": {"prompt_tokens": 99, "completion_tokens": 99, "cached_tokens": 99}'
    assert read_usage(orjson.dumps({"choices": [{"text": posing}]})) == NOTHING


@given(st.binary(max_size=400))
def test_whatever_an_answer_holds_reading_it_does_not_fail(tail):
    read_usage(b'{"usage":{' + tail)


@pytest.mark.parametrize("digits", [20, 4000, 5000])
def test_a_figure_of_absurd_length_does_no_harm(digits):
    read_usage(b'{"usage":{"prompt_tokens":' + b"9" * digits + b"}}")
