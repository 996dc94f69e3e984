"""How much is taken on at once: a cap, rates, and a bounded queue before them.

It stands before the dispatcher, so a request passes once however often it is retried, and holds its place until its
exchange is over for the client's connection. A request that waits is an object in the queue: no task, no future and no
timer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Protocol

from router_core.config.admission import AdmissionConfig
from router_core.config.auth import ApiKey
from router_core.relay.exchange import Exchange
from router_core.traffic.body_prompt import BYTES_PER_TOKEN
from router_core.traffic.fair_queue import PRIORITIES, FairQueue, Flow
from router_core.traffic.rate import RateLimit
from router_core.traffic.usage import read_usage

_NORMAL = PRIORITIES.index("normal")
_RESULTS = ("admitted", "rate_limited", "queue_full", "queue_timeout", "left")
_LEVELS = {name.encode(): level for level, name in enumerate(PRIORITIES)}
_ANSWER_WEIGHT = 2
"""What a generated token weighs against one of a prompt (the weights of the VTC paper)."""

_TOKENS_PER_S = 50
"""What an answer that reports no usage is taken to have generated while it ran."""

_NO_LIMIT = float("inf")


class Timer(Protocol):
    """A call to come, as asyncio's `call_later` returns it."""

    def cancel(self) -> None:
        """Do without it."""


class Scheduler(Protocol):
    """What of an event loop is needed here."""

    def time(self) -> float:
        """Return monotonic seconds."""

    def call_soon(self, callback: Callable[[], None]) -> object:
        """Call back when what runs now is done."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call back after so many seconds."""


class Ticket:
    """One request's place: in the queue at first, perhaps, then among those that run.

    Attributes:
        exchange: The request.
        flow: Whose it is.
        level: Its priority, as index in PRIORITIES.
        tokens: Its prompt, estimated.
        since: When it began to wait, then when it began to run.
        is_running: Whether it was let in.
    """

    __slots__ = ("_admission", "exchange", "flow", "is_running", "level", "since", "tokens")

    def __init__(self, admission: Admission, exchange: Exchange, flow: Flow, level: int, since: float) -> None:
        self.exchange = exchange
        self.flow = flow
        self.level = level
        self.tokens = len(exchange.body) // BYTES_PER_TOKEN or 1  # at least one: nothing is for free
        self.since = since
        self.is_running = False
        self._admission = admission

    def over(self) -> None:
        """The exchange is over: answered, broken off, or the client left."""
        self.exchange.on_over = None
        self._admission.over(self)


class Admission:
    """Lets requests through as far as the limits allow, and has the others wait or turns them away.

    Args:
        settings: The limits.
        keys: The API keys, with the limits of each.
        dispatch: Takes the requests that are let in.
        loop: Time and timers.
        waited: Told the seconds that each request waited in the queue.

    Attributes:
        running: Requests that were let in and are not over.
        results: Requests by key and what became of them: `admitted`, `rate_limited`, `queue_full`, `queue_timeout`,
            `left`.
    """

    def __init__(
        self,
        settings: AdmissionConfig,
        keys: Iterable[ApiKey],
        *,
        dispatch: Callable[[Exchange], None],
        loop: Scheduler,
        waited: Callable[[float], None],
    ) -> None:
        self.running = 0
        self.results: dict[tuple[str, str], int] = {}
        self._dispatch = dispatch
        self._loop = loop
        self._waited = waited
        self._requests: RateLimit | None = None
        self._tokens: RateLimit | None = None
        self._queue = FairQueue()
        self._flows: dict[str | None, Flow] = {None: Flow("")}
        self._mean_wait_s = 0.0
        self._timeout: Timer | None = None
        self._rate_timer: Timer | None = None
        self._is_called = False
        self.set_limits(settings, keys)

    @property
    def is_needed(self) -> bool:
        """Whether there is any limit."""
        return (
            self._max_running != _NO_LIMIT
            or self._requests is not None
            or self._tokens is not None
            or any(
                flow.max_running != _NO_LIMIT or flow.requests is not None or flow.tokens is not None
                for flow in self._flows.values()
            )
        )

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def set_limits(self, settings: AdmissionConfig, keys: Iterable[ApiKey]) -> None:
        """Take these limits, and those of these keys, from now on.

        What runs goes on, and counts: under a cap that was lowered nobody begins until enough have ended. Who waits
        keeps the place, even in a queue that was made smaller, and waits at most as long as is said now.
        """
        now = self._loop.time()
        self._max_running = settings.max_concurrent_requests or _NO_LIMIT
        self._queue_size = settings.queue_size
        self._queue_timeout_s = settings.queue_timeout_s
        self._priority_field = settings.priority_header.encode()
        self._requests = RateLimit.renewed(self._requests, settings.requests_per_s, now)
        self._tokens = RateLimit.renewed(self._tokens, settings.tokens_per_s, now)
        flows: dict[str | None, Flow] = {None: self._flows[None]}
        for key in keys:
            flow = flows[key.name] = self._flows.get(key.name) or Flow(key.name)
            flow.take_limits(key, now)
        self._flows = flows
        if self.is_needed:
            for flow in flows.values():
                for result in _RESULTS:
                    self.results.setdefault((flow.name, result), 0)
        if self._rate_timer is not None:
            self._rate_timer.cancel()
            self._rate_timer = None
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = self._loop.call_later(0, self._end_waits)
        self._call()

    def admit(self, exchange: Exchange) -> None:
        """Let a request in, have it wait, or answer that there are too many."""
        now = self._loop.time()
        flow = self._flows.get(exchange.principal) or self._flows[None]
        ticket = Ticket(self, exchange, flow, self._level_of(exchange, flow), now)
        if flow.requests is not None or flow.tokens is not None:
            wait_s = flow.wait_s(ticket.tokens, now)
            if wait_s > 0:
                self._refuse(ticket, "rate_limited", wait_s, f"The API key {flow.name!r} is over its rate.")
                return
            flow.take(ticket.tokens)
        exchange.on_over = ticket.over
        if not self._queue and self._has_room(flow) and self._rate_wait_s(ticket, now) <= 0:
            self._queue.begin_at_once(ticket)
            self._start(ticket, now)
            return
        queue = self._queue
        queue.push(ticket)
        self._let_in()
        if len(queue) > self._queue_size:
            last = queue.last(ticket)
            queue.remove(last)
            self._refuse(
                last, "queue_full", self._mean_wait_s, "The router is busy and its queue is full; try again later."
            )
        if self._timeout is None and queue:
            self._timeout = self._loop.call_later(self._queue_timeout_s, self._end_waits)

    def over(self, ticket: Ticket) -> None:
        """A request is over: its place is free."""
        if not ticket.is_running:
            self._queue.remove(ticket)
            self._count(ticket.flow, "left")
            self._waited(self._loop.time() - ticket.since)
            return
        flow = ticket.flow
        self.running -= 1
        flow.running -= 1
        if len(self._flows) > 1:
            flow.served += _ANSWER_WEIGHT * self._generated(ticket) / flow.weight
        self._call()

    # --- inside ---

    def _level_of(self, exchange: Exchange, flow: Flow) -> int:
        given = exchange.head.fields.get(self._priority_field)
        level = _NORMAL if given is None else _LEVELS.get(given.lower(), _NORMAL)
        return level if level >= flow.highest else flow.highest

    def _has_room(self, flow: Flow) -> bool:
        return self.running < self._max_running and flow.running < flow.max_running

    def _rate_wait_s(self, ticket: Ticket, now: float) -> float:
        return max(
            0.0 if self._requests is None else self._requests.wait_s(1, now),
            0.0 if self._tokens is None else self._tokens.wait_s(ticket.tokens, now),
        )

    def _start(self, ticket: Ticket, now: float) -> None:
        flow = ticket.flow
        ticket.since = now
        ticket.is_running = True
        self.running += 1
        flow.running += 1
        if self._requests is not None:
            self._requests.take(1)
        if self._tokens is not None:
            self._tokens.take(ticket.tokens)
        self._count(flow, "admitted")
        self._dispatch(ticket.exchange)

    def _let_in(self) -> None:
        """Start those who wait, as far as there is room."""
        queue = self._queue
        try:
            while queue and self.running < self._max_running:
                ticket = queue.next(self._has_room)
                if ticket is None:
                    return
                now = self._loop.time()
                wait_s = self._rate_wait_s(ticket, now)
                if wait_s > 0:
                    if self._rate_timer is None:
                        self._rate_timer = self._loop.call_later(wait_s, self._rate_allows)
                    return
                queue.begin(ticket)
                waited_s = now - ticket.since
                self._waited(waited_s)
                self._mean_wait_s += (waited_s - self._mean_wait_s) / 16
                self._start(ticket, now)
        except BaseException:
            self._call()  # whoever's dispatch failed, the others wait no longer for it
            raise

    def _call(self) -> None:
        """Start those who wait once what runs now is done: it may be deep in another request's end."""
        if self._queue and not self._is_called:
            self._is_called = True
            self._loop.call_soon(self._called)

    def _called(self) -> None:
        self._is_called = False
        self._let_in()

    def _rate_allows(self) -> None:
        self._rate_timer = None
        self._let_in()

    def _end_waits(self) -> None:
        """Turn away who has waited too long. There is one timer, for the one that waits longest."""
        self._timeout = None
        queue = self._queue
        while queue:
            ticket = queue.oldest
            left_s = ticket.since + self._queue_timeout_s - self._loop.time()
            if left_s > 0:
                self._timeout = self._loop.call_later(left_s, self._end_waits)
                return
            queue.remove(ticket)
            self._waited(self._queue_timeout_s)
            self._count(ticket.flow, "queue_timeout")
            ticket.exchange.on_over = None
            message = "The router is busy: the request waited too long for its turn."
            ticket.exchange.refuse(408, "queue_timeout", message)

    def _refuse(self, ticket: Ticket, result: str, wait_s: float, message: str) -> None:
        self._count(ticket.flow, result)
        ticket.exchange.on_over = None
        seconds = max(1, math.ceil(wait_s))
        ticket.exchange.refuse(429, result, message, [("Retry-After", str(seconds))])

    def _generated(self, ticket: Ticket) -> float:
        """Return the tokens of the answer, as its end reports them or as its time suggests."""
        exchange = ticket.exchange
        if exchange.status is None or exchange.status >= 400:
            return 0
        reported = read_usage(exchange.tail).completion_tokens
        return (self._loop.time() - ticket.since) * _TOKENS_PER_S if reported is None else reported

    def _count(self, flow: Flow, result: str) -> None:
        key = flow.name, result
        self.results[key] = self.results.get(key, 0) + 1  # of a key that has gone, too
