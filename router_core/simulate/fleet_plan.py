"""What fleet is simulated: engines with their speed, memory and role, and when they fail. Plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace

from router_core.contract.worker import WorkerRole
from router_core.engine_model.presets import H100_8B
from router_core.engine_model.timing import EngineConstants


@dataclass(frozen=True, slots=True)
class Failure:
    """A worker that dies and may come back.

    Attributes:
        worker: Its place in the fleet, from 0.
        at_s: When it dies, seconds of virtual time; what runs on it is lost, its cache too.
        back_after_s: Seconds until it is there again, None for never.
    """

    worker: int
    at_s: float
    back_after_s: float | None = None


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """One engine.

    Attributes:
        constants: Its speed and memory.
        role: Regular, prefill or decode.
    """

    constants: EngineConstants = H100_8B
    role: WorkerRole = WorkerRole.REGULAR


@dataclass(frozen=True)
class FleetPlan:
    """All engines and what they have in common.

    Attributes:
        engines: At least one; worker i is called `http://worker-i`.
        failures: Who dies when.
        transfer_s: Seconds a KV cache takes from a prefill to a decode worker, whatever its size.
        transfer_token_s: Seconds for each of its tokens beside that; 5.2 us are 131 kB at 25 GB/s.
    """

    engines: tuple[EnginePlan, ...]
    failures: tuple[Failure, ...] = ()
    transfer_s: float = 0.005
    transfer_token_s: float = 5.2e-6

    def __post_init__(self) -> None:
        if not self.engines:
            raise ValueError("a fleet needs at least one engine")
        roles = {engine.role for engine in self.engines}
        if WorkerRole.REGULAR in roles and len(roles) > 1:
            raise ValueError("a fleet has either regular engines or prefill and decode engines, not both")
        if len(roles) == 1 and WorkerRole.REGULAR not in roles:
            raise ValueError("a fleet with prefill or decode engines needs both of them")
        for failure in self.failures:
            if not 0 <= failure.worker < len(self.engines):
                raise ValueError(f"failure of worker {failure.worker}: there are {len(self.engines)}, counted from 0")

    @classmethod
    def uniform(
        cls,
        workers: int,
        constants: EngineConstants = H100_8B,
        *,
        cache_tokens: int | None = None,
        failures: tuple[Failure, ...] = (),
    ) -> FleetPlan:
        """Return a fleet of equal regular engines.

        Args:
            workers: How many.
            constants: Their speed and memory.
            cache_tokens: Tokens of KV cache of each, if not what the constants say.
            failures: Who dies when.
        """
        if cache_tokens is not None:
            constants = replace(constants, cache_tokens=cache_tokens)
        return cls((EnginePlan(constants),) * workers, failures)

    @property
    def has_pairs(self) -> bool:
        """Whether prefill and decode are separate."""
        return self.engines[0].role is not WorkerRole.REGULAR
