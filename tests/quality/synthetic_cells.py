"""The cells that need no download: workloads made up by the simulator's generator, always the same."""

from __future__ import annotations

from cells import Cell

SYNTHETIC_CELLS = (
    Cell("sessions-4-80", "sessions", 4, 150_000, 1.4, 0.8, {"requests": 2000, "turns": 10}, tiers=3),
    Cell(
        "shared-prefixes-8-80", "shared_prefixes", 8, 100_000, 49.8, 0.8, {"requests": 2000, "prefixes": 120}, tiers=3
    ),
    Cell("hot-prompt-8-80", "hot_prompt", 8, 100_000, 48.7, 0.8, {"requests": 2000}, tiers=3),
)
"""Rates are shares of what `saturation_rate` says."""
