"""What of a decode answer only the prefill engine knows: what the prompt cost, and its log probabilities."""

from __future__ import annotations

from typing import Any

import orjson

from router_core.traffic.pd.sse import map_data

# OpenAI's names, those of its Responses API, Anthropic's.
_OF_THE_PROMPT = (
    "prompt_tokens",
    "prompt_tokens_details",
    "input_tokens",
    "input_tokens_details",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class UsageMerge:
    """Takes the prompt's part of `usage`, and `prompt_logprobs`, from the prefill leg."""

    def __init__(self, *, is_stream: bool) -> None:
        self.is_stream = is_stream
        self._first: Any = None  # an engine's JSON

    def whole(self, prefill: bytes, decode: bytes) -> bytes:
        """Return a whole answer, merged."""
        first, last = orjson.loads(prefill), orjson.loads(decode)
        if isinstance(first, dict) and isinstance(last, dict):
            _merge_usage(first, last)
            _merge_logprobs(first, last)
            pairs = zip(_choices(first), _choices(last), strict=False)
            for ahead, choice in pairs:
                _merge_logprobs(ahead, choice)
        return orjson.dumps(last)

    def events(self, prefill: bytes, events: bytes) -> bytes:
        """Return events, each that tells usage merged."""
        if self._first is None:
            self._first = orjson.loads(prefill)
        return map_data(events, self._merge_event)

    def _merge_event(self, data: bytes) -> bytes | None:
        if b'"usage"' not in data:
            return None
        event = orjson.loads(data)
        is_told = isinstance(event, dict) and isinstance(event.get("usage"), dict)
        if not is_told or not isinstance(self._first, dict):
            return None
        _merge_usage(self._first, event)
        return orjson.dumps(event)


def _merge_usage(first: dict[str, Any], last: dict[str, Any]) -> None:
    usage, prompt = last.get("usage"), first.get("usage")
    if not isinstance(usage, dict) or not isinstance(prompt, dict):
        return
    usage.update({name: prompt[name] for name in _OF_THE_PROMPT if prompt.get(name) is not None})
    if "total_tokens" in usage:
        parts = [
            usage.get("prompt_tokens", usage.get("input_tokens")),
            usage.get("completion_tokens", usage.get("output_tokens")),
        ]
        if all(isinstance(part, int) for part in parts):
            usage["total_tokens"] = sum(parts)


def _merge_logprobs(first: dict[str, Any], last: dict[str, Any]) -> None:
    if first.get("prompt_logprobs") is not None and "prompt_logprobs" in last:
        last["prompt_logprobs"] = first["prompt_logprobs"]


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    choices = answer.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
