"""Log probabilities a simulated engine makes up, always the same for the same token, in the engines' own shapes."""

from __future__ import annotations

from typing import Any

from xxhash import xxh3_64_intdigest

from router_core.engine_model.prefix_cache import BYTES_PER_TOKEN

SglangLogprob = tuple[float | None, int, None]


def input_token_logprobs(prompt: str, start: int) -> list[SglangLogprob]:
    """Return SGLang's list for the prompt's tokens from `start` on; -1 for the last alone. The very first has none."""
    tokens = _tokens(prompt)
    first = len(tokens) - 1 if start < 0 else start
    return [_sglang(token, position > 0) for position, token in enumerate(tokens)][first:]


def output_token_logprobs(tokens: list[str]) -> list[SglangLogprob]:
    """Return SGLang's list for generated tokens."""
    return [_sglang(token.encode(), is_known=True) for token in tokens]


def prompt_logprobs(prompt: str) -> list[dict[str, Any] | None]:
    """Return vLLM's list for the prompt's tokens: null, then the token itself each time, ranked first."""
    shapes: list[dict[str, Any] | None] = [None]
    for token in _tokens(prompt)[1:]:
        text = token.decode(errors="replace")
        shapes.append({str(_id(token)): {"logprob": _logprob(token), "rank": 1, "decoded_token": text}})
    return shapes


def _sglang(token: bytes, is_known: bool) -> SglangLogprob:
    return (_logprob(token) if is_known else None, _id(token), None)


def _tokens(prompt: str) -> list[bytes]:
    data = prompt.encode("utf-8", "surrogatepass")
    return [data[start : start + BYTES_PER_TOKEN] for start in range(0, len(data), BYTES_PER_TOKEN)] or [b""]


def _id(token: bytes) -> int:
    return xxh3_64_intdigest(token) % 100_000


def _logprob(token: bytes) -> float:
    return -(xxh3_64_intdigest(token, 1) % 10_000) / 1000
