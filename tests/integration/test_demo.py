"""What `make run` starts, seen from outside."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import socket
import subprocess
import sys

import aiohttp
import pytest


@contextlib.asynccontextmanager
async def demo(*arguments):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_core", "demo", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def read_until(process, end):
    text = ""
    while end not in text:
        line = (await process.stdout.readline()).decode()
        assert line, f"ended too early: {text}\n{(await process.stderr.read()).decode()}"
        text += line
    return text


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_it_answers_says_who_did_and_ends_in_good_order(number):
    port = free_port()
    async with demo("--port", str(port)) as process:
        text = await read_until(process, "Ctrl-C ends it.")
        assert f"router   http://127.0.0.1:{port}\n" in text
        assert "policy   predicted_latency (router-policy-predicted-latency" in text
        assert "> Which worker answers me, and why?\nYou said: Which worker answers me, and why? [" in text
        workers = dict(re.findall(r"worker   (\S+)  (\S+)", text))
        name, url = re.search(r"served by (\S+), (\S+)", text).groups()
        assert workers[url] == name
        assert len(workers) == 3
        process.send_signal(number)
        assert await process.wait() == 0
        assert await process.stderr.read() == b""
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(url)


async def test_a_taken_port_is_one_sentence_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with demo("--port", str(port)) as process:
            out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert err.decode().startswith(f"router-core: error: --port: cannot listen on 127.0.0.1:{port}: ")
    assert err.count(b"\n") == 1


async def test_another_policy_can_be_shown():
    async with demo("--port", str(free_port()), "--workers", "1", "--policy", "round_robin") as process:
        text = await read_until(process, "Ctrl-C ends it.")
    assert "policy   round_robin (router-policy-round-robin" in text
    assert "served by worker-1, " in text


async def test_an_unknown_policy_is_named_before_anything_runs():
    async with demo("--port", str(free_port()), "--policy", "no_such") as process:
        out, err = await process.communicate()
    assert process.returncode == 2
    assert out == b""
    assert b"no_such" in err
