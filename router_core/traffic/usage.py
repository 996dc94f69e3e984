"""Token figures, read off the end of an answer as it passes. Engines put them last, streamed or not."""

from __future__ import annotations

import re
from typing import NamedTuple

_WINDOW_BYTES = 8192
# OpenAI's and Anthropic's, and SGLang's own. A quote inside generated text is escaped, so text cannot pose as a key.
_OBJECT, _NATIVE_OBJECT = b'"usage"', b'"meta_info"'
_FIGURE = re.compile(
    rb'"(prompt_tokens|input_tokens|completion_tokens|output_tokens|cached_tokens|cache_read_input_tokens)"'
    rb"\s*:\s*(\d{1,15})(?!\d)"
)


class Usage(NamedTuple):
    """What an answer reports; None where it does not."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


_NOTHING = Usage()


def read_usage(tail: bytes) -> Usage:
    """Return the token figures at the end of an answer's body, framing included."""
    # Looking for the object first is what makes this cheap: most answers' ends hold none.
    start = tail.rfind(_OBJECT, -_WINDOW_BYTES)
    if start < 0:
        start = tail.rfind(_NATIVE_OBJECT, -_WINDOW_BYTES)
        if start < 0:
            return _NOTHING
    found = dict(_FIGURE.findall(tail, start))
    prompt = found.get(b"prompt_tokens") or found.get(b"input_tokens")
    cached = found.get(b"cached_tokens") or found.get(b"cache_read_input_tokens")
    completion = found.get(b"completion_tokens") or found.get(b"output_tokens")
    return Usage(prompt and int(prompt), cached and int(cached), completion and int(completion))
