"""Two llama.cpp servers and a router before them, once for the session."""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .installing import InstallError, Recipe, installed, is_installed
from .llamacpp import LlamaCppServer
from .router import RouterProcess
from .tiny_checkpoint import write_tiny_checkpoint
from .tiny_model import cached_tiny_model
from .tiny_tokenizer import MODEL_NAME, write_prose

if TYPE_CHECKING:
    from openai import OpenAI

NEEDED = ("gguf", "numpy", "openai", "tokenizers", "xllamacpp")

Engines = tuple[LlamaCppServer, LlamaCppServer]


@pytest.fixture(scope="session")
def tiny_model(pytestconfig: pytest.Config) -> Path:
    """The model file; also where a session without the engine's packages stops, with the reason."""
    missing = [module for module in NEEDED if importlib.util.find_spec(module) is None]
    if missing:
        reason = f"real engines need {', '.join(missing)}: install the dependency group `engines`"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    return cached_tiny_model(pytestconfig.rootpath / ".cache" / "engines")


@pytest.fixture(scope="session")
def start_engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], LlamaCppServer]:
    """Start one more engine; whoever calls ends it by `with`."""
    logs = tmp_path_factory.mktemp("engines")
    numbers = iter(range(1000))
    return lambda: LlamaCppServer(tiny_model, logs / f"llamacpp-{next(numbers)}.log")


@pytest.fixture(scope="session")
def engines(start_engine: Callable[[], LlamaCppServer]) -> Iterator[Engines]:
    """Two engines that live as long as the session. Do not harm them."""
    with start_engine() as first, start_engine() as second:
        yield first, second


@pytest.fixture(scope="session")
def cache_aware_router(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """The router under `cache_aware` before the session's engines."""
    log = tmp_path_factory.mktemp("router") / "cache_aware.log"
    with RouterProcess([engine.url for engine in engines], log, policy="cache_aware") as router:
        yield router


@pytest.fixture(scope="session")
def round_robin_router(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterProcess]:
    """The router under `round_robin` before the same engines."""
    log = tmp_path_factory.mktemp("router") / "round_robin.log"
    with RouterProcess([engine.url for engine in engines], log, policy="round_robin") as router:
        yield router


@pytest.fixture(scope="session")
def install(pytestconfig: pytest.Config) -> Callable[[Recipe], Path]:
    """Return the Python of an engine's own environment, or skip saying why there is none."""

    def install(recipe: Recipe) -> Path:
        cache = pytestconfig.rootpath / ".cache" / "engines"
        if not (is_installed(recipe, cache) or os.environ.get("INSTALL_ENGINES")):
            pytest.skip(f"{recipe.name} is not installed: `make engines` installs it and runs these tests")
        try:
            return installed(recipe, cache)
        except InstallError as error:
            pytest.skip(f"{recipe.name} cannot be installed: {error}")

    return install


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model for engines that want a folder in Hugging Face's layout."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / MODEL_NAME)


@pytest.fixture
def connect() -> Iterator[Callable[[RouterProcess], OpenAI]]:
    """Make an `openai` client of a router: one that hides nothing by trying again, closed after the test."""
    from openai import OpenAI

    with ExitStack() as clients:

        def connect(router: RouterProcess) -> OpenAI:
            client = OpenAI(base_url=f"{router.url}/v1", api_key="unused", max_retries=0, timeout=60)
            return clients.enter_context(client)

        yield connect


@pytest.fixture
def client(connect: Any, cache_aware_router: RouterProcess) -> OpenAI:
    """An `openai` client of the router under `cache_aware`."""
    return connect(cache_aware_router)


@pytest.fixture
def write_prompt(request: pytest.FixtureRequest) -> Callable[[int], str]:
    """Write a prompt of that many words which no other test and no earlier call has used."""
    random_source = random.Random(request.node.nodeid)
    return lambda words: write_prose(random_source, words)
