"""Who waits, and who is next: by priority, then fairly between API keys, then by arrival."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING

from router_core.traffic.rate import RateLimit

if TYPE_CHECKING:
    from router_core.config.auth import ApiKey
    from router_core.traffic.admission import Ticket

PRIORITIES = ("high", "normal", "low")


class Flow:
    """The requests of one API key, or of all who have none.

    Attributes:
        name: The key's name; empty for those who have none.
        max_running: How many of its requests may run at once.
        highest: Index in PRIORITIES of the best it may ask for.
        weight: Its share of the turns.
        requests: Its rate of requests, None without limit.
        tokens: Its rate of prompt tokens, likewise.
        running: How many of its requests run.
        served: Tokens it was served, over its weight.
    """

    __slots__ = ("highest", "max_running", "name", "requests", "running", "served", "tokens", "weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.max_running = float("inf")
        self.highest = 0
        self.weight = 1.0
        self.requests: RateLimit | None = None
        self.tokens: RateLimit | None = None
        self.running = 0
        self.served = 0.0

    def take_limits(self, key: ApiKey, now: float) -> None:
        """Take the limits of a key; what runs and waits is not touched."""
        self.max_running = key.max_concurrent_requests or float("inf")
        self.highest = PRIORITIES.index(key.max_priority)
        self.weight = key.weight
        self.requests = RateLimit.renewed(self.requests, key.requests_per_s, now)
        self.tokens = RateLimit.renewed(self.tokens, key.tokens_per_s, now)

    def wait_s(self, tokens: float, now: float) -> float:
        """Return the seconds until its own rates let a request pass, 0 if they do."""
        return max(
            0.0 if self.requests is None else self.requests.wait_s(1, now),
            0.0 if self.tokens is None else self.tokens.wait_s(tokens, now),
        )

    def take(self, tokens: float) -> None:
        """Count a request into its rates."""
        if self.requests is not None:
            self.requests.take(1)
        if self.tokens is not None:
            self.tokens.take(tokens)


class FairQueue:
    """The requests that wait.

    Between priorities the better goes first, always. Within one, the key that was served least goes first: each has a
    counter of tokens over its weight. When a key begins to wait, its counter is lifted to the least of those who wait,
    or to that of the last one served, so that nobody saves up turns and nobody pays for capacity that lay idle. That is
    the Virtual Token Counter (Sheng et al., Fairness in Serving Large Language Models, OSDI 2024), start-time fair
    queueing (Goyal, Vin and Cheng, SIGCOMM 1996) with costs that are known in full only afterwards.
    """

    __slots__ = ("_by_arrival", "_last_served", "_levels")

    def __init__(self) -> None:
        self._levels: tuple[dict[Flow, OrderedDict[Ticket, None]], ...] = tuple({} for _ in PRIORITIES)
        self._by_arrival: OrderedDict[Ticket, None] = OrderedDict()
        self._last_served = [0.0] * len(PRIORITIES)

    def __len__(self) -> int:
        return len(self._by_arrival)

    @property
    def oldest(self) -> Ticket:
        """The one that waits longest; there must be one."""
        return next(iter(self._by_arrival))

    def push(self, ticket: Ticket) -> None:
        """Let one more wait."""
        flow, level = ticket.flow, self._levels[ticket.level]
        if flow not in level:
            self._lift(ticket)
            level[flow] = OrderedDict()
        level[flow][ticket] = None
        self._by_arrival[ticket] = None

    def remove(self, ticket: Ticket) -> None:
        """One waits no more."""
        flow, level = ticket.flow, self._levels[ticket.level]
        del self._by_arrival[ticket]
        del level[flow][ticket]
        if not level[flow]:
            del level[flow]

    def begin(self, ticket: Ticket) -> None:
        """One who waited begins."""
        self.remove(ticket)
        self._charge(ticket)

    def begin_at_once(self, ticket: Ticket) -> None:
        """One begins while nobody waits."""
        self._lift(ticket)
        self._charge(ticket)

    def next(self, is_ready: Callable[[Flow], bool]) -> Ticket | None:
        """Return whose turn it is among the flows that are ready; None if none is."""
        for level in self._levels:
            best: Flow | None = None
            for flow in level:
                if (best is None or flow.served < best.served) and is_ready(flow):
                    best = flow
            if best is not None:
                return next(iter(level[best]))
        return None

    def last(self, newcomer: Ticket) -> Ticket:
        """Return who has to go when there are too many: the newest of the key that has most waiting for its weight.

        Of the lowest priority there is; among equals, the newcomer. So a key that floods the queue turns away its own.
        """
        level = next(level for level in reversed(self._levels) if level)
        flow = max(level, key=lambda flow: (len(level[flow]) / flow.weight, flow is newcomer.flow))
        return next(reversed(level[flow]))

    def _lift(self, ticket: Ticket) -> None:
        flow, level = ticket.flow, self._levels[ticket.level]
        least = min(other.served for other in level) if level else self._last_served[ticket.level]
        if flow.served < least:
            flow.served = least

    def _charge(self, ticket: Ticket) -> None:
        flow = ticket.flow
        self._last_served[ticket.level] = flow.served
        flow.served += ticket.tokens / flow.weight
