import pytest

from router_core.contract.errors import UndeclaredNeedError
from router_core.testing.builders import FakePool, make_request, make_workers


def test_timers_run_at_their_own_moments_in_order():
    pool, calls = FakePool(), []
    pool.every(2, lambda: calls.append(("two", pool.now())))
    pool.every(3, lambda: calls.append(("three", pool.now())))

    pool.advance(6)

    assert calls == [("two", 2.0), ("three", 3.0), ("two", 4.0), ("two", 6.0), ("three", 6.0)]
    assert pool.now() == 6.0


def test_stop_ends_all_timers():
    pool, calls = FakePool(), []
    pool.every(1, lambda: calls.append(1))

    pool.stop()
    pool.advance(10)

    assert (calls, pool.timers) == ([], 0)


def test_timer_that_raises_fails_the_test():
    pool = FakePool()
    pool.every(1, lambda: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        pool.advance(1)


@pytest.mark.parametrize("seconds", [0, -1])
def test_interval_must_be_positive(seconds):
    with pytest.raises(ValueError, match="must be positive"):
        FakePool().every(seconds, print)


def test_metrics_are_recorded_by_labels():
    pool = FakePool()
    pool.count("hits_total", kind="a")
    pool.count("hits_total", 2, kind="a")
    pool.gauge("size", 7)
    pool.observe("wait_seconds", 0.5)

    assert pool.counted("hits_total", kind="a") == 3
    assert pool.counted("hits_total", kind="b") == 0
    assert (pool.gauged("size"), pool.gauged("other")) == (7, None)
    assert pool.observed("wait_seconds") == (0.5,)


def test_metric_keeps_kind_and_label_names():
    pool = FakePool()
    pool.count("hits_total", kind="a")

    with pytest.raises(ValueError, match="keeps its kind and label names"):
        pool.count("hits_total")
    with pytest.raises(ValueError, match="keeps its kind and label names"):
        pool.gauge("hits_total", 1, kind="a")


def test_odd_metrics_are_refused():
    with pytest.raises(ValueError, match="never goes down"):
        FakePool().count("hits_total", -1)
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        FakePool().count("hits-total")


def test_equal_seed_gives_equal_draws():
    assert FakePool(seed=3).random.random() == FakePool(seed=3).random.random()


def test_request_may_be_limited_to_declared_needs():
    request = make_request("Hello", needs=())

    with pytest.raises(UndeclaredNeedError):
        _ = request.text
    assert make_request("x" * 4096).prefix
    assert make_request("\ud800" * 400).input_tokens == 300


def test_workers_have_urls_of_their_own():
    assert len({worker.url for worker in make_workers(5)}) == 5
