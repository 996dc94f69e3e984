"""How many files a router may have open, in a process with limits of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import logging, resource
from router_core.cli.open_files import allow_open_files, room
logging.basicConfig(format="%(message)s")
allow_open_files({connections})
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], *room({connections}))
"""


def allowed(connections: int, *, soft: int, hard: int) -> tuple[int, str]:
    """Return how many files a process may have open after it has seen to it, and what it said."""
    files, _, _, said = seen_to(connections, soft=soft, hard=hard)
    return files, said


def seen_to(connections: int, *, soft: int, hard: int) -> tuple[int, int, int, str]:
    """Return how many files a process may then have open, for how many clients there is room, and what it said."""
    command = f'ulimit -Sn {soft}; ulimit -Hn {hard}; exec "$0" -c "$1"'
    program = PROGRAM.format(connections=connections)
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, program], capture_output=True, text=True, check=True, timeout=60
    )
    files, clients, turned_away = map(int, done.stdout.split())
    return files, clients, turned_away, done.stderr


@pytest.mark.parametrize(
    ("connections", "files"),
    [
        pytest.param(100, 712, id="a client's and a worker's connection for each request"),
        pytest.param(600, 1000, id="as many as may be"),
    ],
)
def test_the_limit_is_raised_for_both_ends_of_each_request(connections: int, files: int):
    assert allowed(connections, soft=200, hard=1000) == (files, "")


def test_a_limit_that_does_not_hold_all_clients_is_told_of():
    files, said = allowed(2000, soft=200, hard=1000)
    assert files == 1000
    assert said.startswith(
        "limits.max_connections is 2000, but only 1000 files may be open: no more than 744 clients are taken; "
        "raise that (ulimit -n)"
    )


@pytest.mark.parametrize("files", [16, 64, 256, 1024, 4096])
def test_clients_leave_files_for_their_workers(files: int):
    _, clients, turned_away, _ = seen_to(16384, soft=files, hard=files)
    assert clients >= 1
    assert files - 14 - clients - turned_away >= min(clients, 128)  # it has 14 open before its first client


def test_a_limit_that_holds_all_clients_lets_all_in():
    assert seen_to(600, soft=200, hard=1000)[1] == 600


def test_a_limit_that_is_high_enough_stays():
    assert allowed(10, soft=900, hard=1000) == (900, "")
