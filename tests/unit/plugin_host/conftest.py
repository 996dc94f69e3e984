"""A clock that tests move, workers, requests, and the deliberately bad plugins."""

import sys
from pathlib import Path

import pytest

from router_core.api import LiteralPrompt, RoutingRequest, Worker, WorkerRole
from router_core.plugin_host.discovery import load_policy

PLUGINS = Path(__file__).parents[2] / "plugins"


class Clock:
    """Seconds that pass only when a test says so."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def workers():
    return tuple(Worker(f"http://w{index}", load=load) for index, load in enumerate((3, 1, 2)))


@pytest.fixture
def prefill_workers():
    return tuple(Worker(f"http://p{index}", role=WorkerRole.PREFILL, load=1 - index) for index in range(2))


@pytest.fixture
def decode_workers():
    return tuple(Worker(f"http://d{index}", role=WorkerRole.DECODE, load=1 - index) for index in range(2))


@pytest.fixture
def request_():
    return RoutingRequest("request-1", LiteralPrompt("Hello"))


@pytest.fixture
def bad(monkeypatch):
    """A factory: the class of a deliberately bad plugin, such as `bad("bad_slow:Slow")`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield lambda target: load_policy(target, app_dir=PLUGINS).cls
    for name in [name for name in sys.modules if name.startswith("bad_")]:
        del sys.modules[name]
