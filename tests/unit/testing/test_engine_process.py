from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import aiohttp
import pytest

from router_core.testing.engine_process import EngineProcess


async def test_a_process_serves_as_many_engines_as_asked_and_ends_with_its_context():
    async with (
        EngineProcess("--count", "3", "--name", "w", "--model", "m1") as engines,
        aiohttp.ClientSession() as session,
    ):
        assert len(engines.urls) == 3
        names = []
        for url in engines.urls:
            async with session.post(url + "/v1/completions", json={"prompt": "x"}) as response:
                names.append(response.headers["x-simulated-engine"])
        pid = engines.pid
    assert names == ["w-1", "w-2", "w-3"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_busy_port_is_one_sentence_and_exit_code_2():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router_core.testing.simulated_engine", "--port", str(taken.getsockname()[1])),
            stderr=subprocess.PIPE,
        )
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert errors.startswith(b"cannot listen: ")
    assert errors.count(b"\n") == 1


async def test_engines_that_cannot_start_are_an_error():
    with pytest.raises(RuntimeError, match="exit code 2"):
        await EngineProcess("--no-such-option").start()


async def test_sigterm_ends_it_in_good_order():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_core.testing.simulated_engine"), stdout=subprocess.PIPE
    )
    assert (await process.stdout.readline()).startswith(b"http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_the_engines_die_with_a_parent_that_is_killed():
    parent_program = textwrap.dedent("""
        import asyncio
        from router_core.testing.engine_process import EngineProcess
        async def main():
            async with EngineProcess() as engines:
                print(engines.pid, flush=True)
                await asyncio.Event().wait()
        asyncio.run(main())
    """)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", parent_program, stdout=subprocess.PIPE)
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()
    async with asyncio.timeout(10):
        while _is_alive(pid):  # noqa: ASYNC110 - nobody tells a grandparent
            await asyncio.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
