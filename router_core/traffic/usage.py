"""Token figures, read off the end of an answer as it passes. Engines put them last, streamed or not."""

from __future__ import annotations

import re
from typing import NamedTuple

# OpenAI's, Anthropic's and SGLang's names. A quote inside generated text is escaped, so text cannot pose as a key.
_FIGURE = re.compile(
    rb'"(prompt_tokens|input_tokens|completion_tokens|output_tokens|cached_tokens|cache_read_input_tokens)"\s*:\s*(\d+)'
)
_WINDOW_BYTES = 8192


class Usage(NamedTuple):
    """What an answer reports; None where it does not."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


_NOTHING = Usage()


def read_usage(tail: bytes) -> Usage:
    """Return the token figures at the end of an answer's body, framing included."""
    # Looking for the key first is what makes this cheap: most reads of a stream hold none.
    start = tail.rfind(b'"usage"', -_WINDOW_BYTES)
    if start < 0:
        start = tail.rfind(b'"meta_info"', -_WINDOW_BYTES)
        if start < 0:
            return _NOTHING
    found = dict(_FIGURE.findall(tail, start))
    return Usage(
        _first(found, b"prompt_tokens", b"input_tokens"),
        _first(found, b"cached_tokens", b"cache_read_input_tokens"),
        _first(found, b"completion_tokens", b"output_tokens"),
    )


def _first(found: dict[bytes, bytes], *names: bytes) -> int | None:
    for name in names:
        if name in found:
            return int(found[name])
    return None
