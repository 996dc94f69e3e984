"""What every policy must do, as plain functions: each takes a `Subject` and raises AssertionError with one sentence.

Free of pytest, so any test runner may call them. Scenarios named after public bugs are in `regressions`.
"""

from __future__ import annotations

import copy
import gc
import itertools
import random
import sys
import threading
import tracemalloc
from collections import Counter, deque
from collections.abc import Sequence

from router_core.contract.errors import UndeclaredNeedError
from router_core.contract.request import OutcomeStatus
from router_core.contract.worker import EngineTelemetry
from router_core.plugin_host.slips import find_slips
from router_core.testing.subject import PAIR_POOL, Subject, traffic

_ODD_TEXTS = {
    "empty": "",
    "blank": " \n\t",
    "one character": "x",
    "huge": "All work and no play. " * 50_000,
    "beyond ASCII": "深圳 😀 e\u0301 \u202e שלום " * 300,
    "lone surrogates": "\ud800 x \udfff " * 300,
    "control characters": "\x00\x01\x7f\ufeff" * 600,
}

_PLAIN = (int, float, str, bytes, tuple, list, dict, set, frozenset, bytearray, deque)


def check_has_no_contract_slips(subject: Subject) -> None:
    """Nothing about the class would be skipped silently: misspelt hooks, missing marks, wrong parameters."""
    slips = find_slips(subject.policy_class, kind="policy", needs_pair=subject.roles == PAIR_POOL)
    if slips:
        raise AssertionError("\n".join(slips))


def check_options_are_documented(subject: Subject) -> None:
    """Every option has a description and a default that constructs."""
    config_class = getattr(subject.policy_class, "Config", None)
    if config_class is None:
        return
    place = f"{subject.policy_class.__name__}.Config"
    for name, option in config_class.model_fields.items():
        if not option.description:
            raise AssertionError(f"{place}.{name} has no description: put a docstring under the field")
        if option.is_required():
            raise AssertionError(f"{place}.{name} has no default: `policy: <name>` alone must work")
    subject.policy_class(config_class())


def check_reads_only_declared_needs(subject: Subject) -> None:
    """What it reads of a request is what `needs` declares; nothing else is computed or polled for it."""
    with subject.harness() as harness:
        try:
            for _ in traffic(harness, subject.requests(), seed=1, steps=100):
                pass
        except UndeclaredNeedError as error:
            raise AssertionError(f"{subject.policy_class.__name__}: {error}") from error


def check_picks_only_candidates(subject: Subject) -> None:
    """Each pick is one of the candidates, of the right role; the harness raises otherwise."""
    with subject.harness(5) as harness:
        for _ in traffic(harness, subject.requests(), seed=2, churn=False):
            pass


def check_takes_the_only_candidate(subject: Subject) -> None:
    """With one candidate of each role there is no choice, however busy it is."""
    with subject.harness(1) as harness:
        requests = subject.requests()
        for index in range(50):
            if not harness.send(requests.distinct()):
                raise AssertionError(f"request {index} was refused although its only worker is healthy and was offered")


def check_survives_a_thousand_workers(subject: Subject) -> None:
    """A large fleet is placed on like a small one."""
    with subject.harness(1000) as harness:
        for _ in traffic(harness, subject.requests(), seed=3, steps=100):
            pass


def check_never_picks_a_departed_worker(subject: Subject) -> None:
    """A worker that left is never chosen again, not even for what it used to serve; what it still runs may end."""
    with subject.harness(4) as harness:
        requests = subject.requests()
        running = [attempt for key in range(80) for attempt in harness.send(requests.distinct(key, characters=5000))]
        for role in subject.roles:
            departing = harness.candidates(role)[0]
            harness.remove_worker(departing)
            for key in range(80):
                for attempt in harness.send(requests.distinct(key, characters=5000)):
                    if attempt.worker is departing:
                        raise AssertionError(f"{departing.url} was chosen after it had left")
                    attempt.complete()
        for attempt in running:
            attempt.complete(OutcomeStatus.ERROR)


def check_survives_churn(subject: Subject) -> None:
    """Members join, leave, fail and recover under load, and an address that left may join anew."""
    for seed in range(5):
        with subject.harness(4, seed=seed) as harness:
            for _ in traffic(harness, subject.requests(), seed=seed):
                pass


def check_recovered_worker_serves_again(subject: Subject) -> None:
    """A worker that was unhealthy for a moment gets requests again."""
    with subject.harness(3) as harness:
        requests = subject.requests()
        for role in subject.roles:
            worker = harness.candidates(role)[1]
            for healthy in (True, False, True):
                harness.set_health(worker, healthy=healthy)
                held = [attempt for _ in range(60) for attempt in harness.send(requests.distinct())]
                for attempt in held:
                    attempt.complete()
            if not any(attempt.worker is worker for attempt in held):
                raise AssertionError(f"{worker.url} recovered, and none of the next 60 requests went to it")


def check_repeats_under_equal_seed(subject: Subject) -> None:
    """Equal seed and equal history give equal choices: randomness comes from `pool.random` alone."""
    before = random.getstate()
    try:
        runs: list[list[str]] = []
        for global_seed in (1, 2):
            random.seed(global_seed)
            with subject.harness(5, seed=7) as harness:
                runs.append(list(traffic(harness, subject.requests(), seed=4)))
    finally:
        random.setstate(before)
    _require_equal(
        runs[0], runs[1], "two runs with one seed chose differently: draw from pool.random, read time from pool.now()"
    )


def check_instances_share_nothing(subject: Subject) -> None:
    """A second instance in the process changes nothing for the first, though its workers have the same addresses."""
    before = _shared_state(subject.policy_class)
    prefix = f"shared by {len(subject.roles)}"  # names no other check has used, so that a shared dict must grow
    with subject.harness(4, seed=7) as harness:
        alone = list(traffic(harness, subject.requests(prefix), seed=5, churn=False))
    with subject.harness(4, seed=7) as harness, subject.harness(4, seed=8) as other:
        beside = []
        others = traffic(other, subject.requests(prefix), seed=6, churn=False)
        for index, pick in enumerate(traffic(harness, subject.requests(prefix), seed=5, churn=False)):
            beside.append(pick)
            for _ in itertools.islice(others, index % 3):
                pass
    _require_equal(alone, beside, "an instance chose differently beside another one: keep state on self")
    after = _shared_state(subject.policy_class)
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        raise AssertionError(f"{', '.join(changed)} changed while an instance worked: keep state on self")


def check_legs_share_no_state(subject: Subject) -> None:
    """Placing one leg does not steer the other: with two workers a leg, all four get work."""
    with subject.harness(2) as harness:
        requests = subject.requests()
        used = Counter(a.worker.url for _ in range(100) for a in harness.send(requests.distinct()))
        for worker in harness.workers:
            if not used[worker.url]:
                raise AssertionError(
                    f"{worker.url} got none of 100 requests with {len(subject.roles)} leg(s) each: keep state by leg"
                )


def check_load_returns_to_zero(subject: Subject) -> None:
    """After successes, errors, time-outs and cancellations nothing is left in flight, and placing goes on."""
    with subject.harness(4) as harness:
        requests = subject.requests()
        for _ in traffic(harness, requests, seed=9):
            pass
        for worker in harness.workers:
            figures = worker.load, worker.pending_prompt_tokens, worker.decode_tokens
            if any(figures):
                raise AssertionError(f"{worker!r} is idle, and its figures say {figures}")
        if not harness.serve(requests.distinct()):
            raise AssertionError(
                "an idle fleet was refused after a mixed hour: something is counted and never released"
            )


def check_copes_without_telemetry(subject: Subject) -> None:
    """Telemetry may be missing: for all, for some, whole or figure by figure, and it may be hours old."""
    readings = (
        None,
        EngineTelemetry(0.0),
        EngineTelemetry(0.0, running_requests=3),
        EngineTelemetry(0.0, 3, 2, 4000, 0.5),
    )
    with subject.harness(4) as harness:
        requests = subject.requests()
        for shift in range(len(readings)):
            for index, worker in enumerate(harness.workers):
                harness.set_engine(worker, readings[(index + shift) % len(readings)] if shift else None)
            for _ in range(20):
                harness.serve(requests.distinct())
            harness.pool.advance(3600)


def check_copes_with_odd_prompts(subject: Subject) -> None:
    """Empty, huge and non-ASCII text, and the lone surrogates JSON may carry, are placed like any other."""
    with subject.harness() as harness:
        requests = subject.requests()
        for name, text in _ODD_TEXTS.items():
            word = text[:20]
            for request in (requests.plain(text), requests.plain(text, user=word, session=word, model=word)):
                try:
                    harness.serve(request)
                except Exception as error:
                    error.add_note(f"the prompt was: {name}")
                    raise


def check_copes_with_anonymous_requests(subject: Subject) -> None:
    """A request may name no model, user or session and carry none of the headers the policy looks for."""
    with subject.harness() as harness:
        requests = subject.requests()
        for _ in range(20):
            if not harness.serve(requests.plain("Hello")):
                raise AssertionError("a request that names no model, user, session or header was refused")


def check_memory_stays_bounded(subject: Subject, placements: int = 12_000, slack_bytes: int = 160 * 1024) -> None:
    """What a policy remembers stops growing: half of many distinct requests, a second apart, fill it, the rest do not.

    A policy with a large capacity is given a small one by `memory_options`.

    Args:
        subject: What is checked.
        placements: How many, over all legs.
        slack_bytes: How much the second half may add.
    """
    maker = subject.requests()
    half = placements // len(subject.roles) // 2
    reads_prompts = bool({"text", "prefix"} & subject.needs)
    with subject.harness(options=subject.memory_options) as harness:
        tracing = tracemalloc.is_tracing()
        if not tracing:
            tracemalloc.start()
        try:
            sizes = []
            for _ in range(2):
                for _ in range(half):
                    harness.serve(maker.distinct(characters=2100 if reads_prompts else 0))
                    harness.pool.advance(1.0)
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            if not tracing:
                tracemalloc.stop()
    growth = sizes[1] - sizes[0]
    if growth > slack_bytes:
        raise AssertionError(
            f"memory grew by {growth // 1024} KiB from request {half} to {2 * half}, all distinct: "
            "bound what is remembered; if it is bounded, set memory_options to a capacity that is reached sooner"
        )


def check_stops_cleanly(subject: Subject) -> None:
    """Starting and stopping leaves no thread behind, and timers run without requests and after them."""
    before = set(threading.enumerate())
    with subject.harness() as harness:
        harness.pool.advance(3600)
        for _ in traffic(harness, subject.requests(), seed=10, steps=50):
            pass
        harness.pool.advance(3600)
    left = set(threading.enumerate()) - before
    if left:
        raise AssertionError(f"threads were left behind: {sorted(t.name for t in left)}; use pool.every, and on_stop")


def _shared_state(policy_class: type) -> dict[str, object]:
    """Return a copy of what all instances see and could change: plain values on the class and in its module."""
    state: dict[str, object] = {}
    for owner in policy_class.__mro__[:-1]:
        for place, names in (
            (owner.__qualname__, vars(owner)),
            (owner.__module__, vars(sys.modules[owner.__module__])),
        ):
            for name, value in names.items():
                if not name.startswith("__") and isinstance(value, _PLAIN):
                    state[f"{place}.{name}"] = copy.copy(value)
    return state


def _require_equal(first: Sequence[str], second: Sequence[str], sentence: str) -> None:
    for index, (one, two) in enumerate(zip(first, second, strict=True)):
        if one != two:
            raise AssertionError(f"{sentence} (pick {index}: {one}, then {two})")
