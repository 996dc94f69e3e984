"""One question to the simulator: which trace, at what rate, on what fleet. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from router_core.simulate.fleet_plan import FleetPlan
from router_core.simulate.trace import Trace

KeyField = Literal["session", "user"]
"""What of a trace may stand in a header."""

_HEADERS: tuple[tuple[str, KeyField], ...] = (
    ("x-session-id", "session"),
    ("x-smg-routing-key", "session"),
    ("x-user-id", "user"),
)


@dataclass(frozen=True)
class Scenario:
    """What is replayed, and before what.

    Attributes:
        trace: The requests.
        fleet: The engines.
        rate: Starts per second (of requests; in a closed loop, of sessions); None for the trace's own.
        jitter: How far starts are moved at random in runs with a seed other than 0, in mean gaps between starts.
        think_cap_s: The longest time a session waits between two turns, None for no limit.
        routers: Routers side by side, each with a policy object and a ledger of its own.
        split: Which router gets a request: any, or always the same one for a session.
        telemetry_s: Virtual seconds between two readings of the engines, for policies that need telemetry.
        retries: How often a client sends a request again that failed.
        headers: What clients put in which header (lower-case name), unless the trace says it; for policies that need
            headers.
        sample_s: Virtual seconds between two looks at the engines' queues; None for about 200 in a run.
    """

    trace: Trace
    fleet: FleetPlan
    rate: float | None = None
    jitter: float = 1.0
    think_cap_s: float | None = 30.0
    routers: int = 1
    split: Literal["any", "session"] = "any"
    telemetry_s: float = 1.0
    retries: int = 0
    headers: Mapping[str, KeyField] = field(default_factory=lambda: dict(_HEADERS))
    sample_s: float | None = None

    def __post_init__(self) -> None:
        if not self.trace.requests:
            raise ValueError(f"trace {self.trace.name!r} has no requests")
        if self.rate is not None and not self.rate > 0:
            raise ValueError(f"rate: {self.rate} is not above 0")
        if self.routers < 1:
            raise ValueError(f"routers: {self.routers} is too few")

    @property
    def start_rate(self) -> float:
        """Starts per second that are aimed at; 0 if all start at once."""
        return self.trace.start_rate if self.rate is None else self.rate
