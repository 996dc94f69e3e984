"""Which names a fleet serves, who may serve each, and how its workers are parted into pools."""

from __future__ import annotations

from router_core.api import Worker
from router_core.fleet.model_directory import ListedModel, ModelDirectory, Route
from router_core.fleet.partition import ModelPool, Partition
from router_core.fleet.pool import WorkerPool


def one_pool(*workers: Worker, **options: bool) -> tuple[WorkerPool, ModelDirectory]:
    fleet = WorkerPool("default", workers)
    return fleet, ModelDirectory(fleet, [ModelPool(fleet)], was_well=lambda _: False, **options)


def two_models(*workers: Worker) -> tuple[WorkerPool, dict[str, WorkerPool], ModelDirectory]:
    fleet = WorkerPool("fleet", workers)
    pools = [
        ModelPool(WorkerPool("llama"), "llama", ("gpt-4", "small")),
        ModelPool(WorkerPool("qwen"), "qwen"),
        ModelPool(WorkerPool("default")),
    ]
    Partition(fleet, pools)
    directory = ModelDirectory(fleet, pools, was_well=lambda _: False)
    return fleet, {pool.name: pool.members for pool in pools}, directory


def urls(pool: WorkerPool) -> set[str]:
    return {worker.url for worker in pool.workers}


def of(url: str, *models: str, **more: object) -> Worker:
    return Worker(f"http://{url}", models=models, **more)  # type: ignore[arg-type]


# --- one pool ---


def test_workers_that_are_alike_need_no_choice() -> None:
    _, directory = one_pool(of("a", "m"), of("b", "m"))
    view = directory.view()
    assert view.is_uniform
    assert view.find("m") == Route("default", None, "m")
    assert view.find("other") is None


def test_a_model_that_only_some_serve_is_for_those() -> None:
    fleet, directory = one_pool(of("a", "m", "n"), of("b", "m"))
    view = directory.view()
    assert not view.is_uniform
    assert view.find("m") == Route("default", None, "m")
    assert view.find("n") == Route("default", "n", "n")
    assert [worker.url for worker in fleet.candidates(model="n")] == ["http://a"]


def test_candidates_of_a_model_are_the_same_object_until_something_changes() -> None:
    fleet, _ = one_pool(of("a", "m"), of("b"))
    before = fleet.candidates(model="m")
    assert fleet.candidates(model="m") is before
    fleet.learn_models(fleet.workers[1], ["m"], {})
    assert len(fleet.candidates(model="m")) == 2
    fleet.set_health(fleet.workers[0], False)
    assert [worker.url for worker in fleet.candidates(model="m")] == ["http://b"]


def test_a_fleet_that_lists_nothing_serves_every_name() -> None:
    _, directory = one_pool(of("a"))
    assert directory.view().find("anything") == Route("default", None, "")


def test_a_name_nobody_lists_is_for_workers_that_list_nothing() -> None:
    fleet, directory = one_pool(of("a", "m"), of("b"))
    assert directory.view().find("m") == Route("default", "m", "m")
    assert directory.view().find("other") == Route("default", "", "")
    assert [worker.url for worker in fleet.candidates(model="")] == ["http://b"]


def test_unknown_names_may_be_passed_on() -> None:
    _, directory = one_pool(of("a", "m"), passes_unknown=True)
    assert directory.view().find("other") == Route("default", None, "")


def test_an_adapter_is_for_those_that_have_it() -> None:
    _, directory = one_pool(of("a", "m", adapters={"sql": "m"}), of("b", "m"))
    view = directory.view()
    assert view.find("sql") == Route("default", "sql", "sql")
    assert view.find("m:sql") == Route("default", "sql", "m:sql")
    assert view.find("m:other") == Route("default", None, "m:other"), "the engine may load it"
    assert view.find("n:sql") is None


def test_newcomers_are_those_that_were_never_well() -> None:
    fleet, directory = one_pool(of("a", "m"), of("b", is_healthy=False))
    assert directory.view().has_newcomers
    assert directory.view().is_uniform, "who is not well yet takes no part"
    fleet.learn_models(fleet.workers[1], ["m"], {})
    assert not directory.view().has_newcomers


def test_what_an_administrator_declares_stands_over_what_the_engine_tells() -> None:
    fleet, _ = one_pool(of("a", "declared"), of("b"))
    declared, learned = fleet.workers
    for worker in fleet.workers:
        fleet.learn_models(worker, ["told"], {"lora": "told"})
    assert (declared.models, learned.models) == ({"declared"}, {"told"})
    assert dict(declared.adapters) == {"lora": "told"}
    fleet.declare_models(learned, ["mine"])
    fleet.learn_models(learned, ["told"], {})
    assert learned.models == {"mine"}
    fleet.declare_models(learned, [])
    fleet.learn_models(learned, ["told"], {})
    assert learned.models == {"told"}


# --- pools of models ---


def test_a_worker_is_in_the_pool_of_each_model_it_serves_and_in_the_last_for_the_rest() -> None:
    _, pools, _ = two_models(of("a", "llama"), of("b", "llama", "qwen"), of("c", "mistral"), of("d", "qwen", "phi"))
    assert urls(pools["llama"]) == {"http://a", "http://b"}
    assert urls(pools["qwen"]) == {"http://b", "http://d"}
    assert urls(pools["default"]) == {"http://c", "http://d"}


def test_a_worker_moves_when_its_models_are_learned() -> None:
    fleet, pools, _ = two_models(of("a", is_healthy=False))
    heard: list[str] = []
    pools["llama"].subscribe(lambda worker: heard.append(f"+{worker.url}"), lambda worker: heard.append("-"))
    (worker,) = fleet.workers
    assert urls(pools["default"]) == {"http://a"}
    fleet.learn_models(worker, ["llama"], {})
    fleet.set_health(worker, True)
    assert urls(pools["default"]) == set()
    assert pools["llama"].candidates() == (worker,)
    fleet.set_health(worker, False)
    assert pools["llama"].candidates() == ()
    fleet.drain(worker.url)
    assert urls(pools["llama"]) == set()
    assert heard == ["+http://a", "-"]


def test_an_alias_is_the_models() -> None:
    _, _, directory = two_models(of("a", "llama"))
    assert directory.view().find("gpt-4") == Route("llama", None, "llama")
    assert directory.view().find("gpt-4:sql") == Route("llama", None, "llama:sql")
    assert directory.listed() == [
        ListedModel("llama", None, None, True),
        ListedModel("gpt-4", None, "llama", True),
        ListedModel("small", None, "llama", True),
        ListedModel("qwen", None, None, False),
    ]


def test_an_adapter_belongs_to_the_pool_of_its_model() -> None:
    _, _, directory = two_models(of("a", "llama", "qwen", adapters={"sql": "qwen"}), of("b", "qwen"))
    assert directory.view().find("sql") == Route("qwen", "sql", "sql")
    assert ListedModel("sql", "qwen", None, True) in directory.listed()


def test_an_adapter_of_a_model_that_is_called_otherwise_here_is_found_all_the_same() -> None:
    fleet, _, directory = two_models(of("a", "llama"))
    fleet.learn_models(fleet.workers[0], ["meta-llama/Llama-3"], {"sql": "meta-llama/Llama-3"})
    assert directory.view().find("sql") == Route("llama", None, "sql")


def test_a_departed_worker_leaves_every_pool() -> None:
    fleet, pools, directory = two_models(of("a", "llama", "phi"))
    fleet.remove("http://a")
    assert not any(map(urls, pools.values()))
    assert directory.view().find("llama") == Route("llama", None, "llama"), "the settings name it"
    assert directory.view().find("phi") is None


def test_a_worker_that_no_pool_has_a_use_for_is_told_of_once_its_models_are_known(caplog) -> None:
    fleet = WorkerPool("fleet")
    pairs = ModelPool(WorkerPool("llama", serves_pairs=True), "llama")
    Partition(fleet, [pairs, ModelPool(WorkerPool("default"))])
    worker = fleet.add(of("a"))
    assert not caplog.text
    for _ in range(2):
        fleet.learn_models(worker, ["llama"], {})
        fleet.set_health(worker, True)
    assert caplog.text.count("worker http://a, which serves llama: a regular worker would get no request") == 1
    fleet.learn_models(worker, ["llama", "other"], {})
    assert caplog.text.count("would get no request") == 1
