"""Registrations: an id for each address, whoever stands behind it."""

from __future__ import annotations

import pytest

from router_core.api import LiteralPrompt, RoutingRequest, Worker, WorkerRole
from router_core.fleet.ledger import Lease, Ledger
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registry import AlreadyRegisteredError, WorkerRegistry, WorkerStatus

A, B = "http://a", "http://b"


def make(*workers: Worker) -> tuple[WorkerPool, WorkerRegistry]:
    pool = WorkerPool("main", workers)
    return pool, WorkerRegistry(pool, wall_clock=lambda: 1700000000.0)


def a_request_on(worker: Worker) -> Lease:
    return Ledger().reserve(worker, RoutingRequest("r", LiteralPrompt()))


def test_whoever_is_in_the_pool_is_registered_whoever_added_it() -> None:
    pool, registry = make(Worker(A))
    pool.add(Worker(B))
    assert [registration.url for registration in registry.registrations] == [A, B]
    pool.remove(A)
    assert [registration.url for registration in registry.registrations] == [B]


def test_an_id_lasts_from_joining_to_leaving_and_is_never_used_again() -> None:
    pool, registry = make()
    first = registry.register(Worker(A))
    pool.set_health(first.workers[0], False)
    assert registry.find(first.id) is first
    pool.remove(A)
    assert registry.find(first.id) is None
    assert registry.register(Worker(A)).id != first.id


def test_an_address_is_registered_once() -> None:
    _, registry = make()
    first = registry.register(Worker(A))
    with pytest.raises(AlreadyRegisteredError) as caught:
        registry.register(Worker(A))
    assert caught.value.registration is first


def test_a_draining_worker_without_requests_leaves_at_once() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A))
    registry.drain(registration)
    assert pool.workers == ()
    assert registry.find(registration.id) is None


def test_a_draining_worker_with_requests_is_no_candidate_and_leaves_after_the_last() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A))
    (worker,) = pool.workers
    leases = [a_request_on(worker), a_request_on(worker)]
    registry.drain(registration)
    registry.drain(registration)
    assert pool.candidates() == ()
    assert pool.workers == (worker,)
    assert registration.status is WorkerStatus.DRAINING
    for lease in leases:
        assert pool.get(A) is worker
        lease.release()
        pool.finish_draining(worker)
    assert pool.workers == ()


def test_a_draining_address_tells_when_its_removal_began() -> None:
    pool = WorkerPool()
    times = iter((100.0, 250.0))
    registry = WorkerRegistry(pool, wall_clock=times.__next__)
    registration = registry.register(Worker(A))
    lease = a_request_on(pool.workers[0])
    assert registration.draining_since is None
    registry.drain(registration)
    registry.drain(registration)
    assert (registration.registered_at, registration.draining_since) == (100.0, 250.0)
    lease.release()


def test_an_address_that_is_added_again_while_it_drains_keeps_its_load_and_stays() -> None:
    pool, registry = make()
    before = registry.register(Worker(A))
    lease = a_request_on(pool.workers[0])
    registry.drain(before)
    after = registry.register(Worker(A, labels={"zone": "b"}))
    (worker,) = pool.candidates()
    assert after.id != before.id
    assert registry.find(before.id) is None
    assert (worker.load, worker.is_draining, dict(worker.labels)) == (1, False, {"zone": "b"})
    lease.release()
    pool.finish_draining(worker)
    assert pool.candidates() == (worker,)
    assert worker.load == 0


def test_a_completion_on_a_worker_that_left_by_force_while_draining_removes_nobody() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A))
    (old,) = pool.workers
    lease = a_request_on(old)
    registry.drain(registration)
    registry.remove(A)
    lease.release()
    new = registry.register(Worker(A)).workers[0]
    pool.finish_draining(old)
    assert pool.workers == (new,)


def test_status_tells_a_worker_that_never_was_well_from_one_that_fell_ill() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A, is_healthy=False))
    assert registration.status is WorkerStatus.REGISTERING
    pool.set_health(registration.workers[0], True)
    registry.note_health(registration.workers[0], True, None)
    assert registration.status is WorkerStatus.READY
    pool.set_health(registration.workers[0], False)
    assert registration.status is WorkerStatus.UNHEALTHY


def test_a_worker_that_changes_its_role_keeps_its_id_health_and_load_and_policies_hear_of_it() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A, models=["m"], labels={"zone": "a"}))
    a_request_on(pool.workers[0])
    heard: list[str] = []
    pool.subscribe(lambda worker: heard.append(f"+{worker.role}"), lambda worker: heard.append(f"-{worker.role}"))
    registry.describe(registration, role=WorkerRole.DECODE)
    (worker,) = pool.candidates(WorkerRole.DECODE)
    assert heard == ["-regular", "+decode"]
    assert (worker.load, worker.models, dict(worker.labels)) == (1, frozenset({"m"}), {"zone": "a"})
    assert registry.find(registration.id) is registration
    assert registration.workers == (worker,)


def test_labels_and_models_change_in_place() -> None:
    pool, registry = make()
    registration = registry.register(Worker(A))
    (worker,) = pool.workers
    registry.describe(registration, models=["m"], labels={"zone": "c"})
    assert (pool.workers, worker.models, dict(worker.labels)) == ((worker,), frozenset({"m"}), {"zone": "c"})
    with pytest.raises(TypeError):
        worker.labels["zone"] = "d"  # type: ignore[index]


def test_ranks_of_one_engine_are_one_registration() -> None:
    pool, registry = make(*(Worker(f"{A}@{rank}", base_url=A) for rank in range(3)))
    (registration,) = registry.registrations
    lease = a_request_on(pool.workers[1])
    registry.drain(registration)
    assert [worker.url for worker in pool.workers] == [f"{A}@1"]
    lease.release()
    pool.finish_draining(pool.workers[0])
    assert registry.registrations == ()


def test_the_roster_sees_a_draining_worker_as_gone() -> None:
    pool, registry = make()
    worker = registry.add(Worker(A))
    assert registry.get(A) is worker
    a_request_on(worker)
    registry.drain(registry.registrations[0])
    assert registry.get(A) is None
    assert registry.get(B) is None
    assert registry.remove(B) is None
    assert pool.workers == (worker,)
