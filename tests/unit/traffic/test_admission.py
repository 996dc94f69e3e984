"""Who is let in, who waits, who goes first and who is turned away; and that every place is given back once."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from router_core.config import AdmissionConfig, ApiKey
from router_core.traffic.admission import Admission
from router_core.traffic.rate import RateLimit


class Loop:
    """An event loop whose time a test moves."""

    def __init__(self):
        self.now = 100.0
        self.timers = []
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay, callback):
        self.timers.append(timer := (self.now + delay, len(self.timers), callback))
        return timer

    def turn(self):
        while self.soon:
            self.soon.pop(0)()

    def wait(self, seconds):
        end = self.now + seconds
        self.turn()
        while due := [timer for timer in self.timers if timer[0] <= end]:
            first = min(due)
            self.timers.remove(first)
            self.now = max(self.now, first[0])
            first[2]()
            self.turn()
        self.now = end


class Request:
    """An exchange, as admission sees it."""

    tail = b""

    def __init__(self, tokens=10, key=None, priority=None):
        fields = {} if priority is None else {b"x-request-priority": priority.encode()}
        self.head = SimpleNamespace(fields=fields)
        self.body = b"x" * (tokens * 4)
        self.principal = key
        self.on_over = None
        self.status = None
        self.headers = {}

    def refuse(self, status, code, message, headers=()):
        assert self.status is None
        self.status = status
        self.headers = dict(headers)
        self.end()

    def end(self, status=200):
        self.status = self.status or status
        if self.on_over is not None:
            self.on_over()
        assert self.on_over is None


class Gate:
    """Admission over a dispatcher that only collects."""

    def __init__(self, *keys, dispatch=None, **settings):
        self.loop = Loop()
        self.started = []
        self.waits = []
        self.admission = Admission(
            AdmissionConfig(**settings),
            [ApiKey(name=name, key=f"sk-{name}", **limits) for name, limits in keys],
            dispatch=dispatch or self.started.append,
            loop=self.loop,
            waited=self.waits.append,
        )

    def send(self, *args, **kwargs):
        request = Request(*args, **kwargs)
        self.admission.admit(request)
        return request

    def end(self, request, status=200):
        request.end(status)
        self.loop.turn()

    @property
    def results(self):
        total = Counter()
        for (_, result), times in self.admission.results.items():
            total[result] += times
        return total

    def is_empty(self):
        admission = self.admission
        return admission.running == admission.waiting == 0 and not any(f.running for f in admission._flows.values())


def test_without_a_limit_admission_is_not_needed():
    assert not Gate().admission.is_needed
    assert not Gate(("a", {"weight": 2})).admission.is_needed
    assert Gate(max_concurrent_requests=1).admission.is_needed
    assert Gate(tokens_per_s=1).admission.is_needed
    assert Gate(("a", {"requests_per_s": 1})).admission.is_needed


def test_as_many_run_as_the_cap_says_and_the_next_begins_when_one_ends():
    gate = Gate(max_concurrent_requests=2)
    requests = [gate.send() for _ in range(4)]
    assert gate.started == requests[:2]
    assert (gate.admission.running, gate.admission.waiting) == (2, 2)
    gate.loop.wait(3)
    gate.end(requests[1])
    assert gate.started == requests[:3]
    for request in (requests[0], requests[2], requests[3]):
        gate.end(request)
    assert gate.is_empty()
    assert gate.results == {"admitted": 4}
    assert gate.waits == [3, 3]


def test_a_full_queue_answers_429_with_a_time_to_come_back():
    gate = Gate(max_concurrent_requests=1, queue_size=1)
    first, _, third = gate.send(), gate.send(), gate.send()
    assert (third.status, third.headers) == (429, {"Retry-After": "1"})
    assert gate.started == [first]
    assert gate.results == {"admitted": 1, "queue_full": 1}


def test_without_a_queue_nobody_waits():
    gate = Gate(max_concurrent_requests=1, queue_size=0)
    first, second = gate.send(), gate.send()
    assert second.status == 429
    gate.end(first)
    assert gate.send().status is None
    assert not gate.loop.timers


def test_who_waits_too_long_is_answered_408_and_the_others_stay():
    gate = Gate(max_concurrent_requests=1, queue_timeout_s=10)
    gate.send()
    second = gate.send()
    gate.loop.wait(4)
    third = gate.send()
    gate.loop.wait(6.5)
    assert (second.status, third.status) == (408, None)
    gate.loop.wait(4)
    assert third.status == 408
    assert gate.admission.waiting == 0
    assert gate.results == {"admitted": 1, "queue_timeout": 2}
    assert len(gate.loop.timers) == 0


def test_one_timer_serves_a_whole_queue():
    gate = Gate(max_concurrent_requests=1)
    for _ in range(50):
        gate.send()
    assert len(gate.loop.timers) == 1


def test_a_client_that_leaves_the_queue_frees_its_place_at_once():
    gate = Gate(max_concurrent_requests=1, queue_size=1)
    first, second = gate.send(), gate.send()
    second.end()
    third = gate.send()
    assert third.status is None
    gate.end(first)
    assert gate.started == [first, third]
    assert gate.results == {"admitted": 2, "left": 1}


# --- between keys ---


def test_a_flood_of_one_key_does_not_hold_up_the_other():
    gate = Gate(("a", {}), ("b", {}), max_concurrent_requests=1)
    running = gate.send(key="a")
    for _ in range(20):
        gate.send(key="a")
    late = gate.send(key="b")
    gate.end(running)
    gate.end(gate.started[-1])
    assert late in gate.started


def test_turns_follow_tokens_not_requests():
    gate = Gate(("large", {}), ("small", {}), max_concurrent_requests=1, queue_size=500)
    running = gate.send(key="large")
    for _ in range(100):
        gate.send(tokens=1000, key="large")
        gate.send(tokens=100, key="small")
    for _ in range(56):
        gate.end(running, 400)
        running = gate.started[-1]
    served = Counter()
    for request in gate.started[1:]:
        served[request.principal] += len(request.body) // 4
    assert served["small"] == pytest.approx(served["large"], abs=1100)


def test_answers_count_too():
    gate = Gate(("talks", {}), ("listens", {}), max_concurrent_requests=1, queue_size=500)
    running = gate.send(key="talks")
    for _ in range(40):
        gate.send(tokens=100, key="talks").tail = b'"usage":{"completion_tokens":100}'
        gate.send(tokens=100, key="listens").tail = b'"usage":{"completion_tokens":0}'
    for _ in range(40):
        gate.end(running)
        running = gate.started[-1]
    turns = Counter(request.principal for request in gate.started[1:])
    assert turns["listens"] == pytest.approx(3 * turns["talks"], abs=4)  # 100 against 100 + 2 * 100 each


def test_turns_follow_weights():
    gate = Gate(("a", {"weight": 3}), ("b", {}), max_concurrent_requests=1, queue_size=500)
    running = gate.send(key="b")
    for _ in range(80):
        gate.send(key="a")
        gate.send(key="b")
    for _ in range(80):
        gate.end(running, 400)
        running = gate.started[-1]
    turns = Counter(request.principal for request in gate.started[1:])
    assert turns["a"] == pytest.approx(60, abs=2)


def test_nobody_saves_up_turns_while_idle():
    gate = Gate(("busy", {}), ("idle", {}), max_concurrent_requests=1, queue_size=500)
    for _ in range(100):
        gate.end(gate.send(tokens=1000, key="busy"), 400)
    running = gate.send(key="busy")
    for _ in range(20):
        gate.send(key="busy")
        gate.send(key="idle")
    for _ in range(20):
        gate.end(running, 400)
        running = gate.started[-1]
    turns = Counter(request.principal for request in gate.started[101:])
    assert abs(turns["busy"] - turns["idle"]) <= 2


def test_a_full_queue_turns_away_the_newest_of_whoever_fills_it():
    gate = Gate(("a", {}), ("b", {}), max_concurrent_requests=1, queue_size=4)
    gate.send(key="a")
    flood = [gate.send(key="a") for _ in range(4)]
    first, second, third = (gate.send(key="b") for _ in range(3))
    assert [request.status for request in flood] == [None, None, 429, 429]
    assert [first.status, second.status, third.status] == [None, None, 429]
    assert gate.send(key="a").status == 429


def test_a_key_keeps_to_its_own_concurrency_and_the_others_pass_it():
    gate = Gate(("a", {"max_concurrent_requests": 1}), ("b", {}), max_concurrent_requests=10)
    first, second = gate.send(key="a"), gate.send(key="a")
    other = gate.send(key="b")
    assert gate.started == [first, other]
    gate.end(other)
    assert gate.started == [first, other]
    gate.end(first)
    assert gate.started == [first, other, second]


def test_those_a_full_queue_holds_back_by_their_own_limit_do_not_close_it_to_others():
    gate = Gate(("a", {"max_concurrent_requests": 1}), ("b", {}), max_concurrent_requests=10, queue_size=1)
    gate.send(key="a")
    waiting = gate.send(key="a")
    assert gate.send(key="b").status is None
    assert waiting.status is None
    assert gate.admission.running == 2


def test_a_key_over_its_rate_is_turned_away_at_once_and_told_when_to_return():
    gate = Gate(("a", {"requests_per_s": 2}), ("b", {"tokens_per_s": 100}))
    assert [gate.send(key="a").status for _ in range(3)] == [None, None, 429]
    gate.loop.wait(0.5)
    assert [gate.send(key="a").status for _ in range(2)] == [None, 429]
    assert gate.send(tokens=500, key="b").status is None  # more than a second's worth overdraws
    refused = gate.send(key="b")
    assert (refused.status, refused.headers) == (429, {"Retry-After": "5"})
    gate.loop.wait(4.2)
    assert gate.send(key="b").status is None
    assert gate.results["rate_limited"] == 3


def test_new_keys_bring_new_limits_and_what_runs_goes_on():
    gate = Gate(("a", {"max_concurrent_requests": 1}), ("gone", {}))
    first, second, third = gate.send(key="a"), gate.send(key="a"), gate.send(key="gone")
    gate.admission.set_keys([ApiKey(name="a", key="sk-a", max_concurrent_requests=2)])
    gate.loop.turn()
    assert gate.started == [first, third, second]
    for request in (first, second, third):
        gate.end(request)
    assert gate.is_empty()


# --- priorities ---


def test_higher_priorities_go_first():
    gate = Gate(max_concurrent_requests=1)
    running = gate.send()
    low, plain, odd, high = (gate.send(priority=word) for word in ("low", None, "urgent!", "HIGH"))
    for _ in range(4):
        gate.end(running)
        running = gate.started[-1]
    assert gate.started[1:] == [high, plain, odd, low]


def test_a_key_asks_for_no_more_than_it_may():
    gate = Gate(
        ("plain", {}), ("vip", {"max_priority": "high"}), ("bulk", {"max_priority": "low"}), max_concurrent_requests=1
    )
    running = gate.send(key="plain")
    bulk = gate.send(key="bulk", priority="high")
    plain = gate.send(key="plain", priority="high")
    vip = gate.send(key="vip", priority="high")
    for _ in range(3):
        gate.end(running)
        running = gate.started[-1]
    assert gate.started[1:] == [vip, plain, bulk]


def test_in_a_full_queue_the_lowest_priority_makes_room():
    gate = Gate(max_concurrent_requests=1, queue_size=2)
    gate.send()
    low, plain = gate.send(priority="low"), gate.send()
    high = gate.send(priority="high")
    assert [low.status, plain.status, high.status] == [429, None, None]
    assert gate.send(priority="low").status == 429


# --- rates of the router ---


def test_over_the_rate_of_the_router_requests_wait_in_line():
    gate = Gate(requests_per_s=2)
    requests = [gate.send() for _ in range(5)]
    assert gate.started == requests[:2]
    gate.loop.wait(0.6)
    assert gate.started == requests[:3]
    gate.loop.wait(1)
    assert gate.started == requests[:5]


def test_a_large_prompt_at_the_head_is_not_overtaken_for_ever():
    gate = Gate(tokens_per_s=100)
    gate.send(tokens=100)
    large = gate.send(tokens=1000)
    small = gate.send(tokens=1)
    gate.loop.wait(0.5)
    assert len(gate.started) == 1
    gate.loop.wait(0.6)
    assert gate.started[1:] == [large]
    gate.loop.wait(10)
    assert gate.started[1:] == [large, small]


def test_a_rate_holds_over_time():
    limit = RateLimit(10, 0.0)
    taken = 0
    for step in range(1000):
        if limit.wait_s(3, step / 100) == 0:
            limit.take(3)
            taken += 3
    assert 100 <= taken <= 113


# --- troubles ---


def test_a_request_that_fails_at_once_does_not_deepen_the_stack():
    gate = Gate(max_concurrent_requests=1, queue_size=5000)
    first = gate.send()
    gate.admission._dispatch = lambda request: request.end(503)
    for _ in range(5000):
        gate.send()
    gate.end(first)
    assert gate.is_empty()


def test_a_dispatch_that_raises_leaves_nobody_waiting():
    gate = Gate(max_concurrent_requests=1)
    first, second, third = gate.send(), gate.send(), gate.send()

    def dispatch(request):
        if request is second:
            request.end(500)
            raise RuntimeError("a bug")
        gate.started.append(request)

    gate.admission._dispatch = dispatch
    first.end()
    with pytest.raises(RuntimeError):
        gate.loop.turn()
    gate.loop.turn()
    assert gate.started == [first, third]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_place_is_given_back_once(seed):
    chance = random.Random(seed)
    gate = Gate(
        ("a", {"max_concurrent_requests": 3, "weight": 2}),
        ("b", {"requests_per_s": 50, "tokens_per_s": 500}),
        ("c", {"max_priority": "low"}),
        max_concurrent_requests=5,
        queue_size=chance.choice([0, 3, 30]),
        queue_timeout_s=1,
        requests_per_s=chance.choice([None, 40]),
        tokens_per_s=chance.choice([None, 2000]),
    )
    sent = []
    for _ in range(2000):
        match chance.randrange(4):
            case 0 | 1:
                key = chance.choice([None, "a", "b", "c"])
                priority = chance.choice([None, "high", "low"])
                sent.append(gate.send(tokens=chance.randrange(200), key=key, priority=priority))
            case 2:
                open_requests = [request for request in sent if request.on_over is not None]
                if open_requests:
                    chance.choice(open_requests).end(chance.choice([200, 502]))
            case 3:
                gate.loop.wait(chance.random() / 10)
        admission = gate.admission
        assert admission.running == sum(flow.running for flow in admission._flows.values()) <= 5
        assert admission.waiting <= admission._queue_size
        assert admission._flows["a"].running <= 3
    for _ in range(10):
        for request in sent:
            if request.on_over is not None:
                request.end()
        gate.loop.wait(2)
    assert gate.is_empty()
    assert sum(gate.results.values()) == len(sent)
    assert not any(level for level in gate.admission._queue._levels)
    assert all(request.status is not None for request in sent)
