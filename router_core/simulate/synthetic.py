"""Workloads made up by a few numbers: small, repeatable, each with one trait that real traffic has."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping
from itertools import count
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_core.contract.errors import StartupError
from router_core.simulate.trace import Trace, TraceRequest

BLOCK_TOKENS = 64

_Count = Annotated[int, Field(ge=1)]
_Requests = Annotated[int, Field(ge=1, le=100_000_000)]
_Tokens = Annotated[int, Field(ge=1, le=10_000_000)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Workload(BaseModel):
    """What all workloads have in common. Lengths vary around their mean (lognormal); arrivals are Poisson."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    requests: _Requests = 2000
    """Requests in all."""

    rate: _Rate = 10.0
    """Starts per second (of requests, or of sessions)."""

    output_tokens: _Tokens = 200
    """Mean tokens generated."""

    spread: Annotated[float, Field(ge=0, le=3)] = 0.6
    """How much lengths vary: the sigma of the lognormal; 0 for none."""

    seed: int = 0
    """Same seed, same trace."""

    def generate(self, name: str) -> Trace:
        """Return the trace."""
        return _Maker(self, name).trace()

    @abstractmethod
    def fill(self, make: _Maker) -> None:
        """Make the requests."""


class SharedPrefixes(Workload):
    """Prompts that begin with one of several long prefixes (system prompts, documents), some of them popular."""

    prefixes: _Count = 48
    """How many prefixes there are."""

    prefix_tokens: _Tokens = 4096
    """Mean tokens of a prefix."""

    own_tokens: _Tokens = 512
    """Mean tokens of the rest of a prompt."""

    skew: Annotated[float, Field(ge=0, le=4)] = 1.0
    """How much more popular the first prefixes are: the exponent of Zipf's law; 0 for no difference."""

    def fill(self, make: _Maker) -> None:
        """Make the requests."""
        prefixes = [make.blocks(make.length(self.prefix_tokens)) for _ in range(self.prefixes)]
        weights = [1 / (rank + 1) ** self.skew for rank in range(self.prefixes)]
        for at_s in make.poisson(self.requests, self.rate):
            prefix = make.random.choices(prefixes, weights)[0]
            make.request(at_s, prefix, make.length(self.own_tokens))


class Sessions(Workload):
    """Conversations: each turn's prompt holds the turns before it, and comes some time after the answer."""

    requests: _Requests = 1200
    """Requests in all."""

    rate: _Rate = 1.0
    """Sessions that start per second."""

    turns: _Count = 8
    """Turns of a session."""

    system_tokens: _Tokens = 2048
    """Tokens all sessions begin with."""

    turn_tokens: _Tokens = 600
    """Mean tokens a user adds in a turn."""

    think_s: _Seconds = 8.0
    """Mean seconds between an answer and the next turn."""

    def fill(self, make: _Maker) -> None:
        """Make the requests."""
        system = make.blocks(self.system_tokens)
        sessions = -(-self.requests // self.turns)
        for number, start_s in enumerate(make.poisson(sessions, self.rate)):
            prefix, at_s = system, start_s
            for turn in range(min(self.turns, self.requests - number * self.turns)):
                think_s = make.random.expovariate(1 / self.think_s) if turn and self.think_s else 0.0
                at_s += think_s
                asked = make.request(
                    at_s, prefix, make.length(self.turn_tokens), session=f"session-{number}", think_s=think_s
                )
                answer = make.blocks(asked.output_tokens + asked.prompt_tokens % BLOCK_TOKENS)
                prefix = (*asked.blocks, *answer)


class Bursts(Workload):
    """Prompts of their own that come in bursts over a calm ground."""

    prompt_tokens: _Tokens = 2048
    """Mean tokens of a prompt."""

    period_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds from one burst to the next."""

    burst_s: Annotated[float, Field(gt=0)] = 3.0
    """Seconds a burst lasts."""

    burst_share: _Share = 0.6
    """Share of all requests that come in bursts."""

    def fill(self, make: _Maker) -> None:
        """Make the requests."""
        span_s = self.requests / self.rate
        starts = []
        for _ in range(self.requests):
            at_s = make.random.uniform(0, span_s)
            if make.random.random() < self.burst_share:
                at_s = at_s // self.period_s * self.period_s + make.random.uniform(0, self.burst_s)
            starts.append(at_s)
        for at_s in sorted(starts):
            make.request(at_s, (), make.length(self.prompt_tokens))


class HotPrompt(Workload):
    """One prefix that a large share of all requests begins with; the others have nothing in common."""

    hot_share: _Share = 0.6
    """Share of requests with the hot prefix."""

    hot_tokens: _Tokens = 6000
    """Tokens of the hot prefix."""

    own_tokens: _Tokens = 400
    """Mean tokens of the rest of such a prompt."""

    other_tokens: _Tokens = 2000
    """Mean tokens of the other prompts."""

    def fill(self, make: _Maker) -> None:
        """Make the requests."""
        hot = make.blocks(self.hot_tokens)
        for at_s in make.poisson(self.requests, self.rate):
            if make.random.random() < self.hot_share:
                make.request(at_s, hot, make.length(self.own_tokens))
            else:
                make.request(at_s, (), make.length(self.other_tokens))


class RlGroups(Workload):
    """Rollouts of reinforcement learning: each prompt is sampled several times at once, with long answers."""

    rate: _Rate = 0.5
    """Groups that start per second."""

    group: _Count = 16
    """Samples of each prompt."""

    prompt_tokens: _Tokens = 1500
    """Mean tokens of a prompt."""

    output_tokens: _Tokens = 1200
    """Mean tokens generated."""

    def fill(self, make: _Maker) -> None:
        """Make the requests."""
        groups = -(-self.requests // self.group)
        for number, at_s in enumerate(make.poisson(groups, self.rate)):
            tokens = make.length(self.prompt_tokens)
            blocks = make.blocks(tokens)
            for _ in range(min(self.group, self.requests - number * self.group)):
                make.request(at_s, blocks, tokens % BLOCK_TOKENS)


WORKLOADS: Mapping[str, type[Workload]] = MappingProxyType(
    {
        "shared_prefixes": SharedPrefixes,
        "sessions": Sessions,
        "bursts": Bursts,
        "hot_prompt": HotPrompt,
        "rl_groups": RlGroups,
    }
)
"""The workloads by name."""


def synthetic(name: str, **options: Any) -> Trace:  # Any: the workload judges them
    """Return a made-up trace, such as `synthetic("sessions", turns=4)`.

    Raises:
        StartupError: There is no such workload, or an option does not fit.
    """
    workload = WORKLOADS.get(name)
    if workload is None:
        raise StartupError([f"workload {name}: unknown; give one of {', '.join(WORKLOADS)}"])
    try:
        return workload.model_validate(options).generate(name)
    except ValidationError as error:
        known = ", ".join(workload.model_fields)
        raise StartupError(
            f"workload {name}: {'.'.join(map(str, problem['loc']))}: "
            + (
                f"unknown option; it takes {known}"
                if problem["type"] == "extra_forbidden"
                else f"{problem['msg'][:1].lower()}{problem['msg'][1:]}, not {problem['input']!r}"
            )
            for problem in error.errors(include_url=False)
        ) from error


class _Maker:
    """Makes a trace's requests and the ids of their blocks."""

    def __init__(self, workload: Workload, name: str) -> None:
        self.random = random.Random(f"{name}/{workload.seed}")  # noqa: S311  # repeatable, not secret
        self._workload = workload
        self._name = name
        self._ids = count(1)
        self._requests: list[TraceRequest] = []

    def trace(self) -> Trace:
        """Return what the workload makes."""
        self._workload.fill(self)
        self._requests.sort(key=lambda request: request.at_s)
        return Trace(self._name, BLOCK_TOKENS, tuple(self._requests), isinstance(self._workload, Sessions))

    def length(self, mean: float) -> int:
        """Return a random length around a mean."""
        sigma = self._workload.spread
        return max(1, round(mean * self.random.lognormvariate(-sigma * sigma / 2, sigma)))

    def blocks(self, tokens: int) -> tuple[int, ...]:
        """Return new blocks for so many tokens; a rest that fills none has none."""
        return tuple(next(self._ids) for _ in range(tokens // BLOCK_TOKENS))

    def poisson(self, starts: int, rate: float) -> list[float]:
        """Return random times with a mean of `rate` a second."""
        at_s, times = 0.0, []
        for _ in range(starts):
            times.append(at_s)
            at_s += self.random.expovariate(rate)
        return times

    def request(
        self,
        at_s: float,
        prefix: tuple[int, ...],
        own_tokens: int,
        *,
        session: str | None = None,
        think_s: float = 0.0,
    ) -> TraceRequest:
        """Make a request whose prompt is a prefix and tokens of its own."""
        made = TraceRequest(
            at_s=at_s,
            prompt_tokens=max(1, len(prefix) * BLOCK_TOKENS + own_tokens),
            output_tokens=self.length(self._workload.output_tokens),
            blocks=(*prefix, *self.blocks(own_tokens)),
            session=session,
            think_s=think_s,
        )
        self._requests.append(made)
        return made
