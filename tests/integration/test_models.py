"""Many models behind one router: who may serve a request, aliases, adapters, and what is said of unknown names."""

from __future__ import annotations

import json

import pytest

from router_core.api import PolicyConfig, Worker, hookimpl
from tests.integration.support import chat, in_house, running_router, until

ALIASES = ("gpt-4", "default")


async def models_of(router):
    async with router.get("/v1/models") as response:
        assert response.status == 200
        return {model["id"]: model for model in (await response.json())["data"]}


async def refusal(router, body, path="/v1/chat/completions"):
    async with router.post(path, body) as response:
        error = (await response.json())["error"]
        return response.status, error["code"], error["message"], response.headers.get("retry-after")


class Notes:
    """A policy that takes the first worker and says what it was asked."""

    class Config(PolicyConfig):
        tag: str = "-"

    def __init__(self, config):
        self.tag = config.tag

    @hookimpl
    def select_single(self, workers, request):
        request.explain(f"{self.tag}_{len(workers)}")
        return workers[0]


def reasons(router):
    return [completion.request.reason for completion in router.record.completed]


# --- one pool ---


async def test_a_request_goes_only_to_workers_that_serve_its_model(simulated_engines):
    async with simulated_engines(3) as engines:
        engines[0].models, engines[1].models, engines[2].models = ("a",), ("b",), ("a", "b")
        async with running_router(engines) as router:
            for _ in range(4):
                assert await router.ask(body=chat(model="a")) in {engines[0].name, engines[2].name}
                assert await router.ask(body=chat(model="b")) in {engines[1].name, engines[2].name}
            status, code, message, _ = await refusal(router, chat(model="c"))
            assert (status, code) == (404, "model_not_found")
            assert "'a', 'b'" in message


async def test_the_name_at_the_top_counts_not_one_inside(simulated_engines):
    body = {"metadata": {"model": "a"}, "model": "b", "messages": [{"role": "user", "content": '"model":"a"'}]}
    async with simulated_engines(2) as engines:
        engines[0].models, engines[1].models = ("a",), ("b",)
        async with running_router(engines) as router:
            assert await router.ask(body=body) == engines[1].name


async def test_where_all_workers_are_alike_an_unknown_model_is_refused_too(simulated_engine):
    async with simulated_engine(models=("a",)) as engine, running_router([engine]) as router:
        assert await router.ask(body=chat(model="a"))
        messages = [{"role": "user", "content": "Hello"}]
        for body in ({"model": "a", "messages": messages}, {"messages": messages, "model": "a"}):
            async with router.session.post(
                router.url + "/v1/chat/completions", data=json.dumps(body, separators=(",", ":"))
            ) as response:
                assert response.status == 200
        assert (await refusal(router, chat(model="b")))[:2] == (404, "model_not_found")
        unnamed = {"messages": [{"role": "user", "content": 'a "model" is not named'}]}
        assert await router.ask(body=unnamed), "a fleet of one model serves who names none"
        samples = (await router.metrics())["router_core_unrouted_requests_total"]
        counted = [(sample.labels, sample.value) for sample in samples if sample.value]
        assert counted == [({"pool": "", "reason": "model_not_found"}, 1)]


async def test_unknown_models_are_passed_on_if_that_is_wished(simulated_engine):
    async with simulated_engine(models=("a",)) as engine, running_router([engine], unknown_models="pass") as router:
        assert await router.ask(body=chat(model="whatever"))


async def test_a_fleet_that_lists_no_models_is_given_everything(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        router.server.pool.learn_models(router.server.pool.workers[0], (), {})
        assert await router.ask(body=chat(model="whatever"))


async def test_while_a_worker_is_registering_its_model_may_come(simulated_engine):
    engine, nobody = simulated_engine(models=("a",)), "http://127.0.0.1:9"
    async with engine, running_router([nobody], expect_healthy=0) as router:
        router.server.pool.add(Worker(engine.url, is_healthy=False))
        await until(router.server.pool.candidates, "a candidate")
        status, code, _, retry_after = await refusal(router, chat(model="b"))
        assert (status, code, retry_after) == (503, "model_not_ready", "5")
        router.server.pool.remove(nobody)
        assert (await refusal(router, chat(model="b")))[0] == 404


async def test_a_model_whose_workers_are_all_unwell_is_known_but_not_available(simulated_engines):
    async with simulated_engines(2) as engines:
        engines[0].models, engines[1].models = ("a",), ("b",)
        async with running_router(engines) as router:
            router.server.pool.set_health(router.server.pool.workers[0], False)
            status, code, message, _ = await refusal(router, chat(model="a"))
            assert (status, code) == (503, "no_available_workers")
            assert message == "No worker of model 'a' is available: 1 configured, none healthy."
            assert set(await models_of(router)) == {"b"}
            for name, expected in (("a", (503, "no_available_workers")), ("c", (404, "model_not_found"))):
                async with router.get(f"/v1/models/{name}") as response:
                    assert (response.status, (await response.json())["error"]["code"]) == expected


async def test_a_body_that_is_no_json_is_told_from_one_that_names_no_model(simulated_engines):
    async with simulated_engines(2) as engines:
        engines[0].models, engines[1].models = ("a",), ("b",)
        async with running_router(engines, models=[{"name": "a"}]) as router:
            for body, code in (
                (b"{bad", "invalid_json"),
                (b"", "invalid_json"),
                (b'["a"]', "invalid_json"),
                (b"{}", "model_required"),
                (b'{"prompt": "x"}', "model_required"),
            ):
                async with router.session.post(f"{router.url}/v1/completions", data=body) as response:
                    assert (response.status, (await response.json())["error"]["code"]) == (400, code), body


# --- pools of models ---


async def test_each_model_has_its_pool_with_its_policy_and_metrics(simulated_engines):
    async with simulated_engines(4) as engines:
        for engine, model in zip(engines, ("llama", "llama", "qwen", "phi"), strict=True):
            engine.models = (model,)
        models = [
            {"name": "llama", "aliases": ALIASES, "policy": {"name": in_house(Notes), "options": {"tag": "l"}}},
            {"name": "qwen", "policy": {"name": in_house(Notes), "options": {"tag": "q"}}, "wrappers": []},
        ]
        async with running_router(engines, models=models, policy=in_house(Notes)) as router:
            for model in ("llama", "gpt-4", "qwen", "phi"):
                await router.ask(body=chat(model=model))
            assert reasons(router) == ["l_2", "l_2", "q_1", "-_1"]
            metrics = await router.metrics()
            pools = {sample.labels["pool"]: sample.labels["policy"] for sample in metrics["router_core_policy_info"]}
            assert set(pools) == {"llama", "qwen", "default"}
            health = {(s.labels["pool"], s.labels["worker"]) for s in metrics["router_core_worker_health"]}
            assert health == {
                ("llama", engines[0].url),
                ("llama", engines[1].url),
                ("qwen", engines[2].url),
                ("default", engines[3].url),
            }
            async with router.get("/readiness") as response:
                assert (await response.json())["total_workers"] == 4
            status, code, message, _ = await refusal(router, {"messages": []})
            assert (status, code) == (400, "model_required")
            assert "'llama'" in message


async def test_an_alias_reaches_the_worker_as_the_real_name_and_all_else_untouched(simulated_engine):
    before, after = (
        b'{ "messages" :[{"role":"user","content":"\\u00e9 \\"model\\":\\"gpt-4\\""}],\n "model" : ',
        b', "x":[1.0] }',
    )
    async with simulated_engine(models=("llama/3 8B",)) as engine:
        models = [{"name": "llama/3 8B", "aliases": ALIASES}]
        async with running_router([engine], models=models) as router:
            async with router.session.post(
                router.url + "/v1/chat/completions", data=before + b'"gpt-4"' + after
            ) as response:
                assert response.status == 200
            assert engine.requests[-1].body == before + b'"llama/3 8B"' + after
            (completion,) = router.record.completed
            assert completion.request.model == "llama/3 8B"


async def test_the_list_has_models_adapters_and_aliases_of_all_pools(simulated_engines):
    async with simulated_engines(2) as engines:
        engines[0].models, engines[0].adapters = ("llama",), {"sql": "llama"}
        engines[1].models = ("phi",)
        models = [{"name": "llama", "aliases": "gpt-4"}, {"name": "absent"}]
        async with running_router(engines, models=models) as router:
            listed = await models_of(router)
            assert list(listed) == ["llama", "gpt-4", "phi", "sql"]
            assert listed["gpt-4"] == listed["llama"] | {"id": "gpt-4", "root": "llama"}
            assert listed["sql"]["parent"] == "llama"
            for name, status in {"gpt-4": 200, "sql": 200, "absent": 503, "nobody": 404}.items():
                async with router.get(f"/v1/models/{name}") as response:
                    assert response.status == status
            assert (await refusal(router, chat(model="absent")))[:2] == (503, "no_available_workers")


async def test_a_worker_named_under_a_model_serves_it_whatever_it_lists(simulated_engine):
    async with simulated_engine(models=("/weights/v1",)) as engine:
        models = [{"name": "m", "worker_urls": [engine.url]}]
        async with running_router([], models=models) as router:
            await until(router.server.pool.candidates, "a candidate")
            assert await router.ask(body=chat(model="m"))
            assert list(await models_of(router)) == ["m"]


async def test_an_added_worker_joins_the_pool_of_the_model_it_is_said_to_serve(simulated_engine):
    async with simulated_engine(models=("told",)) as engine, running_router([], models=["m", "told"]) as router:
        for model_id, name in (("m", "m"), (None, "told")):
            async with router.session.post(
                f"{router.url}/workers", json={"url": engine.url, **({"model_id": model_id} if model_id else {})}
            ) as response:
                assert response.status == 202
            await until(router.server.pool.candidates, "a candidate")
            assert await router.ask(body=chat(model=name))
            async with router.session.delete(f"{router.url}{response.headers['location']}") as response:
                assert response.status == 202


# --- adapters ---


async def test_an_adapter_goes_to_workers_that_have_it_and_policies_see_it(simulated_engines):
    async with simulated_engines(3) as engines:
        engines[1].adapters = {"sql": "simulated-model"}
        async with running_router(engines) as router:
            assert dict(router.server.pool.workers[1].adapters) == {"sql": "simulated-model"}
            for body in (chat(model="sql"), chat(model="simulated-model:sql"), chat(lora_path="sql")):
                for _ in range(3):
                    assert await router.ask(body=body) == engines[1].name
            assert {await router.ask() for _ in range(3)} == {engine.name for engine in engines}


async def test_an_adapter_loaded_later_is_known_once_somebody_lists_the_models(simulated_engine):
    async with simulated_engine() as engine, running_router([engine]) as router:
        assert (await refusal(router, chat(model="late")))[0] == 404
        engine.adapters = {"late": "simulated-model"}
        assert "late" in await models_of(router)
        assert await router.ask(body=chat(model="late"))


# --- settings ---


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ([{"name": "a"}, {"name": "b", "aliases": ["a"]}], "'a' stands there more than once"),
        ([{"name": "default"}], "'default' is the pool of all other models"),
        (
            [{"name": "a", "worker_urls": ["http://w:1"]}, {"name": "b", "worker_urls": ["http://w:1"]}],
            "more than once",
        ),
        ([{"name": " a"}], "no model's name"),
        ([{"name": "a", "prefill_policy": "random"}], "prefill_policy has no workers"),
    ],
)
def test_models_that_contradict_each_other_are_refused(models, problem):
    from pydantic import ValidationError

    from router_core.config import RouterConfig

    with pytest.raises(ValidationError, match=problem):
        RouterConfig.model_validate({"models": models})
