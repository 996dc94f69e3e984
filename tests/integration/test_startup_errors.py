"""What stands in the way of starting is told at once, all of it, with exit code 2, before anything is opened."""

from __future__ import annotations

import socket

import pytest

from .router_process import free_port, listening_router, router_process
from .support import RawClient

GOOD = """
from router_core.api import hookimpl

class Good:
    @hookimpl
    def select_single(self, workers):
        return workers[0]

class Misspelt:
    @hookimpl
    def select_singel(self, workers):
        return workers[0]
"""


async def refusal(*arguments, port=None, **options):
    """Run a router that cannot start; return its sentences. Nobody may have been connected to or listened for."""
    with socket.create_server(("127.0.0.1", 0)) as worker:
        worker.setblocking(False)
        url = f"http://127.0.0.1:{worker.getsockname()[1]}"
        listen = ["--host", "127.0.0.1", "--port", str(free_port() if port is None else port)]
        async with router_process(*listen, "--worker-urls", url, *arguments, **options) as router:
            assert await router.ended() == 2
        with pytest.raises(BlockingIOError):
            worker.accept()
    assert all(line.startswith("router-core: error: ") for line in router.lines), router.lines
    return [line.removeprefix("router-core: error: ").rstrip("\n") for line in router.lines]


async def test_an_unknown_policy_is_named_with_its_nearest_neighbour():
    (problem,) = await refusal("--policy", "cache_awar")
    assert problem.startswith("policy 'cache_awar' is not installed; did you mean 'cache_aware'?")


async def test_an_unknown_option_is_named_with_its_nearest_neighbour():
    (problem,) = await refusal("--policy", "cache_aware", "--policy-option", "cache_treshold=0.5")
    assert problem.startswith("policy.options.cache_treshold: unknown option; did you mean 'cache_threshold'?")


async def test_an_option_out_of_range_is_named_by_its_path():
    (problem,) = await refusal("--policy", "cache_aware", "--policy-option", "cache_threshold=7")
    assert problem.startswith("policy.options.cache_threshold: ")


async def test_several_bad_settings_are_told_together():
    problems = await refusal("--log-level", "loud", settings={"HEALTH__INTERVAL_S": "-1", "LIMITS__NO_SUCH": "1"})
    assert len(problems) == 3
    for part in ("log_level", "health.interval_s", "NO_SUCH"):
        assert any(part.lower() in problem.lower() for problem in problems), (part, problems)


async def test_problems_of_policy_and_observers_are_told_together(tmp_path):
    (tmp_path / "router.yaml").write_text(
        "policy: {name: round_robbin}\nobservers: [metrics, no_such_observer]\nwrappers: ['nowhere:Wrapper']\n"
    )
    problems = await refusal("--config", str(tmp_path / "router.yaml"))
    assert len(problems) == 3
    assert any("'round_robbin' is not installed; did you mean 'round_robin'?" in problem for problem in problems)
    assert any(problem.startswith("observers[1]") for problem in problems)
    assert any(problem.startswith("wrappers[0]") for problem in problems)


async def test_problems_of_parts_that_do_not_need_each_other_are_told_together(tmp_path):
    (tmp_path / "keys.yaml").write_text("keys: []")
    (tmp_path / "router.yaml").write_text(
        "auth: {keys_file: keys.yaml}\ntls: {cert: gone.pem, key: gone.pem}\nmembership: [nofile]\npolicy: nobody\n"
        "models: [{name: m, policy: random, pd: {protocol: nope, prefill: [http://p:1], decode: [http://d:1]}}]\n"
    )
    problems = await refusal("--config", str(tmp_path / "router.yaml"))
    places = [problem.partition(": ")[0] for problem in problems]
    assert places == ["tls.cert", "auth.keys_file", "models[0].pd.protocol", *places[3:4], "membership[0]"]
    assert places[3].startswith("policy 'nobody' is not installed")


async def test_a_misspelt_hook_is_one_sentence(tmp_path):
    (tmp_path / "house.py").write_text(GOOD)
    problems = await refusal("--policy", "house:Misspelt", folder=tmp_path)
    assert any("select_singel" in problem and "select_single" in problem for problem in problems)


@pytest.mark.parametrize("source", ["import no_such_module", "raise SystemExit(0)", "def broken(:"])
async def test_an_in_house_policy_that_cannot_be_imported_is_one_sentence(tmp_path, source):
    (tmp_path / "house.py").write_text(source)
    (problem,) = await refusal("--policy", "house:Policy", folder=tmp_path)
    assert "house:Policy" in problem
    assert "cannot be loaded" in problem


async def test_a_broken_plugin_that_nobody_selected_changes_nothing(simulated_engine, tmp_path):
    (tmp_path / "router_policy_broken.py").write_text("raise RuntimeError('boom')")
    info = tmp_path / "router_policy_broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: router-policy-broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[router_core.policies]\nbroken = router_policy_broken:Broken\n")
    async with (
        simulated_engine() as engine,
        listening_router(engine.url, folder=tmp_path) as router,
        await RawClient.connect(router.url) as client,
    ):
        client.send()
        assert (await client.read_answer())[0] == 200
    (problem,) = await refusal("--policy", "broken", folder=tmp_path)  # it was really there
    assert "router-policy-broken 1.0" in problem
    assert "RuntimeError: boom" in problem


async def test_a_taken_port_is_one_sentence_and_what_had_started_is_stopped(tmp_path):
    (tmp_path / "house.py").write_text(
        GOOD
        + """
class Tidy(Good):
    @hookimpl
    def on_start(self):
        open("started", "w").close()

    @hookimpl
    def on_stop(self):
        open("stopped", "w").close()
"""
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (problem,) = await refusal("--policy", "house:Tidy", port=port, folder=tmp_path)
    assert problem == (
        f"host, port: cannot listen on 127.0.0.1, port {port}: Address already in use; choose another with "
        "--port or --host"
    )
    assert (tmp_path / "started").exists()
    assert (tmp_path / "stopped").exists()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_router_is_not_its_own_worker(host):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (problem,) = await refusal("--worker-urls", f"http://{host}:{port}", port=port)
    assert problem == f"worker_urls: http://{host}:{port} is this router itself; name the workers, or change --port"


async def test_a_wrong_policy_is_told_before_the_port_is_tried():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (problem,) = await refusal("--policy", "no_such", port=taken.getsockname()[1])
    assert "no_such" in problem


async def test_a_policy_that_cannot_start_is_one_sentence(tmp_path):
    (tmp_path / "house.py").write_text(
        GOOD
        + """
class Unstartable(Good):
    @hookimpl
    def on_start(self):
        raise OSError("no disk")
"""
    )
    (problem,) = await refusal("--policy", "house:Unstartable", folder=tmp_path)
    assert "on_start raised OSError: no disk" in problem


async def test_no_workers_is_one_sentence():
    async with router_process("--port", "0") as router:
        assert await router.ended() == 2
    (line,) = router.lines
    assert line.startswith("router-core: error: worker_urls: no worker is named")


async def test_a_policy_of_a_strangers_distribution_serves(simulated_engines, tmp_path):
    (tmp_path / "router_policy_acme.py").write_text(GOOD)
    info = tmp_path / "router_policy_acme-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: router-policy-acme\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text("[router_core.policies]\nacme = router_policy_acme:Good\n")
    async with (
        simulated_engines(2) as engines,
        listening_router(*(engine.url for engine in engines), policy="acme", folder=tmp_path) as router,
        await RawClient.connect(router.url) as client,
    ):
        assert "policy acme (router-policy-acme 2.5), 2 workers" in "".join(router.lines)
        for _ in range(3):
            client.send()
            assert (await client.read_answer())[0] == 200
        assert sorted(engine.accepted for engine in engines) == [0, 3]
