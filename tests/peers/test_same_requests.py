"""The same command line and the same requests through sglang-router 0.3.2, vllm-router 0.1.17 and this router.

Workers must be sent equivalent requests. Where they differ, ours is what the client sent, byte for byte:

- they add their defaults to chat and generate bodies (`ADDED`);
- sglang-router renames a chat's `max_tokens` to `max_completion_tokens`;
- they drop fields they do not know from chat and generate bodies, messages and sampling parameters (`x_unknown` here).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from .mixed_requests import UNKNOWN, Sent, mixed_requests
from .recording_worker import Received, RecordingWorker

_ROOT = Path(__file__).parents[2] / ".cache/peers"
SGLANG = Path(os.environ.get("PEER_SGLANG_PYTHON", _ROOT / "sglang/bin/python"))
VLLM = Path(os.environ.get("PEER_VLLM_PYTHON", _ROOT / "vllm/bin/python"))
LAUNCH = (sys.executable, "-m", "router_core", "launch")
SERVE = (sys.executable, "-m", "router_core", "serve")
SEED = 20
ADDED = frozenset(
    {
        *("background", "continue_final_message", "echo", "ignore_eos", "log_metrics", "logprobs", "model", "no_logs"),
        *("max_completion_tokens", "no_stop_trim", "return_bytes", "return_entropy", "return_hidden_states", "stream"),
        *("return_logprob", "return_text_in_logprobs", "separate_reasoning", "skip_special_tokens", "tool_choice"),
        *("include_reasoning", "stream_reasoning"),
    }
)
OF_THE_CONNECTION = {"host", "content-length", "accept", "accept-encoding", "connection", "transfer-encoding"}
BY_ONE_ALONE = {"cookie"}
"""Headers that vllm-router passes on and this router keeps to itself."""

pytestmark = pytest.mark.peers
needs_sglang = pytest.mark.skipif(not SGLANG.exists(), reason="sglang-router is not there; `make peers` installs it")
needs_vllm = pytest.mark.skipif(not VLLM.exists(), reason="vllm-router is not there; `make peers` installs it")
PEERS = [
    pytest.param((str(SGLANG), "-m", "sglang_router.launch_router"), LAUNCH, id="sglang", marks=needs_sglang),
    pytest.param((str(VLLM), "-m", "vllm_router.launch_router"), SERVE, id="vllm", marks=needs_vllm),
]


@pytest.mark.parametrize(("peer", "command"), PEERS)
async def test_regular_workers_are_sent_equivalent_requests(peer, command):
    requests = mixed_requests(200, seed=SEED)
    async with RecordingWorker() as worker:
        arguments = ("--worker-urls", worker.url, "--policy", "round_robin")
        theirs = await through(peer, arguments, requests, worker)
        ours = await through(command, arguments, requests, worker)
    for sent in requests:
        assert_equivalent(sent, theirs[0][sent.id], ours[0][sent.id], beside=set())


@needs_sglang
async def test_both_workers_of_a_pair_are_sent_equivalent_requests():
    requests = mixed_requests(60, seed=SEED, paths=("/v1/chat/completions", "/generate"))
    rooms = {"bootstrap_host", "bootstrap_port", "bootstrap_room"}
    async with RecordingWorker() as prefill, RecordingWorker() as decode:
        arguments = (
            "--pd-disaggregation",
            "--prefill",
            prefill.url,
            "8998",
            "--decode",
            decode.url,
            "--policy",
            "random",
        )
        theirs = await through((str(SGLANG), "-m", "sglang_router.launch_router"), arguments, requests, prefill, decode)
        ours = await through(LAUNCH, arguments, requests, prefill, decode)
    for sent in requests:
        for leg in (0, 1):
            assert_equivalent(sent, theirs[leg][sent.id], ours[leg][sent.id], beside=rooms)
        for recorded in (theirs, ours):
            first, second = (json.loads(recorded[leg][sent.id].body) for leg in (0, 1))
            assert {first[name] == second[name] for name in rooms} == {True}, "both legs name the same room"
            assert (first["bootstrap_host"], first["bootstrap_port"]) == ("127.0.0.1", 8998)
            assert 0 <= first["bootstrap_room"] < 2**63


def assert_equivalent(sent: Sent, theirs: Received, ours: Received, *, beside: set[str]) -> None:
    """Check one request; `beside` are the fields that a router has to add."""
    assert ours.path == theirs.path == sent.path
    if beside:
        assert ours.body.startswith(sent.body.rstrip()[:-1].rstrip())
    else:
        assert ours.body == sent.body
    added, dropped, changed = set(), set(), set()
    for kind, path in differences(json.loads(theirs.body), json.loads(ours.body)):
        {"more": added, "less": dropped, "other": changed}[kind].add(path)
    assert {path.split(".")[-1] for path in added} <= ADDED, added
    if ".max_completion_tokens" in added:
        assert json.loads(theirs.body)["max_completion_tokens"] == json.loads(ours.body)["max_tokens"]
        dropped.discard(".max_tokens")
    assert {path.split(".")[-1] for path in dropped} <= {UNKNOWN}, dropped
    assert {path.split(".")[-1] for path in changed} <= beside, changed
    kept = [
        {name: value for name, value in each.headers.items() if name not in OF_THE_CONNECTION | BY_ONE_ALONE}
        for each in (theirs, ours)
    ]
    assert kept[1] == kept[0]


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield what `theirs` has more, less, or other than `ours`, with where."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name in theirs.keys() | ours.keys():
            where = f"{path}.{name}"
            if name not in ours:
                yield "more", where
            elif name not in theirs:
                yield "less", where
            else:
                yield from differences(theirs[name], ours[name], where)
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif theirs != ours:
        yield "other", path


async def through(
    command: tuple[str, ...], arguments: tuple[str, ...], requests: list[Sent], *workers: RecordingWorker
) -> list[dict[str, Received]]:
    """Return what each worker received when these requests went through a router."""
    for worker in workers:
        worker.received.clear()
    async with running(command, arguments) as url, aiohttp.ClientSession() as session:
        for sent in requests:
            headers = {"content-type": "application/json", "x-request-id": sent.id, **sent.headers}
            async with session.post(url + sent.path, data=sent.body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, (sent, await answer.text())
        # Of a pair, the leg nobody waits for may still be on its way.
        for worker in workers:
            await worker.has_received(len(requests))
    return [dict(worker.received) for worker in workers]


@contextlib.asynccontextmanager
async def running(command: tuple[str, ...], arguments: tuple[str, ...]) -> AsyncIterator[str]:
    """Run a router on free ports until it is ready."""
    ports = []
    for _ in range(2):
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        server.close()
        await server.wait_closed()
    options = ("--host", "127.0.0.1", "--port", str(ports[0]), "--prometheus-port", str(ports[1]))
    process = await asyncio.create_subprocess_exec(
        *command, *arguments, *options, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{ports[0]}"
    try:
        async with asyncio.timeout(30), aiohttp.ClientSession() as session:
            while not await _is_ready(session, url + ("/health" if "vllm_router" in command[2] else "/readiness")):  # noqa: ASYNC110  # another process's state
                await asyncio.sleep(0.05)
        yield url
    finally:
        process.terminate()
        await process.wait()


async def _is_ready(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
