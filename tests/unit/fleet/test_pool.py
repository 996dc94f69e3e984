"""The pool: who belongs to it and who is fit to be chosen."""

from __future__ import annotations

import pytest

from router_core.api import LiteralPrompt, RoutingRequest, Worker, WorkerRole
from router_core.fleet.ledger import Ledger
from router_core.fleet.pool import WorkerPool


def _pool(*names: str) -> WorkerPool:
    return WorkerPool("main", [Worker(f"http://{name}") for name in names])


def test_unhealthy_workers_stay_members_but_are_no_candidates() -> None:
    pool = _pool("a", "b")
    pool.set_health(pool.workers[0], False)
    assert [worker.url for worker in pool.candidates()] == ["http://b"]
    assert len(pool.workers) == 2

    pool.set_health(pool.workers[0], True)
    assert [worker.url for worker in pool.candidates()] == ["http://a", "http://b"]


def test_candidates_are_the_same_object_until_something_changes() -> None:
    pool = _pool("a", "b")
    before = pool.candidates()
    pool.set_health(pool.workers[0], True)
    assert pool.candidates() is before
    pool.remove("http://a")
    assert pool.candidates() is not before


def test_candidates_are_of_one_role() -> None:
    pool = WorkerPool("main", [Worker("http://p", role=WorkerRole.PREFILL), Worker("http://d", role=WorkerRole.DECODE)])
    assert pool.candidates() == ()
    assert [worker.url for worker in pool.candidates(WorkerRole.DECODE)] == ["http://d"]


def test_a_second_member_with_the_same_url_is_refused() -> None:
    pool = _pool("a")
    with pytest.raises(ValueError, match="http://a is in pool 'main' already"):
        pool.add(Worker("http://a"))


def test_a_worker_that_returns_while_its_requests_run_keeps_its_load() -> None:
    pool, ledger = _pool("a"), Ledger()
    lease = ledger.reserve(pool.workers[0], RoutingRequest("r", LiteralPrompt()))
    pool.remove("http://a")

    returned = pool.add(Worker("http://a"))
    assert returned.load == 1
    lease.release()
    assert returned.load == 0


def test_a_worker_that_returns_idle_starts_anew() -> None:
    pool, ledger = _pool("a"), Ledger()
    lease = ledger.reserve(pool.workers[0], RoutingRequest("r", LiteralPrompt()))
    pool.remove("http://a")
    lease.release()
    assert pool.add(Worker("http://a")).requests_processed == 0


def test_listeners_hear_of_every_change() -> None:
    pool = _pool("a")
    heard: list[tuple[str, str]] = []
    pool.subscribe(lambda w: heard.append(("added", w.url)), lambda w: heard.append(("removed", w.url)))
    pool.add(Worker("http://b"))
    pool.remove("http://a")
    pool.remove("http://a")
    assert heard == [("added", "http://b"), ("removed", "http://a")]


def test_a_worker_is_read_only() -> None:
    worker = Worker("http://a")
    with pytest.raises(AttributeError, match=r"Worker\.load is read-only"):
        worker.load = 3  # type: ignore[misc]
    assert worker.load == 0


def test_whoever_is_not_there_cannot_drain() -> None:
    pool = _pool("a")
    before = pool.candidates()
    assert pool.drain("http://b") is None
    assert pool.candidates() is before


def test_a_draining_worker_is_no_candidate_whatever_its_health_does() -> None:
    pool, ledger = _pool("a", "b"), Ledger()
    lease = ledger.reserve(pool.workers[0], RoutingRequest("r", LiteralPrompt()))
    draining = pool.drain("http://a")
    assert draining is pool.workers[0]
    pool.set_health(draining, False)
    pool.set_health(draining, True)
    assert [worker.url for worker in pool.candidates()] == ["http://b"]

    heard: list[str] = []
    pool.subscribe(on_removed=lambda worker: heard.append(worker.url))
    lease.release()
    pool.finish_draining(draining)
    pool.finish_draining(draining)
    assert heard == ["http://a"]
