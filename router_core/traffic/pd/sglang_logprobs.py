"""The prompt's log probabilities: the prefill leg knows them, the client expects them in decode's answer."""

from __future__ import annotations

from typing import Any

import orjson

from router_core.traffic.pd.sse import map_data

_FIELD = "input_token_logprobs"


class LogprobMerge:
    """Puts `meta_info.input_token_logprobs` of the prefill leg in front of decode's; item by item in a batch."""

    def __init__(self, *, is_stream: bool) -> None:
        self.is_stream = is_stream
        self._known: dict[int, list[Any]] | None = None  # Any: an engine's JSON

    def whole(self, prefill: bytes, decode: bytes) -> bytes:
        """Return a whole answer, merged."""
        first, last = orjson.loads(prefill), orjson.loads(decode)
        firsts, lasts = (one if isinstance(one, list) else [one] for one in (first, last))
        for ahead, item in zip(firsts, lasts, strict=False):
            _prepend(_logprobs(ahead), item)
        return orjson.dumps(last)

    def events(self, prefill: bytes, events: bytes) -> bytes:
        """Return events, each that has a `meta_info` merged with the first event of the prefill leg's item."""
        if self._known is None:
            self._known = {}
            map_data(prefill, self._learn)
        return map_data(events, self._merge)

    def _learn(self, data: bytes) -> None:
        event = orjson.loads(data)
        if self._known is not None and isinstance(event, dict):
            self._known.setdefault(event.get("index", 0), _logprobs(event))

    def _merge(self, data: bytes) -> bytes | None:
        if b'"meta_info"' not in data or not self._known:
            return None
        event = orjson.loads(data)
        if not isinstance(event, dict):
            return None
        _prepend(self._known.get(event.get("index", 0), []), event)
        return orjson.dumps(event)


def _logprobs(item: Any) -> list[Any]:
    facts = item.get("meta_info") if isinstance(item, dict) else None
    known = facts.get(_FIELD) if isinstance(facts, dict) else None
    return known if isinstance(known, list) else []


def _prepend(ahead: list[Any], item: Any) -> None:
    facts = item.get("meta_info") if isinstance(item, dict) else None
    if ahead and isinstance(facts, dict):
        facts[_FIELD] = ahead + _logprobs(item)
