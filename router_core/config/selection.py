"""Which plugin, which policy, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from router_core.config.section import Count, Seconds, Section, Word
from router_core.config.values import not_bool

DEFAULT_POLICY = "predicted_latency"


class PluginSelection(Section):
    """Which plugin, with which options. A plain string in place of it means the name."""

    name: Word
    """Name of an installed plugin, or `module:Class` for one that lies in `app_dir`."""

    options: Mapping[str, Any] = Field(default_factory=dict)  # Any: the plugin's own Config says what is allowed
    """Options of the plugin; `router-core policies NAME` lists them."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class PolicySelection(PluginSelection):
    """Which policy, with which options, and what happens when it fails. A plain string means the name."""

    name: Word = DEFAULT_POLICY
    """Name of an installed policy, or `module:Class` for one that lies in `app_dir`."""

    fallback: Literal["least_loaded", "fail"] = "least_loaded"
    """Who decides when the policy raises, answers with a stranger or is quarantined; `fail` answers 503."""

    seed: Annotated[int, BeforeValidator(not_bool)] | None = None
    """Seed of the policy's random source: same seed, same choices. Unset takes a fresh one at each start."""

    quarantine_after: Count = 5
    """Faults in a row after which the policy is no longer asked."""

    budget_s: Seconds = 0.05
    """Seconds a selection may take; a later answer is used and counted as a fault."""

    exit_on_hang: bool = False
    """End the process, for its supervisor to restart, when a hook does not return for 1 s (5 s where C code keeps the
    interpreter lock)."""
