"""The tests here need the real client library; without it they skip, but in CI they fail."""

from __future__ import annotations

import importlib.util
import os

import pytest


@pytest.fixture
def kubernetes_library() -> None:
    if importlib.util.find_spec("kubernetes_asyncio") is not None:
        return
    reason = "kubernetes-asyncio is not installed: pip install 'router-core[kubernetes]'"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
