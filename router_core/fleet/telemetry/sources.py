"""Where engines tell their load, in the order to ask in: who tells more comes first. No I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from router_core.fleet.telemetry.engine_metrics import parse_metrics
from router_core.fleet.telemetry.reading import Reading
from router_core.fleet.telemetry.sglang_loads import parse_loads


class Source(NamedTuple):
    """A path to GET, and how to read its answer for a rank (None: for the whole engine)."""

    path: str
    parse: Callable[[bytes, int | None], Reading | None]


SOURCES = (
    Source("/v1/loads?include=core", parse_loads),  # SGLang; alone in telling the tokens that wait
    Source("/metrics", parse_metrics),  # vLLM, llama.cpp, SGLang with --enable-metrics
    Source("/get_load", parse_loads),  # SGLang before /v1/loads; does not tell the cache
    Source("/prometheus/metrics", parse_metrics),  # TensorRT-LLM, whose /metrics is something else
)
