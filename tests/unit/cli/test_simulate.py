"""`router-core simulate` and `router-core trace`, as somebody types them."""

from __future__ import annotations

import json

import pytest

from router_core.cli.main import main
from router_core.simulate import read_trace

SMALL = ["--workload", "bursts:{requests: 60}", "--seeds", "1", "--jobs", "1"]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def simulated(capsys, *arguments):
    assert main(["simulate", *SMALL, "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def problems(capsys, *arguments):
    assert main(list(arguments)) == 2
    return capsys.readouterr().err


def test_several_policies_are_compared_in_a_table(capsys):
    assert main(["simulate", *SMALL, "--policy", "round_robin", "--policy", "twin=random", "--workers", "2"]) == 0
    shown = capsys.readouterr()
    assert "bursts: 60 requests" in shown.out
    assert "round_robin" in shown.out
    assert "twin" in shown.out
    assert shown.err == ""


def test_without_a_policy_all_installed_ones_and_the_yardsticks_take_part(capsys):
    names = [policy["policy"] for policy in simulated(capsys)["policies"]]
    assert {"round_robin", "random", "cache_aware", "oracle_greedy", "oracle_pooled"} <= set(names)
    assert len(names) == len(set(names))


def test_load_is_a_share_of_what_saturates_the_fleet(capsys):
    full, half = (simulated(capsys, "--policy", "random", "--load", load)["rate"] for load in ("1", "0.5"))
    assert half == pytest.approx(full / 2)


def test_load_warns_of_a_trace_that_all_runs_at_once(capsys):
    def warned(engine):
        assert main(["simulate", *SMALL, "--policy", "random", "--load", "0.5", "--engine", engine]) == 0
        return capsys.readouterr().err

    assert "--load: 60 requests are few for engines that run 31 at once" in warned("h100_8b:{max_running: 31}")
    assert warned("h100_8b:{max_running: 30}") == ""


def test_a_fleet_may_be_mixed_paired_and_fail(capsys):
    mixed = simulated(
        capsys, "--policy", "random", "--engine", "2*h100_8b", "--engine", "l4_8b_fp8:{cache_tokens: 5000}"
    )
    assert [engine["cache_tokens"] for engine in mixed["engines"]] == [400_000, 400_000, 5000]
    pairs = simulated(
        capsys, "--policy", "random", "--prefill", "h100_8b", "--decode", "2*h100_8b", "--cache-tokens", "1.6M"
    )
    assert [(e["role"], e["cache_tokens"]) for e in pairs["engines"]] == [
        ("prefill", 1_600_000),
        ("decode", 1_600_000),
        ("decode", 1_600_000),
    ]
    failing = simulated(capsys, "--policy", "random", "--workers", "1", "--fail", "0@1+2", "--warm-up", "0")
    assert failing["policies"][0]["figures"]["failed"]["mean"] > 0


def test_numbers_may_be_written_with_an_exponent(capsys):
    engine = "h100_8b:{prefill_pair_s: 3e-9, cache_tokens: 5e4}"
    policy = "cache_aware:{cache_threshold: 5e-1}"
    report = simulated(
        capsys, "--engine", engine, "--policy", policy, "--workload", "bursts:{requests: 6e1, rate: 1e1}"
    )
    assert report["engines"] == [{"role": "regular", "cache_tokens": 50_000}]
    assert report["trace"]["requests"] == 60


def test_a_page_that_cannot_be_written_is_an_error_after_the_figures(capsys, tmp_path):
    full = tmp_path / "full.html"
    full.symlink_to("/dev/full")
    assert main(["simulate", *SMALL, "--policy", "random", "--json", "--html", str(full)]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["policies"]
    assert "No space left on device; name a file that can" in said.err


def test_the_headline_tells_prefill_from_decode_engines(capsys):
    assert main(["simulate", *SMALL, "--policy", "random", "--prefill", "h100_8b", "--decode", "2*h100_8b"]) == 0
    assert "1 prefill and 2 decode engines, 1 run each" in capsys.readouterr().out


def test_a_page_is_written(capsys, tmp_path):
    simulated(capsys, "--policy", "random", "--html", str(tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_policy_in_a_file_takes_part_and_its_faults_show(capsys, tmp_path):
    (tmp_path / "my_policies.py").write_text(
        "from router_core.api import hookimpl\n"
        "class Bad:\n"
        "    @hookimpl\n"
        "    def select_single(self, workers, request):\n"
        "        raise RuntimeError('no')\n"
    )
    assert main(["simulate", *SMALL, "--policy", "my_policies:Bad", "--app-dir", str(tmp_path)]) == 1
    assert "60 faults" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "rund_robin"], "rund_robin"),
        (["--policy", "cache_aware:{treshold: 1}"], "did you mean"),
        (["--policy", "cache_aware:{"], "--policy cache_aware:{: cannot be read"),
        (["--policy", "weighted:{scorers: {prefix: 3, prefix: 2}}"], "prefix stands twice"),
        (["--workload", "bursts:{rate: 1, rate: 2}"], "rate stands twice"),
        (["--policy", "random", "--policy", "random"], "given twice"),
        (["--workers", "0"], "--workers: 0"),
        (["--seeds", "0"], "--seeds: 0"),
        (["--rate", "0"], "--rate: 0"),
        (["--rate", "1", "--load", "1"], "--load: --rate is given too"),
        (["--warm-up", "1"], "--warm-up"),
        (["--engine", "h1000"], "unknown preset 'h1000'"),
        (["--engine", "h100_8b:{cache: 1}"], "unknown constant 'cache'"),
        (["--engine", "h100_8b:{step_token_budget: 0}"], "step_token_budget"),
        (["--engine", "h100_8b:{step_s: fast}"], "'fast' is no number"),
        (["--engine", "h100_8b:{step_s: 1e999}"], "step_s: inf is no number"),
        (["--engine", "h100_8b:{cache_tokens: 1e-3}"], "0.001 is no whole number"),
        (["--engine", "h100_8b", "--workers", "2"], "one or the other"),
        (["--prefill", "h100_8b"], "needs both"),
        (["--prefill", "h100_8b", "--engine", "h100_8b"], "not both"),
        (["--cache-tokens", "many"], "--cache-tokens many"),
        (["--fail", "1"], "--fail 1: cannot be read"),
        (["--fail", "9@1"], "--fail 9@1: there is no worker 9; give 0 to 3"),
        (["--workload", "burst"], "workload burst: unknown"),
        (["--workload", "bursts:{rate: 0}"], "rate"),
        (["none.jsonl"], "none.jsonl"),
        (["--html", "/nowhere/a.html"], "/nowhere is no folder"),
        (["--policy", "random + random"], "prefill and decode engines"),
        (["--policy", "nobody > random"], "wrapper 'nobody' is not installed"),
        (["--seeds", "99999999999"], "--seeds: 99,999,999,999 is too many; give 1 to 1,000"),
        (["--retries", "5000"], "--retries: 5,000 is too many"),
        (["--rate", "inf"], "--rate: inf is no number above 0"),
        (["--load", "nan"], "--load: nan is no number above 0"),
        (["--engine", "4000*h100_8b", "--engine", "4000*h100_8b"], "8,000 are too many; give up to 4,096"),
        (["--engine", f"{10**17}*h100_8b"], f"*h100_8b: {10**17:,} are too many; give up to 4,096"),
        (["--prefill", f"{10**17}*h100_8b"], f"{10**17:,} are too many"),
        (["--decode", f"{10**17}*h100_8b"], f"{10**17:,} are too many"),
        (["--engine", f"{'9' * 5000}*h100_8b"], "cannot be read"),
        (["--engine", "h100_8b:{max_running: 0}"], "max_running: 0 is not positive"),
        (["--engine", "h100_8b:{step_s: .inf}"], "step_s: inf is no number from 0 on"),
        (["--fail", "0@1.2.3"], "--fail 0@1.2.3: cannot be read"),
        (["--workload", "bursts:{requests: 99999999999}"], "requests: input should be less than or equal to 100000000"),
        (["--html", "."], "--html: . is a folder; name a file"),
        (["--observer", "metrik"], "did you mean 'metrics'"),
        (
            ["--observer", "nosuch"],
            "'nosuch' is not installed; install the package that offers it, or give another one",
        ),
        (["--observer", "metrics:{"], "--observer metrics:{: cannot be read"),
        (["--transfer-ms", "8"], "--transfer-ms: no KV cache travels without pairs; give --prefill and --decode"),
        (["--transfer-token-us", "8"], "--transfer-token-us: no KV cache travels without pairs"),
        (["--split", "session"], "--split: there is one router only; give --routers 2 or more"),
        (["--constants", "fast", "--engine", "h100_8b"], "--constants: the engines are given one by one"),
        (["--block-tokens", "64"], "--block-tokens: a made-up trace has blocks of its own"),
        (["--header", "x-tenant=tenant"], "--header x-tenant=tenant: cannot be read"),
    ],
)
def test_what_cannot_be_used_is_said_before_anything_runs(capsys, arguments, said):
    assert said in problems(capsys, "simulate", *arguments)


def test_a_trace_is_generated_inspected_and_simulated(capsys, tmp_path):
    path = str(tmp_path / "t.jsonl.gz")
    assert main(["trace", "generate", "sessions:{requests: 40, turns: 4}", "-o", path]) == 0
    assert "40" in capsys.readouterr().out
    assert main(["trace", "inspect", path, "--json"]) == 0
    (figures,) = json.loads(capsys.readouterr().out)
    assert (figures["requests"], figures["sessions"], figures["is_closed_loop"]) == (40, 10, True)
    assert (
        main(["simulate", path, "--policy", "random", "--seeds", "1", "--jobs", "1", "--requests", "5", "--json"]) == 0
    )
    assert json.loads(capsys.readouterr().out)["trace"]["requests"] == 20


def test_a_trace_is_converted(capsys, tmp_path):
    source, target = tmp_path / "a.csv", tmp_path / "b.jsonl"
    source.write_text("timestamp,input_tokens,output_tokens\n0,10,1\n1,20,2\n")
    assert main(["trace", "convert", "--from", "csv", str(source), "-o", str(target)]) == 0
    assert [one.prompt_tokens for one in read_trace(target).requests] == [10, 20]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "bursts"], "--output"),
        (["generate", "bursts", "sessions", "-o", "x"], "one workload"),
        (
            ["generate", "bursts", "-o", "/nowhere/x"],
            "--output /nowhere/x: cannot be written: No such file or directory",
        ),
        (["generate", "bursts", "-o", "/nowhere/x"], "; name a file that can, in a folder that is there"),
        (["inspect", "none.jsonl"], "none.jsonl"),
        (["inspect", "none.jsonl", "--requests", "0"], "--requests: 0"),
        (["inspect", "a.csv", "--from", "csv"], "--from: inspect does not heed it, only convert; leave it out"),
        (["inspect", "a.jsonl", "--output", "b"], "--output: inspect does not heed it, only convert and generate"),
        (["generate", "bursts", "-o", "b", "--block-tokens", "64"], "--block-tokens: generate does not heed it"),
        (["generate", "bursts", "-o", "b", "--seed", "1"], "--seed: generate does not heed it"),
        (["convert", "a.csv", "-o", "b", "--json"], "--json: convert does not heed it"),
        (["convert", "a.csv", "-o", "b", "--from", "csv", "--tick", "3"], "--tick: --from csv does not heed it"),
    ],
)
def test_trace_says_what_it_cannot_use(capsys, arguments, said):
    assert said in problems(capsys, "trace", *arguments)


WATCH = """
from router_core.api import hookimpl
class First:
    @hookimpl(wrapper=True)
    def select_single(self, workers):
        yield
        return workers[0]
class Refuses:
    needs = frozenset({"header:x-tenant"})
    @hookimpl
    def on_request_complete(self, request):
        if request.headers.get("x-tenant"):
            raise RuntimeError("seen")
"""


def test_wrappers_observers_headers_and_a_policy_for_each_side_take_part(capsys, tmp_path):
    (tmp_path / "watch.py").write_text(WATCH)
    trace = tmp_path / "t.jsonl"
    row = {"timestamp": 0, "input_length": 900, "output_length": 20, "hash_ids": [], "user": "u"}
    trace.write_text("".join(json.dumps({**row, "timestamp": 100 * number}) + "\n" for number in range(8)))
    plugins = ["--app-dir", str(tmp_path), "--policy", "a=watch:First > random + random", "--observer", "watch:Refuses"]
    fleet = ["--prefill", "2*h100_8b", "--decode", "2*h100_8b", "--seeds", "1", "--jobs", "1", "--warm-up", "0"]
    assert main(["simulate", str(trace), *plugins, *fleet, "--json", "--header", "X-Tenant=user"]) == 1
    (policy,) = json.loads(capsys.readouterr().out)["policies"]
    assert policy["faults"] == {"watch:Refuses: raised": 16}
    assert policy["figures"]["imbalance"]["mean"] == 2  # the wrapper has the first of two on each side


MASK = """
import signal
from pathlib import Path
from router_core.api import hookimpl
class Reports:
    @hookimpl
    def on_start(self, pool):
        Path(__file__).with_name("mask").write_text(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
    @hookimpl
    def select_single(self, workers):
        return workers[0]
"""


def test_ctrl_c_reaches_the_command_alone_and_not_its_processes(tmp_path):
    (tmp_path / "masked.py").write_text(MASK)
    two = ["--seeds", "2", "--jobs", "2", "--workload", "bursts:{requests: 10}"]
    assert main(["simulate", "--policy", "masked:Reports", "--app-dir", str(tmp_path), *two]) == 0
    assert (tmp_path / "mask").read_text() == "True"


DIES = """
import os
from router_core.api import hookimpl
class Dies:
    @hookimpl
    def select_single(self, workers):
        os.{how}
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("_exit(9)", "its process ended with code 9"),
        ("kill(os.getpid(), 9)", "its process was ended by signal 9; give fewer --jobs if there was too little memory"),
    ],
)
def test_a_run_whose_process_ends_is_told_of_in_one_line(capsys, tmp_path, how, said):
    (tmp_path / "dying.py").write_text(DIES.format(how=how))
    two = ["--seeds", "2", "--jobs", "2", "--workload", "bursts:{requests: 10}"]
    assert main(["simulate", "--policy", "dying:Dies", "--app-dir", str(tmp_path), *two]) == 1
    shown = capsys.readouterr()
    assert f"router-core: error: policy dying:Dies, seed 0: {said}\n" in shown.err.replace("seed 1", "seed 0")
    assert "Traceback" not in shown.err
