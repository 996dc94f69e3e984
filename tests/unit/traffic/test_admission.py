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
        self.count = 0
        self.soon = []

    def time(self):
        return self.now

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, delay, callback):
        self.count += 1
        timer = (self.now + delay, self.count, callback)
        self.timers.append(timer)
        return SimpleNamespace(cancel=lambda: self.timers.remove(timer))

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


def api_keys(keys):
    return [ApiKey(name=name, key=f"sk-{name}", **limits) for name, limits in keys]


class Gate:
    """Admission over a dispatcher that only collects."""

    def __init__(self, *keys, dispatch=None, **settings):
        self.loop = Loop()
        self.started = []
        self.waits = []
        self.admission = Admission(
            AdmissionConfig(**settings),
            api_keys(keys),
            dispatch=dispatch or self.started.append,
            loop=self.loop,
            waited=self.waits.append,
        )

    def set_limits(self, *keys, **settings):
        self.admission.set_limits(AdmissionConfig(**settings), api_keys(keys))
        self.loop.turn()

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
            if not times:
                continue
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
    gate.set_limits(("a", {"max_concurrent_requests": 2}))
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


# --- limits that change ---


def test_a_cap_below_what_runs_lets_nobody_in_until_enough_have_ended():
    gate = Gate(max_concurrent_requests=4, queue_size=10)
    requests = [gate.send() for _ in range(6)]
    gate.set_limits(max_concurrent_requests=2, queue_size=10)
    assert (gate.admission.running, gate.admission.waiting) == (4, 2)
    for ended, started in ((1, 4), (2, 4), (3, 5), (4, 6)):
        gate.end(requests[ended - 1])
        assert len(gate.started) == started
    for request in requests[4:]:
        gate.end(request)
    assert gate.is_empty()


@pytest.mark.parametrize("limits", [{"max_concurrent_requests": 3}, {"requests_per_s": 100}, {}])
def test_a_cap_that_is_raised_or_gone_wakes_those_who_wait(limits):
    gate = Gate(max_concurrent_requests=1)
    requests = [gate.send() for _ in range(3)]
    gate.set_limits(**limits)
    assert gate.started == requests
    assert gate.admission.is_needed is bool(limits)
    for request in requests:
        gate.end(request)
    assert gate.is_empty()


def test_a_rate_that_is_raised_or_gone_wakes_those_who_wait_for_it():
    for limits in ({"requests_per_s": 1000}, {}):
        gate = Gate(requests_per_s=0.01)
        requests = [gate.send() for _ in range(2)]
        assert gate.started == requests[:1]
        gate.set_limits(**limits)
        gate.loop.wait(0.01)
        assert gate.started == requests


def test_a_rate_that_stays_is_not_given_back_what_was_taken():
    gate = Gate(("a", {"requests_per_s": 1}), requests_per_s=2)
    assert gate.send(key="a").status is None
    for _ in range(3):
        gate.set_limits(("a", {"requests_per_s": 1}), requests_per_s=2)
    assert gate.send(key="a").status == 429
    gate.send()
    gate.send()
    assert gate.admission.waiting == 1


def test_who_waits_waits_no_longer_than_is_said_now():
    gate = Gate(max_concurrent_requests=1, queue_timeout_s=60)
    gate.send()
    waiting = gate.send()
    gate.loop.wait(5)
    gate.set_limits(max_concurrent_requests=1, queue_timeout_s=10)
    gate.loop.wait(4)
    assert waiting.status is None
    gate.loop.wait(1.5)
    assert waiting.status == 408
    waiting = gate.send()
    gate.set_limits(max_concurrent_requests=1, queue_timeout_s=100)
    gate.loop.wait(99)
    assert waiting.status is None
    gate.loop.wait(2)
    assert waiting.status == 408


def test_who_waits_keeps_the_place_in_a_queue_that_was_made_smaller():
    gate = Gate(max_concurrent_requests=1, queue_size=3)
    requests = [gate.send() for _ in range(4)]
    gate.set_limits(max_concurrent_requests=1, queue_size=1)
    assert gate.admission.waiting == 3
    assert gate.send().status == 429
    for request in requests:
        assert request.status is None
        gate.end(request)
    assert gate.started == requests
    assert gate.is_empty()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_limits_come_and_go_every_place_is_given_back_once(seed):
    chance = random.Random(seed)
    gate = Gate(max_concurrent_requests=2)
    sent = []
    for _ in range(1500):
        match chance.randrange(5):
            case 0 | 1:
                sent.append(gate.send(tokens=chance.randrange(200), key=chance.choice([None, "a", "b", "c"])))
            case 2:
                if open_requests := [request for request in sent if request.on_over is not None]:
                    chance.choice(open_requests).end(chance.choice([200, 502]))
            case 3:
                gate.loop.wait(chance.random() / 5)
            case 4 if chance.random() < 0.2:
                limits = {
                    "max_concurrent_requests": chance.choice([None, 1, 9]),
                    "requests_per_s": chance.choice([1, 40]),
                }
                keys = [(name, limits) for name in "abc" if chance.random() < 0.7]
                gate.set_limits(
                    *keys,
                    max_concurrent_requests=chance.choice([None, 1, 5]),
                    queue_size=chance.choice([0, 3, 30]),
                    queue_timeout_s=chance.choice([0.1, 1, 9]),
                    requests_per_s=chance.choice([None, 20]),
                    tokens_per_s=chance.choice([None, 2000]),
                )
        assert gate.admission.running == sum(request.on_over is not None for request in sent) - gate.admission.waiting
        assert all(flow.running >= 0 for flow in gate.admission._flows.values())
    gate.set_limits()
    for _ in range(10):
        for request in sent:
            if request.on_over is not None:
                request.end()
        gate.loop.wait(20)
    assert gate.is_empty()
    assert sum(gate.results.values()) == len(sent)
    assert all(request.status is not None for request in sent)
