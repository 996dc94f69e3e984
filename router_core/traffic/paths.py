"""The paths of inference requests, and the routes that paths are one of."""

from __future__ import annotations

import re

INFERENCE_PATHS = frozenset(
    {
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/v1/responses",
        b"/v1/messages",
        b"/v1/embeddings",
        b"/v1/classify",
        b"/v1/score",
        b"/score",
        b"/v1/rerank",
        b"/rerank",
        b"/generate",
        b"/v1/tokenize",
        b"/v1/detokenize",
        b"/v1/audio/transcriptions",
    }
)
"""Paths whose POST requests are routed by the policy. They compute and change nothing, so they may be repeated."""

_STORED_RESPONSE = re.compile(rb"/v1/responses/[^/]+(/cancel|/input_items)?")


def route_of(path: bytes) -> str | None:
    """Return the route a path is one of, with a placeholder for what clients make up; None if nobody knows the path."""
    if path in INFERENCE_PATHS:
        return path.decode("ascii")
    stored = _STORED_RESPONSE.fullmatch(path)
    return None if stored is None else "/v1/responses/{id}" + (stored[1] or b"").decode("ascii")
