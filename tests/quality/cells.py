"""What is compared: the cells (a trace, a fleet and a rate each) and who takes part. Plain values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from router_core.engine_model.presets import H100_8B
from router_core.simulate import Contender, FleetPlan, Scenario, Trace, read_trace, synthetic

TRACES_VARIABLE = "LLM_TRACES"
"""Names the folder in which the public traces lie, converted."""

SEEDS = 3

ALL_TIERS = 4

HOST_TIER = 1_600_000
ONE_CARD = 400_000


@dataclass(frozen=True)
class Cell:
    """One question.

    Attributes:
        name: Short and unique; also a file's name.
        trace: A public trace, or a workload.
        workers: How many engines.
        cache_tokens: KV cache of each.
        rate: Starts per second: of requests, in a closed loop of sessions.
        load: Share of what saturates the fleet.
        workload: Options of the workload; None for a public trace.
        tiers: Entrants of tiers up to this one take part: 1 in a cell that takes long, 4 in one that does not.
    """

    name: str
    trace: str
    workers: int
    cache_tokens: int
    rate: float
    load: float
    workload: Mapping[str, Any] | None = None
    tiers: int = ALL_TIERS

    @property
    def is_closed_loop(self) -> bool:
        """Whether a turn starts only when the one before it is over; the rate is that of sessions then."""
        return self.trace in {"claude_code_a", "sessions"}

    @property
    def title(self) -> str:
        """What tables and plots call it."""
        cache_size = f"{self.cache_tokens / 1e6:g} M" if self.cache_tokens >= 1e5 else f"{self.cache_tokens / 1e3:g} k"
        return f"{self.trace}, {self.workers} engines of {cache_size}, {self.load:.0%}"

    def scenario(self) -> Scenario:
        """Return what is simulated.

        Raises:
            StartupError: The trace cannot be read.
        """
        trace = _public(self.trace) if self.workload is None else synthetic(self.trace, **self.workload)
        return Scenario(trace, FleetPlan.uniform(self.workers, H100_8B, cache_tokens=self.cache_tokens), rate=self.rate)


PUBLIC_CELLS = (
    Cell("conversation-4-80", "mooncake_conversation", 4, HOST_TIER, 3.42, 0.8),
    Cell("conversation-4-95", "mooncake_conversation", 4, HOST_TIER, 4.06, 0.95, tiers=2),
    Cell("conversation-8-80", "mooncake_conversation", 8, ONE_CARD, 5.4, 0.8, tiers=2),
    Cell("conversation-16-80", "mooncake_conversation", 16, HOST_TIER, 16.0, 0.8, tiers=1),
    Cell("agents-4-80", "claude_code_a", 4, HOST_TIER, 0.0376, 0.8, tiers=2),
    Cell("agents-8-80", "claude_code_a", 8, HOST_TIER, 0.075, 0.8, tiers=1),
    Cell("short-4-95", "servegen_mid", 4, ONE_CARD, 262, 0.95, tiers=3),
)
"""Those that need the public traces."""


@dataclass(frozen=True)
class Entrant:
    """Who takes part.

    Attributes:
        label: What tables and plots call it; also a file's name.
        policy: Its name.
        options: What its README recommends where that differs from the defaults.
        is_yardstick: Whether it knows what no router can know, or is a policy helped by such knowledge.
        knows_engine: Whether it is given the engine's true constants.
        tier: 1 for those who might win and what they are measured by, up to 4 for variants.
    """

    label: str
    policy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    is_yardstick: bool = False
    knows_engine: bool = False
    tier: int = 1

    def takes_part(self, cell: Cell) -> bool:
        """Whether it is run in a cell."""
        return self.tier <= cell.tiers

    def contender(self, cell: Cell) -> Contender:
        """Return the contender for a cell."""
        options = dict(self.options)
        if self.knows_engine:
            names = ("prefill_token_s", "prefill_pair_s", "decode_sequence_s", "decode_context_token_s")
            options |= {name: getattr(H100_8B, name) for name in names}
            options["cache_tokens"] = cell.cache_tokens
        return Contender(self.policy, options, self.label)


FLAGSHIP = "predicted_latency"
OLD = "cache_aware, sglang-0.3.2"
GIVEN = "predicted_latency, constants given"
GREEDY = "oracle_greedy"
POOLED = "oracle_pooled"

ENTRANTS = (
    Entrant(FLAGSHIP, "predicted_latency"),
    Entrant(OLD, "cache_aware", {"compat": "sglang-0.3.2"}),
    Entrant(GREEDY, "oracle_greedy", is_yardstick=True),
    Entrant(POOLED, "oracle_pooled", is_yardstick=True),
    Entrant("lmetric", "lmetric"),
    Entrant("weighted 3:2:2", "weighted"),
    Entrant("lpwl", "lpwl", tier=2),
    Entrant("dynamo_cost, agentic", "dynamo_cost", {"preset": "agentic"}, tier=2),
    Entrant(GIVEN, "predicted_latency", is_yardstick=True, knows_engine=True),
    Entrant("least_loaded, pending", "least_loaded", {"metric": "pending_prompt_tokens"}, tier=3),
    Entrant("power_of_two, tokens", "power_of_two", {"metric": "tokens"}, tier=3),
    Entrant("random", "random", tier=3),
    Entrant("cache_aware", "cache_aware", tier=3),
    Entrant("consistent_hash", "consistent_hash", tier=4),
    Entrant("prefix_hash", "prefix_hash", tier=4),
    Entrant("manual, by session", "manual", {"keys": ["session"], "assignment_mode": "min_load"}, tier=4),
    Entrant("round_robin", "round_robin", tier=4),
    Entrant("cache_aware, gate worker", "cache_aware", {"gate": "worker", "balance_abs_threshold": 8}, tier=4),
    Entrant("dynamo_cost", "dynamo_cost", tier=4),
)
"""Every installed built-in policy, and what they are measured by."""


@cache
def _public(name: str) -> Trace:
    folder = os.environ[TRACES_VARIABLE]
    return read_trace(Path(folder) / f"{name}.jsonl.gz")
