"""A plugin's world: seeded chance, a clock, timers that end with the pool, labelled metrics."""

import heapq
import itertools

import pytest

from router_core.plugin_host.context import LivePoolContext


class Timers:
    """A scheduler whose time passes only in `advance`."""

    def __init__(self, clock):
        self.clock = clock
        self.due = []
        self.numbers = itertools.count()

    def call_later(self, delay, callback):
        timer = Timer(callback)
        heapq.heappush(self.due, (self.clock() + delay, next(self.numbers), timer))
        return timer

    def advance(self, seconds):
        end = self.clock() + seconds
        while self.due and self.due[0][0] <= end:
            self.clock.now, _, timer = heapq.heappop(self.due)
            if not timer.is_cancelled:
                timer.callback()
        self.clock.now = end


class Timer:
    def __init__(self, callback):
        self.callback = callback
        self.is_cancelled = False

    def cancel(self):
        self.is_cancelled = True


class Sink:
    def __init__(self):
        self.reports = []

    def count(self, name, value, labels):
        self.reports.append(("count", name, value, labels))

    def gauge(self, name, value, labels):
        self.reports.append(("gauge", name, value, labels))

    def observe(self, name, value, labels):
        self.reports.append(("observe", name, value, labels))


@pytest.fixture
def timers(clock):
    return Timers(clock)


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def context(clock, timers, sink):
    return LivePoolContext("chat", seed=7, scheduler=timers, sink=sink, now=clock)


def test_time_is_the_injected_clock(context, clock):
    clock.advance(5)
    assert (context.now(), context.name) == (clock.now, "chat")


def test_same_seed_gives_the_same_choices(context, clock, timers, sink):
    twin = LivePoolContext("other", seed=7, scheduler=timers, sink=sink, now=clock)
    assert [context.random.random() for _ in range(3)] == [twin.random.random() for _ in range(3)]


def test_timer_comes_again_and_again_until_the_pool_stops(context, clock, timers):
    begun, ticks = clock(), []
    context.every(2, lambda: ticks.append(clock() - begun))
    timers.advance(7)
    assert ticks == [2, 4, 6]
    context.stop()
    timers.advance(10)
    assert ticks == [2, 4, 6]


def test_timer_may_stop_the_pool_itself(context, timers):
    ticks = []
    context.every(1, lambda: (ticks.append(1), context.stop()))
    timers.advance(5)
    context.every(1, lambda: ticks.append(2))
    timers.advance(5)
    assert ticks == [1]


def test_whoever_runs_the_plugin_calls_its_timers(context, timers):
    called = []
    context.call_timer = called.append
    context.every(1, tick := lambda: None)
    timers.advance(2)
    assert called == [tick, tick]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_timer_without_a_positive_period_is_refused(context, seconds):
    with pytest.raises(ValueError, match=r"pool\.every\(\) needs seconds above 0"):
        context.every(seconds, lambda: None)


def test_metrics_go_to_the_sink_as_they_are(context, sink):
    context.count("cache_hits_total", kind="long")
    context.gauge("blocks", 12)
    context.observe("match_ratio", 0.5)
    assert sink.reports == [
        ("count", "cache_hits_total", 1, {"kind": "long"}),
        ("gauge", "blocks", 12, {}),
        ("observe", "match_ratio", 0.5, {}),
    ]
