"""Whether a failed attempt is followed by another, and when.

While nothing of an answer has gone to the client, a request may be sent again. In which cases, and after which pause:

1. No connection could be made: nothing was sent, so a worker not tried yet is asked at once, however often. Once all
   were tried there is no other attempt, for a refusal would only come again, unless case 2 or 3 gave one before.
2. The connection was lost, the worker was silent for too long, was found dead, or answered 429 or 503 (it is full):
   another attempt, at once if a worker is left that was not tried, else after a pause. One that is gone, so that it
   cannot even be reached any more, is the same, but there is nothing left that attempts could overload.
3. It answered another of `statuses`: another attempt after a pause.

Cases 2 and 3, and 1 after them, are bounded: by `max_attempts`, by the deadline, and by a budget: of all
requests in flight only a share may be on a second or later attempt, so that an outage is not multiplied. A request
holds its part of the budget until the answer for its client begins. Only to what a worker leaves behind that is gone,
or that closed the connection while another worker is left, the budget does not apply: nobody works on that any more,
and else the requests on a worker that crashes would be lost.

The pause grows from attempt to attempt and is spread by chance. If all workers were tried, a worker's `Retry-After` is
waited for as well. A request that waits because a worker wishes it so holds nothing of the budget: it asks when the
time has come. One that is to wait for longer than `max_backoff_s`, or beyond the deadline, is not sent again: its
client gets the worker's answer, and knows better than we whether to wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange
from router_core.relay.parties import Ending
from router_core.traffic.failure import Failure
from router_core.traffic.pause import Pause, Scheduler


@dataclass(frozen=True, slots=True)
class RetryRules:
    """How often and when; see the module's docstring.

    Attributes:
        max_attempts: Attempts at a request in all, those that could not connect not counted; 1 for no other.
        initial_backoff_s: The first pause.
        max_backoff_s: The longest pause; a worker that wishes for a longer one is not asked again.
        multiplier: What each pause is longer than the one before.
        jitter: By which share of it, 0 to 1, a pause is longer or shorter at random.
        statuses: Answers after which another attempt is made.
        budget_share: Share of the requests in flight that may be on a later attempt.
        budget_floor: How many may be, whatever the share.
        deadline_s: How long after a request's arrival another attempt may begin; None for as long as it lasts.
    """

    max_attempts: int = 3
    initial_backoff_s: float = 0.05
    max_backoff_s: float = 30.0
    multiplier: float = 1.5
    jitter: float = 0.2
    statuses: frozenset[int] = frozenset({408, 429, 500, 502, 503, 504})
    budget_share: float = 0.2
    budget_floor: int = 10
    deadline_s: float | None = None


class Trials:
    """What one request has been through; made when its first attempt fails.

    Attributes:
        began: When its first attempt began, in the time of `Retries.now`.
        tried: Who was tried since all were.
        retries: Attempts granted beyond the first, those after a failed connection not counted.
        is_retried: Whether any further attempt was granted.
        waits_after: While it waits as a worker wishes, why the attempt before had failed; else None.
    """

    __slots__ = ("began", "is_retried", "retries", "tried", "waits_after")

    def __init__(self, began: float) -> None:
        self.began = began
        self.tried: tuple[Worker, ...] = ()
        self.retries = 0
        self.is_retried = False
        self.waits_after: Failure | None = None


class Retries:
    """Grants attempts to the requests of one pool.

    Attributes:
        rules: What it goes by.
        granted: Further attempts granted so far, by why the one before had failed.
        refused: Further attempts refused, by what was used up.
        results: Requests that had further attempts and are over, by what came of them: `served` with an answer that is
            not one to try again after, `failed`, or `cancelled` by the client's leaving.
        now: The time that exchanges' deadlines are in.
        retrying: Requests on a later attempt, or in a pause of ours before it, that no answer has begun for.
    """

    def __init__(
        self,
        rules: RetryRules,
        *,
        in_flight: Callable[[], int],
        scheduler: Scheduler,
        random: Random,
        paused: Callable[[float], None] = lambda pause_s: None,  # noqa: ARG005  # named as callers pass it
    ) -> None:
        """Make ready.

        Args:
            rules: What to go by.
            in_flight: Returns how many requests the pool's workers have now; asked when an attempt failed.
            scheduler: Tells the time that exchanges' deadlines are in, and puts attempts off.
            random: Spreads the pauses.
            paused: Told how many seconds each pause before an attempt is.
        """
        self.rules = rules
        self.granted = {failure.name.lower(): 0 for failure in Failure}
        self.refused = dict.fromkeys(("attempts", "deadline", "retry_after", "budget"), 0)
        self.results = dict.fromkeys(("served", "failed", "cancelled"), 0)
        self.now = scheduler.time
        self._in_flight = in_flight
        self._scheduler = scheduler
        self._random = random
        self._paused = paused
        self.retrying: set[Trials] = set()

    def grant(
        self, trials: Trials, failure: Failure, exchange: Exchange, *, is_anyone_left: bool, wish_s: float = 0.0
    ) -> float | None:
        """Grant another attempt, or not.

        Args:
            trials: What the request has been through.
            failure: What happened to the latest attempt.
            exchange: The request.
            is_anyone_left: Whether there is a worker that was not tried yet.
            wish_s: How long the worker that failed wishes to be left alone.

        Returns:
            After how many seconds; None if there shall be no other attempt.
        """
        rules = self.rules
        # 1. Nothing was sent.
        if failure is Failure.NOT_CONNECTED:
            if is_anyone_left:
                self._count(trials, failure)
                return 0.0
            if not trials.retries:
                return None  # Nobody was ever reached.
        if trials.retries >= rules.max_attempts - 1:
            self._refuse("attempts")
            return None
        # 2. A pause that would be of no use is not made.
        is_prompt = is_anyone_left and failure is not Failure.STATUS
        delay_s = 0.0 if is_prompt else self._pause_s(trials.retries)
        is_wished = not is_anyone_left and wish_s > delay_s
        if is_wished:
            if wish_s > rules.max_backoff_s:
                self.refused["retry_after"] += 1
                return None
            delay_s = wish_s * self._random.uniform(1, 1 + rules.jitter)  # others were told the same
        due = self.now() + delay_s
        if due >= exchange.deadline or (rules.deadline_s is not None and due > trials.began + rules.deadline_s):
            self._refuse("deadline")
            return None
        # 3. The budget.
        if is_wished:
            self.retrying.discard(trials)
            trials.waits_after = failure
        else:
            is_dropped = failure is Failure.GONE or (failure is Failure.LOST and is_anyone_left)
            if not is_dropped and not self._may_retry(trials):
                return None
            self._begin(trials, failure)
        trials.retries += 1
        if delay_s > 0:
            self._paused(delay_s)
        return delay_s

    def pause_over(self, trials: Trials) -> bool:
        """Return whether the attempt that was granted after a pause may be made; one that waited has yet to ask."""
        failure, trials.waits_after = trials.waits_after, None
        if failure is None:
            return True
        if not self._may_retry(trials):
            return False
        self._begin(trials, failure)
        return True

    def answered(self, trials: Trials) -> None:
        """The answer for the client begins: there will be no other attempt."""
        self.retrying.discard(trials)

    def over(self, trials: Trials, ending: Ending, status: int | None) -> None:
        """A request whose first attempt failed is over; nothing happens if that was told already.

        Args:
            trials: What it has been through.
            ending: How its last attempt ended.
            status: The HTTP status of the answer that the client got from it, None if it got none.
        """
        self.retrying.discard(trials)
        if not trials.is_retried:
            return
        trials.is_retried = False
        result = "failed"
        if ending is Ending.CLIENT_GONE:
            result = "cancelled"
        elif ending is Ending.COMPLETE and status not in self.rules.statuses:
            result = "served"
        self.results[result] += 1

    def wait(self, exchange: Exchange, delay_s: float, go_on: Callable[[Ending | None], None]) -> None:
        """Have a request wait; its client's leaving ends that.

        Args:
            exchange: The request.
            delay_s: How long.
            go_on: Called with None when the time has come, else with what ended the request meanwhile.
        """
        pause = Pause(self._scheduler, delay_s, go_on)
        exchange.forward(pause, pause)

    def _may_retry(self, trials: Trials) -> bool:
        rules, retrying = self.rules, self.retrying
        allowed = max(rules.budget_floor, rules.budget_share * (self._in_flight() + len(retrying)))
        if trials in retrying or len(retrying) < allowed:
            return True
        self._refuse("budget")
        return False

    def _begin(self, trials: Trials, failure: Failure) -> None:
        self.retrying.add(trials)
        self._count(trials, failure)

    def _count(self, trials: Trials, failure: Failure) -> None:
        trials.is_retried = True
        self.granted[failure.name.lower()] += 1

    def _refuse(self, reason: str) -> None:
        self.refused[reason] += 1

    def _pause_s(self, number: int) -> float:
        rules = self.rules
        pause_s = min(rules.max_backoff_s, rules.initial_backoff_s * rules.multiplier**number)
        return pause_s * self._random.uniform(1 - rules.jitter, 1 + rules.jitter)
