"""An engine that joins is asked what it is; one with ranks becomes a worker for each."""

from __future__ import annotations

import pytest

from router_core.contract.membership import WorkerSpec
from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.engine_facts import EngineFacts
from router_core.fleet.membership.roster import Roster
from router_core.fleet.pool import WorkerPool
from router_core.fleet.registration import Registrar
from router_core.fleet.registry import WorkerRegistry, WorkerStatus

A = "http://a"


class Client:
    def __init__(self, facts: EngineFacts, meanwhile: object = None) -> None:
        self.facts = facts
        self.meanwhile = meanwhile
        self.asked = 0

    async def fetch_server_info(self, base_url: str, timeout_s: float) -> EngineFacts:
        self.asked += 1
        if callable(self.meanwhile):
            self.meanwhile()
        return self.facts


def make(*workers: Worker) -> tuple[WorkerPool, WorkerRegistry]:
    pool = WorkerPool("main", workers)
    return pool, WorkerRegistry(pool, wall_clock=float)


def urls(pool: WorkerPool) -> list[str]:
    return [worker.url for worker in pool.workers]


async def register(registry: WorkerRegistry, worker: Worker, facts: EngineFacts, meanwhile: object = None) -> None:
    await Registrar(registry, Client(facts, meanwhile), timeout_s=1, splits=True).register(worker)


@pytest.mark.parametrize(
    "facts", [EngineFacts(), EngineFacts("sglang", dp_size=1), EngineFacts("sglang", dp_size=5000)]
)
async def test_an_engine_that_tells_of_no_ranks_or_of_too_many_stays_one_worker(facts: EngineFacts) -> None:
    pool, registry = make(Worker(A))
    (worker,) = pool.workers
    await register(registry, worker, facts)
    assert pool.workers == (worker,)
    assert registry.registrations[0].kind == facts.kind


async def test_an_engine_with_ranks_becomes_a_worker_for_each_under_one_id() -> None:
    pool, registry = make(Worker(A, is_healthy=False, labels={"zone": "a"}))
    (registration,) = registry.registrations
    await register(registry, pool.workers[0], EngineFacts("sglang", ("m",), dp_size=3))
    assert urls(pool) == [f"{A}@0", f"{A}@1", f"{A}@2"]
    assert pool.candidates() == pool.workers
    assert {(w.base_url, w.models, w.labels["zone"]) for w in pool.workers} == {(A, frozenset({"m"}), "a")}
    assert registry.registrations == (registration,)
    assert (registration.kind, registration.status) == ("sglang", WorkerStatus.READY)
    for worker in pool.workers:
        pool.set_health(worker, False)
    assert registration.status is WorkerStatus.UNHEALTHY


@pytest.mark.parametrize(("label", "count"), [("2", 2), ("two", 1), ("-2", 1), ("", 1), ("0", 1)])
async def test_a_label_tells_for_an_engine_that_does_not(label: str, count: int) -> None:
    pool, registry = make(Worker(A, labels={"dp_size": label}))
    await register(registry, pool.workers[0], EngineFacts("vllm"))
    assert len(pool.workers) == count


@pytest.mark.parametrize(("told", "label", "count"), [(None, None, 4), (2, None, 2), (None, "3", 3), (None, "1", 1)])
async def test_the_number_for_all_counts_where_neither_engine_nor_label_tells(told, label, count) -> None:
    pool, registry = make(Worker(A, labels={} if label is None else {"dp_size": label}))
    client = Client(EngineFacts("vllm") if told is None else EngineFacts("sglang", dp_size=told))
    await Registrar(registry, client, timeout_s=1, splits=True, dp_size=4).register(pool.workers[0])
    assert len(pool.workers) == count


async def test_a_rank_is_not_asked_again() -> None:
    _, registry = make(Worker(f"{A}@0", base_url=A))
    client = Client(EngineFacts("sglang", dp_size=3))
    await Registrar(registry, client, timeout_s=1, splits=True).register(registry.registrations[0].workers[0])
    assert client.asked == 0


async def test_a_prefill_workers_bootstrap_port_is_learned_if_nobody_said_it() -> None:
    labels = {"zone": "a", "bootstrap_port": "1"}
    _, registry = make(
        Worker(A, role=WorkerRole.PREFILL, labels={"zone": "a"}),
        Worker("http://told", role=WorkerRole.PREFILL, labels=labels),
        Worker("http://decode", role=WorkerRole.DECODE),
    )
    client = Client(EngineFacts("sglang", bootstrap_port=8998))
    registrar = Registrar(registry, client, timeout_s=1, learns_ports=True)
    for registration in registry.registrations:
        await registrar.register(registration.workers[0])
    learned, told, decode = (registration.workers[0].labels for registration in registry.registrations)
    assert (learned, told, decode) == ({"zone": "a", "bootstrap_port": "8998"}, labels, {})
    assert client.asked == 1


async def test_ranks_inherit_the_bootstrap_port_that_was_learned() -> None:
    pool, registry = make(Worker(A, role=WorkerRole.PREFILL))
    client = Client(EngineFacts("sglang", dp_size=2, bootstrap_port=8998))
    await Registrar(registry, client, timeout_s=1, splits=True, learns_ports=True).register(pool.workers[0])
    assert [worker.labels["bootstrap_port"] for worker in pool.workers] == ["8998", "8998"]


def test_a_list_of_models_tells_which_engine_it_is_and_what_is_known_stays_known() -> None:
    pool, registry = make(Worker(A))
    (worker,), (registration,) = pool.workers, registry.registrations
    registrar = Registrar(registry, Client(EngineFacts()), timeout_s=1)
    seen = []
    for owner in (None, "acme", "vllm", 3, "sglang"):
        registrar.identify(worker, [{"id": "m", "owned_by": owner}])
        seen.append(registration.kind)
    assert seen == [None, None, "vllm", "vllm", "sglang"]
    pool.remove(A)
    registrar.identify(worker, [{"id": "m", "owned_by": "vllm"}])  # it left meanwhile


async def test_who_left_or_drains_meanwhile_is_not_brought_back() -> None:
    pool, registry = make(Worker(A))
    (worker,) = pool.workers
    facts = EngineFacts("sglang", dp_size=2)
    await register(registry, worker, facts, lambda: pool.remove(A))
    assert pool.workers == ()

    busy = Worker(A, load=1)
    pool.add(busy)
    await register(registry, busy, facts, lambda: pool.drain(A))
    assert pool.workers == (busy,)


async def test_the_roster_lets_all_ranks_go_and_leaves_those_alone_that_an_administrator_changed() -> None:
    pool, registry = make()
    report = Roster(registry).report("source")
    spec = WorkerSpec(A)
    report((spec,))
    await register(registry, pool.workers[0], EngineFacts("sglang", dp_size=2))
    report((WorkerSpec(A), WorkerSpec("http://b")))
    assert urls(pool) == [f"{A}@0", f"{A}@1", "http://b"]
    report((WorkerSpec("http://b"),))
    assert urls(pool) == ["http://b"]
