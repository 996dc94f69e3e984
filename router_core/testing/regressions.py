"""Scenarios in which routers in the field went wrong, each named after what users saw, with where it was reported.

Not every policy must pass every one: a test class says so, with a reason, in `exempt`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from router_core.contract.request import RoutingRequest
from router_core.contract.worker import EngineTelemetry, Worker, WorkerRole
from router_core.testing.subject import RequestMaker, Subject, picks_of

# Most clients name nobody: what a policy does for those is most of what it does.
_KINDS_OF_CLIENTS: tuple[tuple[Callable[[RequestMaker], RoutingRequest], str], ...] = (
    (lambda requests: requests.distinct(), "of clients with names"),
    (lambda requests: requests.anonymous(), "that name nobody"),
)


def check_spreads_when_idle(subject: Subject) -> None:
    """All to one: at low concurrency every request found all workers equal and took the first (sglang #32983)."""
    for make, whose in _KINDS_OF_CLIENTS:
        with subject.harness(4) as harness:
            requests = subject.requests()
            picks = [worker for _ in range(200) for worker in harness.serve(make(requests))]
            _require_share(subject.roles, picks, 0.6, f"of 200 requests {whose}, one after the other,")


def check_spreads_a_burst(subject: Subject) -> None:
    """The herd: requests that came together all saw the same idle worker (vllm-router #177, llm-d-router #1599)."""
    for make, whose in _KINDS_OF_CLIENTS:
        with subject.harness(4) as harness:
            requests = subject.requests()
            attempts = [attempt for _ in range(100) for attempt in harness.send(make(requests))]
            _require_share(subject.roles, picks_of(attempts), 0.6, f"of 100 requests {whose} at once")


def check_fresh_worker_is_not_flooded(subject: Subject) -> None:
    """The death spiral: a restarted worker had the smallest tree and drew everything (sglang #14305, #14532)."""
    with subject.harness(4) as harness:
        requests = subject.requests()
        for _ in range(400):
            harness.serve(requests.distinct(characters=3000))
        for role in subject.roles:
            old = harness.candidates(role)[0]
            harness.remove_worker(old)
            harness.add_worker(Worker(old.url, role=role, models=old.models))
        picks = [worker for _ in range(200) for worker in harness.serve(requests.distinct(characters=3000))]
        _require_share(subject.roles, picks, 0.6, "of 200 requests after a worker restarted")


def check_blip_does_not_make_idle(subject: Subject) -> None:
    """The counter reset: a health check zeroed live counts, and the busiest looked idle (vllm-router #197)."""
    with subject.harness(4) as harness:
        requests = subject.requests()
        for _ in range(80):
            harness.send(requests.distinct())
        for role in subject.roles:
            worker = harness.candidates(role)[0]
            harness.set_health(worker, healthy=False)
            harness.set_health(worker, healthy=True)
        attempts = [attempt for _ in range(60) for attempt in harness.send(requests.distinct())]
        _require_share(subject.roles, picks_of(attempts), 0.6, "of 60 requests after a busy worker's health blipped")


def check_unknown_load_is_not_idle(subject: Subject) -> None:
    """Minus one: a failed poll was stored as a number below every real load (sglang #28634, #32070)."""
    with subject.harness(4) as harness:
        for worker in harness.workers:
            harness.set_engine(worker, EngineTelemetry(0.0, 8, 4, 20_000, 0.6))
        for role in subject.roles:
            harness.set_engine(harness.candidates(role)[0], None)
        requests = subject.requests()
        attempts = [attempt for _ in range(100) for attempt in harness.send(requests.distinct())]
        _require_share(
            subject.roles, picks_of(attempts), 0.6, "of 100 requests while one worker told nothing of itself"
        )


def check_orphans_are_spread(subject: Subject) -> None:
    """First healthy: what a departed worker had served all went to the first one left (sgl-router cache_aware)."""
    with subject.harness(4) as harness:
        requests = subject.requests()
        homes = [harness.serve(requests.distinct(key, characters=3000)) for key in range(400)]
        for position, role in enumerate(subject.roles):
            gone = Counter(home[position].url for home in homes if home).most_common(1)[0][0]
            harness.remove_worker(next(worker for worker in harness.workers if worker.url == gone))
            orphans = [key for key, home in enumerate(homes) if home and home[position].url == gone]
            served = [harness.serve(requests.distinct(key, characters=3000)) for key in orphans]
            picks = [workers[position] for workers in served if workers]
            _require_share([role], picks, 0.75, f"of {len(orphans)} orphans of {gone}")


def check_affinity_holds_while_idle(subject: Subject) -> None:
    """What belongs together stays together on an idle fleet."""
    _check_affinity(subject, "idle")


def check_affinity_survives_a_hot_worker(subject: Subject) -> None:
    """One hot worker switched affinity off for the whole fleet (vllm-router #238, sglang #32195)."""
    _check_affinity(subject, "hot")


def check_affinity_survives_a_blip(subject: Subject) -> None:
    """One request during a health blip made the router forget all a worker had cached (vllm-router, sgl-router)."""
    _check_affinity(subject, "blip")


def _check_affinity(subject: Subject, trouble: str) -> None:
    """Give keys their homes, make trouble for one worker, and ask whether the keys it does not concern come home."""
    if subject.affinity is None:
        return
    with subject.harness(4) as harness:
        requests = subject.requests()
        rng = random.Random(11)  # noqa: S311  repeats, guards nothing
        homes: dict[int, tuple[Worker, ...]] = {}
        for _ in range(2):
            for key in rng.sample(range(40), 40):
                homes[key] = harness.serve(requests.of(subject.affinity, key))
        troubled = {home[-1] for home in homes.values() if home}.pop()
        concerned = [key for key, home in homes.items() if home and home[-1] is troubled]
        if trouble == "hot":
            for _ in range(100):  # a policy that lets go before that has let go: no more is needed
                for attempt in harness.send(requests.of(subject.affinity, concerned[0])):
                    if attempt.worker is not troubled:
                        attempt.complete()
        if trouble == "blip":
            harness.set_health(troubled, healthy=False)
            homes[concerned[0]] = harness.serve(requests.of(subject.affinity, concerned[0]))
            harness.set_health(troubled, healthy=True)
        asked = [
            key
            for key in rng.sample(range(40), 40)
            if trouble == "idle" or (key in concerned[1:]) == (trouble == "blip")
        ]
        kept = sum(harness.serve(requests.of(subject.affinity, key)) == homes[key] for key in asked)
    if kept < 0.8 * len(asked):
        raise AssertionError(f"only {kept} of {len(asked)} {subject.affinity}s came back to their worker ({trouble})")


def _require_share(roles: Iterable[WorkerRole], picks: Sequence[Worker], limit: float, scene: str) -> None:
    """Demand that no worker got more than `limit` of what its role got."""
    for role in roles:
        counts = Counter(worker.url for worker in picks if worker.role is role)
        total = sum(counts.values())
        if not total:
            raise AssertionError(f"{scene} none was placed on a {role.value} worker")
        url, most = counts.most_common(1)[0]
        if total > 10 and most > limit * total:
            raise AssertionError(f"{scene} {most} of {total} placed on {role.value} workers went to {url}")
