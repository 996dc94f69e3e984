"""The paths of inference requests."""

from __future__ import annotations

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
