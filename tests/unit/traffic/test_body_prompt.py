"""What a request's body says of itself, in every dialect, and that no body can do harm."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_core.contract.prefix import BLOCK_TOKENS, prefix_tokens
from router_core.contract.request import RoutingRequest
from router_core.relay.request_head import RequestHead
from router_core.traffic.body_prompt import BodyPrompt

ROLE, CONTENT = "\x1e", "\x1f"
ID_LISTS = st.lists(st.integers(0, 300), min_size=1) | st.lists(st.lists(st.integers(0, 300), min_size=1), min_size=2)


def prompt_of(body, *lines):
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    head = b"".join(line + b"\r\n" for line in (b"POST /v1/x HTTP/1.1", b"Host: h", *lines))
    return BodyPrompt(RequestHead(head + b"\r\n"), raw)


TEXTS = {
    "chat": (
        {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]},
        f"{ROLE}system{CONTENT}Be brief.{ROLE}user{CONTENT}Hi",
    ),
    "chat in parts": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ]
        },
        f"{ROLE}user{CONTENT}a{CONTENT}b",
    ),
    "chat with an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]},
        f'{ROLE}user{CONTENT}{{"type":"image_url","image_url":{{"url":"u"}}}}',
    ),
    "chat with a tool call": (
        {
            "messages": [
                {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                {"role": "tool", "content": "4"},
            ]
        },
        f'{ROLE}assistant{CONTENT}{{"id":"1"}}{ROLE}tool{CONTENT}4',
    ),
    "chat without messages": ({"messages": []}, ""),
    "chat of strangers": ({"messages": ["a", 1, None, [], {"content": "x"}, {}]}, f"{ROLE}{CONTENT}x{ROLE}{CONTENT}"),
    "completion": ({"prompt": "Once"}, "Once"),
    "completions": ({"prompt": ["Once", "Twice"]}, f"Once{CONTENT}Twice"),
    "completion of ids": ({"prompt": [1, 2, 3]}, "1 2 3"),
    "completions of ids": ({"prompt": [[1, 2], [3]]}, f"1 2{CONTENT}3"),
    "completion of nothing": ({"prompt": []}, ""),
    "responses": ({"input": "Hi"}, "Hi"),
    "responses with instructions": (
        {"instructions": "Be brief.", "input": "Hi"},
        f"{ROLE}system{CONTENT}Be brief.{ROLE}user{CONTENT}Hi",
    ),
    "responses of items": (
        {
            "instructions": "Be brief.",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"type": "function_call_output", "call_id": "1", "output": "4"},
            ],
        },
        f"{ROLE}system{CONTENT}Be brief.{ROLE}user{CONTENT}Hi{ROLE}function_call_output{CONTENT}4",
    ),
    "messages": (
        {"system": "Be brief.", "messages": [{"role": "user", "content": "Hi"}]},
        f"{ROLE}system{CONTENT}Be brief.{ROLE}user{CONTENT}Hi",
    ),
    "messages with system parts": (
        {"system": [{"type": "text", "text": "Be"}, {"type": "text", "text": "brief."}], "messages": []},
        f"{ROLE}system{CONTENT}Be{CONTENT}brief.",
    ),
    "generate": ({"text": "Once"}, "Once"),
    "generate of ids": ({"input_ids": [1, 2]}, "1 2"),
    "embeddings": ({"input": ["a", "b"]}, f"a{CONTENT}b"),
    "rerank": ({"query": "q", "documents": ["a", {"text": "b"}]}, f"q{CONTENT}a{CONTENT}b"),
    "score": ({"text_1": "q", "text_2": ["a", "b"]}, f"q{CONTENT}a{CONTENT}b"),
    "nothing known": ({"whatever": 1}, ""),
    "an empty object": ({}, ""),
    "a number for a prompt": ({"prompt": 1.5}, "1.5"),
    "null for a prompt": ({"prompt": None}, ""),
    "an object for messages": ({"messages": {"role": "user"}}, ""),
}


@pytest.mark.parametrize(("body", "text"), TEXTS.values(), ids=TEXTS)
def test_the_text_is_the_whole_prompt_in_every_dialect(body, text):
    assert prompt_of(body).text == text


def test_two_conversations_share_the_text_of_their_common_start():
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    first = prompt_of({"messages": turns}).text
    assert prompt_of({"messages": [*turns, {"role": "user", "content": "More"}]}).text.startswith(first)


MALFORMED = {
    "nothing": b"",
    "broken": b'{"model": "m", "prompt": "x"',
    "not UTF-8": b'{"model": "\xff", "prompt": "x"}',
    "lone surrogate": b'{"prompt": "\\ud800"}',
    "NaN": b'{"prompt": NaN}',
    "an array": b'["a"]',
    "a string": b'"a"',
    "a number": b"1",
    "null": b"null",
    "form data": b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n',
    "two objects": b'{"prompt": "a"}{"prompt": "b"}',
    "a BOM": b'\xef\xbb\xbf{"prompt": "a"}',
    "nested too deep to parse": b'{"prompt":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_is_no_json_object_says_nothing(body):
    prompt = prompt_of(body)
    assert (prompt.text, prompt.model, prompt.user, prompt.session, prompt.lora, prompt.cache_salt) == ("", *[None] * 5)
    assert prompt.fields == {}
    assert prompt.input_tokens == len(body) // 4


def test_of_a_key_that_comes_twice_the_last_counts_as_it_does_for_engines():
    prompt = prompt_of(b'{"model": "a", "prompt": "x", "model": "b", "prompt": "y"}')
    assert (prompt.model, prompt.text) == ("b", "y")


FRAMES = [
    b'{"prompt":%b}',
    b'{"messages":[{"role":"user","content":%b}]}',
    b'{"messages":[{"role":"user","content":"a","tool_calls":%b}]}',
    b'{"system":%b,"messages":[]}',
    b'{"input":%b}',
    b'{"instructions":%b,"input":"a"}',
]


@pytest.mark.parametrize(
    ("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"text":', b"}]"), (b"[1,", b"]")]
)
@pytest.mark.parametrize("frame", FRAMES)
def test_a_nested_prompt_has_a_text(opening, closing, frame):
    assert isinstance(prompt_of(frame % (opening * 50 + b"1" + closing * 50)).text, str)


# orjson reads 1024 levels, writes 254, and Python recurses over fewer than 1000.
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b"[1,", b"]")])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_prompt_nested_deeper_than_python_recurses_does_no_harm(opening, closing, frame):
    prompt = prompt_of(frame % (opening * 1010 + b"1" + closing * 1010))
    assert isinstance(prompt.text, str)


FACTS = {
    "model": ({"model": "m"}, "model", "m"),
    "no model": ({"model": 1}, "model", None),
    "user": ({"user": "ada"}, "user", "ada"),
    "Anthropic's user": ({"metadata": {"user_id": "ada"}}, "user", "ada"),
    "metadata of another kind": ({"metadata": "ada"}, "user", None),
    "session_id": ({"session_id": "s"}, "session", "s"),
    "SGLang's session": ({"session_params": {"session_id": "s"}}, "session", "s"),
    "OpenAI's cache key": ({"prompt_cache_key": "s"}, "session", "s"),
    "session of another kind": ({"session_params": ["s"], "session_id": 7}, "session", None),
    "lora_path": ({"lora_path": "l"}, "lora", "l"),
    "cache_salt": ({"cache_salt": "c"}, "cache_salt", "c"),
    "extra_key": ({"extra_key": "c"}, "cache_salt", "c"),
}


@pytest.mark.parametrize(("body", "name", "fact"), FACTS.values(), ids=FACTS)
def test_a_fact_is_found_under_each_of_its_names(body, name, fact):
    assert getattr(prompt_of(body), name) == fact


def test_the_session_header_comes_before_the_body():
    assert prompt_of({"session_id": "body"}, b"X-Session-Id: h\xe9ader").session == "h\xe9ader"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAMES = st.sampled_from(
    ["messages", "system", "input", "instructions", "prompt", "text", "input_ids", "query", "documents", "model"]
) | st.sampled_from(["user", "metadata", "session_id", "session_params", "role", "content", "tool_calls", "type"])


@given(st.dictionaries(NAMES, JSON | st.lists(st.dictionaries(NAMES, JSON, max_size=4), max_size=3), max_size=6))
def test_any_json_object_has_a_text_and_facts(fields):
    prompt = prompt_of(fields)
    assert isinstance(prompt.text, str)
    for fact in (prompt.model, prompt.user, prompt.session, prompt.lora, prompt.cache_salt):
        assert fact is None or isinstance(fact, str)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_text(body):
    assert isinstance(prompt_of(body).text, str)


@pytest.mark.parametrize(
    "body",
    [
        orjson.dumps({"prompt": "Why is the sky blue? " * 1000}),
        orjson.dumps({"prompt": "Почему небо синее? " * 1000}),
        json.dumps({"prompt": "Почему небо синее? " * 1000}).encode(),
        json.dumps({"prompt": '\n\t"' * 7000}).encode(),
        json.dumps({"prompt": list(range(5000))}).encode(),
        json.dumps({"messages": [{"role": "user", "content": "hi" * 9000}], "tools": ["x" * 60_000]}).encode(),
    ],
    ids=["ascii", "utf-8", "escaped letters", "escaped signs", "token ids", "tools"],
)
def test_tokens_are_counted_as_the_prefix_counts_them(body):
    request = RoutingRequest("r", prompt_of(body), needs=frozenset({"prefix"}))
    shared = prefix_tokens(len(request.prefix))
    assert shared <= request.input_tokens < shared + BLOCK_TOKENS
    assert request.next_attempt().input_tokens == request.input_tokens


def test_without_a_need_for_the_text_tokens_are_counted_by_the_body():
    body = json.dumps({"prompt": "Почему небо синее? " * 1000}).encode()
    prompt = prompt_of(body)
    assert RoutingRequest("r", prompt).input_tokens == len(body) // 4
    assert prompt._fields is None


def test_the_body_is_not_parsed_for_its_length():
    prompt = prompt_of(b"{" * 4000)
    assert prompt.input_tokens == 1000
    assert prompt._fields is None


@given(st.lists(ID_LISTS, min_size=2, max_size=2, unique_by=str))
def test_unlike_lists_of_token_ids_never_read_alike(prompts):
    one, two = (prompt_of({"prompt": each}).text for each in prompts)
    assert one != two
