"""The `dynamo_cost` policy."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from router_core.api import (
    BacklogPolicy,
    Leg,
    PoolContext,
    RoutingRequest,
    Worker,
    hookimpl,
)
from router_policy_dynamo_cost.choice import cheapest, softmax


class DynamoCostPolicy(BacklogPolicy):
    """Take the worker with the least cost: prefill to do, less what its cache saves, and context being decoded.

    In blocks: `prefill_load_scale * (pending + prompt - credit) + decoding + active_request_weight * requests`.
    """

    class Config(BacklogPolicy.Config):
        """Options of `dynamo_cost`."""

        preset: Literal["default", "agentic", "load"] = "default"
        """Where the weights not given come from: `agentic` follows caches more closely, `load` not at all."""

        overlap_credit: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
        """What a cached block counts against one to prefill; above 1 it outweighs load. null: the preset's."""

        overlap_credit_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
        """How fast the credit shrinks on a worker with more prefill pending than the idlest; 0: it does not."""

        prefill_load_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
        """What a block to prefill counts against one being decoded. null: the preset's."""

        active_request_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
        """What a request in flight counts, in blocks. null: the preset's."""

        temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
        """0 takes the least cost; above, workers are drawn by softmax over the costs, which are taken from 0 to 1."""

        block_tokens: Annotated[int, Field(ge=1)] = 16
        """Tokens in a block of the engine's."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        preset = _PRESETS[config.preset]
        self._credit = _given(config.overlap_credit, preset.overlap_credit)
        self._decay = config.overlap_credit_decay
        self._scale = _given(config.prefill_load_scale, preset.prefill_load_scale)
        self._request_weight = _given(config.active_request_weight, preset.active_request_weight)
        self._temperature = config.temperature
        self._block_tokens = config.block_tokens
        self._draw = random.Random().random  # noqa: S311  spreads load, guards nothing

    @hookimpl
    def on_start(self, pool: PoolContext) -> None:
        """Draw from the pool's random source."""
        self._draw = pool.random.random

    @hookimpl
    def select_single(self, workers: Sequence[Worker], request: RoutingRequest) -> Worker:
        """Return the worker with the least cost, or one drawn by cost."""
        if request.leg is Leg.DECODE:
            costs = self._decode_costs(workers)
            at = self._pick(costs)
            request.explain("decode_cost", cost=costs[at], least=min(costs))
            return workers[at]
        cached = self.backlog.match(workers, request)
        costs = self._costs(workers, request.input_tokens, cached)
        at = self._pick(costs)
        share = cached[at] / max(request.input_tokens, 1)
        request.explain("least_cost", cost=costs[at], least=min(costs), cached_share=share)
        self.backlog.place(workers[at], request)
        return workers[at]

    def _pick(self, costs: Sequence[float]) -> int:
        return softmax(costs, self._temperature, self._draw) if self._temperature else cheapest(costs, self._draw)

    def _costs(self, workers: Sequence[Worker], prompt: int, cached: Sequence[int]) -> list[float]:
        backlog = self.backlog
        pending = [backlog.pending_tokens(worker.url) for worker in workers]
        least, pinned = min(pending), backlog.index.pinned_tokens
        costs = []
        for worker, known, waiting in zip(workers, cached, pending, strict=True):
            credit = self._credit
            if self._decay and prompt:
                credit /= 1 + self._decay * (waiting - least) / prompt
            prefill = self._scale * (waiting + prompt - credit * known)
            costs.append((prefill + pinned(worker.url)) / self._block_tokens + self._request_weight * worker.load)
        return costs

    def _decode_costs(self, workers: Sequence[Worker]) -> list[float]:
        return [each.decode_tokens / self._block_tokens + self._request_weight * each.load for each in workers]


class _Preset(NamedTuple):
    overlap_credit: float
    prefill_load_scale: float
    active_request_weight: float


_PRESETS: Mapping[str, _Preset] = MappingProxyType(
    {"default": _Preset(1, 1, 0), "agentic": _Preset(2, 4, 64), "load": _Preset(0, 1, 0)}
)


def _given(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value
