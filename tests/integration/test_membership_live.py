"""A running router follows its membership sources, and an administrator has the last word."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import quote

import pytest

from router_core.api import MembershipSource, PolicyConfig, WorkerSpec
from router_core.cli.router_server import RouterServer
from router_core.config import RouterConfig
from router_core.contract.errors import StartupError

from .support import RawClient, chat, in_house, running_router, until
from .test_admin import add, call, stream_until


def listing(path, *engines):
    """Write a membership file, all at once."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps([engine if isinstance(engine, dict) else engine.url for engine in engines]))
    draft.replace(path)


def file_source(path):
    return {"name": "file", "options": {"path": str(path), "poll_interval_s": 0.02}}


def candidates(router):
    return [worker.url for worker in router.server.pool.candidates()]


# --- what keeps the router from starting ---


def problems_of(**settings):
    with pytest.raises(StartupError) as caught:
        RouterServer(RouterConfig.model_validate({"policy": "round_robin", **settings}))
    return caught.value.problems


def test_a_source_that_nobody_offers():
    (problem,) = problems_of(membership=["kubernets"])
    assert problem.startswith(
        "membership[0]: membership source 'kubernets' is not installed; did you mean 'kubernetes'?"
    )


def test_options_that_do_not_fit():
    (problem,) = problems_of(membership=[{"name": "file", "options": {"path": "x", "pol_interval_s": 1}}])
    assert problem.startswith("membership[0].options.pol_interval_s: unknown option; did you mean 'poll_interval_s'?")
    assert "membership source 'file'" in problem


class NoRun:
    """No source at all."""


class NotAsync:
    def run(self, report):
        report(())


class Broken:
    def __init__(self):
        raise ValueError("of mine")


@pytest.mark.parametrize("cls", [NoRun, NotAsync])
def test_a_class_without_run(cls):
    (problem,) = problems_of(membership=[in_house(cls)])
    assert f"{cls.__name__} lacks `async def run(self, report)`" in problem


def test_every_problem_is_told_at_once():
    assert len(problems_of(membership=["nobody", in_house(NoRun), {"name": "static"}])) == 3


async def test_a_file_that_is_missing(tmp_path):
    settings = {"host": "127.0.0.1", "port": 0, "policy": "round_robin"}
    server = RouterServer(RouterConfig.model_validate({**settings, "membership": [file_source(tmp_path / "none")]}))
    with pytest.raises(StartupError) as caught:
        await server.start()
    (problem,) = caught.value.problems
    assert problem.startswith(f"membership[0] (file): membership file {tmp_path / 'none'}: is not there")


# --- following ---


async def test_workers_join_and_leave_as_the_file_says_and_a_running_request_is_finished(simulated_engine, tmp_path):
    gate, path = asyncio.Event(), tmp_path / "workers.json"
    async with stream_until(gate) as old, simulated_engine() as new:
        listing(path, old)
        async with running_router([], membership=[file_source(path)]) as router:
            await until(lambda: candidates(router) == [old.url], "the old one")
            async with await RawClient.connect(router.url) as client:
                client.send(chat(stream=True))
                await client.read_until(b"\n\n")
                listing(path, new)
                await until(lambda: candidates(router) == [new.url], "the new one")
                assert await router.ask() == "engine"
                gate.set()
                await client.read_until(b"0\r\n\r\n")
            await router.settled(2)


async def test_worker_urls_and_sources_stand_side_by_side(simulated_engines):
    async with simulated_engines(2) as (first, second):
        static = {"name": "static", "options": {"workers": [{"url": second.url, "labels": {"zone": "a"}}]}}
        async with running_router([first], membership=[static]) as router:
            await until(lambda: candidates(router) == [first.url, second.url], "both")
            assert dict(router.server.pool.workers[1].labels) == {"zone": "a"}


async def test_a_router_may_start_without_workers_and_be_given_some(simulated_engine):
    static = {"name": "static", "options": {"workers": []}}
    async with simulated_engine() as engine, running_router([], membership=[static]) as router:
        await add(router, engine.url)
        await until(router.server.pool.candidates, "a candidate")
        assert await router.ask() == "engine"


async def test_a_worker_an_administrator_removed_stays_away_until_the_source_dropped_it(simulated_engines, tmp_path):
    path = tmp_path / "workers.json"
    async with simulated_engines(3) as (first, second, third):
        listing(path, first, second)
        async with running_router([], membership=[file_source(path)]) as router:
            await until(lambda: len(candidates(router)) == 2, "both")
            assert (await call(router, "DELETE", f"/workers/{quote(first.url, safe='')}"))[0] == 202
            listing(path, first, second, third)
            await until(lambda: candidates(router) == [second.url, third.url], "the third and not the first")
            listing(path, second)
            await until(lambda: candidates(router) == [second.url], "the second alone")
            listing(path, first, second)
            await until(lambda: set(candidates(router)) == {first.url, second.url}, "the first again")


async def test_a_listed_worker_that_drains_is_not_brought_back_by_another_description(simulated_engine, tmp_path):
    gate, path = asyncio.Event(), tmp_path / "workers.json"
    async with stream_until(gate) as old, simulated_engine() as mark:
        listing(path, old)
        async with running_router([], membership=[file_source(path)]) as router:
            await until(lambda: candidates(router) == [old.url], "the old one")
            async with await RawClient.connect(router.url) as client:
                client.send(chat(stream=True))
                await client.read_until(b"\n\n")
                await call(router, "DELETE", f"/workers/{quote(old.url, safe='')}")
                listing(path, {"url": old.url, "labels": {"zone": "b"}}, mark)
                await until(lambda: candidates(router) == [mark.url], "the new list")
                assert router.server.registrations.at(old.url).is_draining
                gate.set()
                await client.read_until(b"0\r\n\r\n")
            await until(lambda: router.server.registrations.at(old.url) is None, "the old one gone")


async def test_a_worker_whose_role_an_administrator_changed_leaves_when_the_source_drops_it(simulated_engine, tmp_path):
    path = tmp_path / "workers.json"
    async with simulated_engine() as engine:
        listing(path, engine)
        pairs = [{"name": "paired", "pd": {"enabled": True}}]
        async with running_router([], membership=[file_source(path)], models=pairs) as router:
            await until(lambda: candidates(router) == [engine.url], "the worker")
            body = {"worker_type": "decode", "models": ["paired"]}
            assert (await call(router, "PATCH", f"/workers/{quote(engine.url, safe='')}", body))[0] == 202
            listing(path)
            await until(lambda: not router.server.pool.workers, "nobody")


async def test_a_worker_an_administrator_added_is_not_the_sources_to_remove(simulated_engines, tmp_path):
    path = tmp_path / "workers.json"
    async with simulated_engines(2) as (own, listed):
        listing(path, listed)
        async with running_router([], membership=[file_source(path)]) as router:
            await add(router, own.url)
            listing(path, listed, own)
            await until(lambda: len(candidates(router)) == 2, "both")
            listing(path)
            await until(lambda: candidates(router) == [own.url], "one's own alone")


class Faulty(MembershipSource):
    """Reports what its tests say, then fails; works the next time."""

    class Config(PolicyConfig):
        urls: tuple[str, ...]

    runs = 0

    def __init__(self, config):
        self.urls = config.urls

    async def run(self, report):
        type(self).runs += 1
        report(tuple(map(WorkerSpec, self.urls)))
        if type(self).runs == 1:
            raise OSError("the register is gone")
        await asyncio.get_running_loop().create_future()


async def test_a_source_that_fails_is_run_again_and_its_workers_serve_on(simulated_engine, caplog):
    Faulty.runs = 0
    async with simulated_engine() as engine:
        source = {"name": in_house(Faulty), "options": {"urls": [engine.url]}}
        async with running_router([], membership=[source]) as router:
            await until(lambda: Faulty.runs == 2, "another run")
            await until(lambda: candidates(router) == [engine.url], "the worker")
            assert await router.ask() == "engine"
            assert "OSError: the register is gone; the last list stays" in caplog.text
