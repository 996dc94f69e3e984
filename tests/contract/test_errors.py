"""Errors that carry facts: they come whole out of another process, whose exceptions are pickled, and out of a copy."""

from __future__ import annotations

import ast
import copy
import pickle
from pathlib import Path

import pytest

from router_core.config.values import ContradictionError
from router_core.contract.errors import PolicyContractError, StartupError, UndeclaredNeedError
from router_core.fleet.engine_client import EngineReplyError
from router_core.plugin_host.life import HookTimeoutError
from router_core.relay.request_head import BadRequestError
from router_core.relay.tls import CertificateError

CORE = Path(__file__).parents[2] / "router_core"

# Beside each its message and the facts that have to come along.
ERRORS: list[tuple[Exception, str, dict[str, object]]] = [
    (
        StartupError(["port: taken", "host: unknown"]),
        "port: taken\nhost: unknown",
        {"problems": ("port: taken", "host: unknown")},
    ),
    (StartupError(each for each in ["port: taken"]), "port: taken", {"problems": ("port: taken",)}),
    (PolicyContractError(["no hook"]), "no hook", {"problems": ("no hook",)}),
    (
        UndeclaredNeedError("text"),
        "request.text is not declared: add it to the policy class, needs = frozenset({'text'})",
        {"need": "text"},
    ),
    (ContradictionError("a without b", "b"), "a without b", {"others": ("b",)}),
    (EngineReplyError("answered 404", 404), "answered 404", {"status": 404}),
    (HookTimeoutError(1.5), "did not end within 1.5 s", {"timeout_s": 1.5}),
    (
        BadRequestError(413, "too large", code="payload_too_large", headers=[("Allow", "POST")]),
        "too large",
        {"status": 413, "code": "payload_too_large", "headers": (("Allow", "POST"),)},
    ),
    (CertificateError("key", "is encrypted"), "is encrypted", {"part": "key"}),
]


@pytest.mark.parametrize(("error", "message", "facts"), ERRORS, ids=[type(error).__name__ for error, _, _ in ERRORS])
def test_an_error_comes_whole_out_of_another_process_or_a_copy(
    error: Exception, message: str, facts: dict[str, object]
) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error) == message
        assert {name: getattr(again, name) for name in facts} == facts


def test_an_error_with_a_constructor_of_its_own_is_checked_here() -> None:
    own = {
        node.name
        for path in CORE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and node.name.endswith("Error")
        and any(isinstance(each, ast.FunctionDef) and each.name == "__init__" for each in node.body)
    }
    own.remove("AlreadyRegisteredError")  # of a live worker, which no other process can have
    assert own == {type(error).__name__ for error, _, _ in ERRORS} - {"PolicyContractError"}
