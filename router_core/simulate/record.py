"""What became of each request of a run: the raw material of every report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import WorkerRole


class FailureReason(StrEnum):
    """Why a request got no answer: the last of its attempts, if there were several.

    `no_worker`: the policy chose none, or none was alive; `worker_died`: while it had the request; `too_long`: prompt
    and output together are more than the engine's whole KV cache holds, so it refused them.
    """

    NO_WORKER = "no_worker"
    WORKER_DIED = "worker_died"
    TOO_LONG = "too_long"


@dataclass(slots=True)
class RequestRecord:
    """One request, from its arrival at a router to its end. Times in seconds of virtual time.

    Attributes:
        index: Its place in the trace.
        arrived_s: When it came.
        prompt_tokens: Tokens of its prompt.
        output_tokens: Tokens it generates.
        worker: Place in the fleet of who served it (of a pair, the prefill worker), -1 if nobody did.
        decode_worker: Place of the decode worker of a pair, -1 without one.
        cached_tokens: Prompt tokens that came from the engine's cache.
        first_token_s: When the first token came; negative if none did.
        ended_s: When the last token came, or the request failed; negative while it runs.
        status: How it ended.
        failure: Why it got no answer, None if it got one.
    """

    index: int
    arrived_s: float
    prompt_tokens: int
    output_tokens: int
    worker: int = -1
    decode_worker: int = -1
    cached_tokens: int = 0
    first_token_s: float = -1.0
    ended_s: float = -1.0
    status: OutcomeStatus | None = None
    failure: FailureReason | None = None

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_token_s - self.arrived_s

    @property
    def duration_s(self) -> float:
        """Time from arrival to the last token."""
        return self.ended_s - self.arrived_s

    @property
    def inter_token_s(self) -> float | None:
        """Mean time between two tokens, None for a single token."""
        tokens = self.output_tokens - 1
        return (self.ended_s - self.first_token_s) / tokens if tokens > 0 else None


@dataclass(slots=True)
class Sample:
    """The fleet at one moment: per worker, what waits and what runs.

    Attributes:
        at_s: When.
        waiting: Requests waiting in each engine.
        running: Requests being prefilled or decoded in each engine.
    """

    at_s: float
    waiting: tuple[int, ...]
    running: tuple[int, ...]


@dataclass(slots=True)
class RunRecord:
    """Everything one run left behind.

    Attributes:
        policy: The label of the policy.
        seed: The run's seed.
        rate: Starts per second that were aimed at; in a closed loop, of sessions.
        roles: The role of each engine in the fleet.
        is_yardstick: Whether the policy is none but a measure for policies.
        requests: In the order of their arrival.
        samples: The fleet from time to time.
        busy_s: Seconds each engine computed.
        ended_s: When the last request ended.
        decisions: Selections the policy made.
        decision_s: Real seconds they took together.
        faults: What the policy did wrong, by plugin and kind.
    """

    policy: str
    seed: int
    rate: float
    roles: tuple[WorkerRole, ...]
    is_yardstick: bool = False
    requests: list[RequestRecord] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    decisions: int = 0
    decision_s: float = 0.0
    faults: dict[str, int] = field(default_factory=dict)

    @property
    def workers(self) -> int:
        """How many engines the fleet has."""
        return len(self.roles)
