"""The conftest's own promise: an `async def` test cannot fail unseen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"

SAMPLE = """
import asyncio
import socket

import pytest
import uvloop

async def test_fine(tmp_path):
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)

@pytest.mark.async_timeout(0.05)
async def test_endless():
    await asyncio.Event().wait()

async def test_leaves_a_task():
    asyncio.get_running_loop().leaked = asyncio.ensure_future(asyncio.Event().wait())

async def test_fails_behind_its_back():
    async def fail():
        raise ValueError("unseen")
    task = asyncio.ensure_future(fail())
    await asyncio.wait([task])

async def test_leaves_a_socket():
    socket.socket()
"""


def test_what_an_async_test_leaves_behind_fails_it(tmp_path):
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_sample.py").write_text(SAMPLE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "4 failed, 1 passed" in result.stdout, result.stdout
    for sentence in ("took longer than 0.05 s", "left tasks running", "ValueError('unseen')", "unclosed <socket"):
        assert sentence in result.stdout
