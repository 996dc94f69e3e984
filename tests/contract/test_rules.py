"""The rules of the architecture that an import linter cannot see."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = sorted((ROOT / "router_core").rglob("*.py"))
POLICIES = sorted((ROOT / "plugins").glob("*/src/**/*.py"))

# Opens connections to a worker, or could.
_CONNECTING = {"create_connection", "open_connection", "ClientSession", "create_unix_connection", "urlopen"}
_MUTABLE_MAKERS = {"list", "dict", "set", "defaultdict", "Counter", "deque", "OrderedDict", "bytearray", "count"}


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@pytest.mark.parametrize("path", POLICIES, ids=_name)
def test_a_policy_imports_nothing_of_ours_but_the_api(path: Path) -> None:
    own = path.relative_to(ROOT / "plugins").parts[2]
    ours = {name for name in _imports(_tree(path)) if name.split(".")[0].startswith("router_")}
    assert {name for name in ours if name != "router_core.api" and name.split(".")[0] != own} == set()


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_only_one_file_reads_distribution_metadata(path: Path) -> None:
    if path.name != "distributions.py":
        imported = set(_imports(_tree(path)))
        assert not imported & {"importlib.metadata", "importlib_metadata", "pkg_resources"}


@pytest.mark.parametrize("path", CORE, ids=_name)
def test_only_relay_and_fleet_connect_to_workers(path: Path) -> None:
    # The test kit's clients and the demo's own question to its router are no part of serving.
    if path.parent.name in {"relay", "fleet", "testing"} or path.name == "demo.py":
        return
    used = {node.attr for node in ast.walk(_tree(path)) if isinstance(node, ast.Attribute)}
    used |= {node.id for node in ast.walk(_tree(path)) if isinstance(node, ast.Name)}
    assert not used & _CONNECTING


@pytest.mark.parametrize("path", [*CORE, *POLICIES], ids=_name)
def test_no_module_keeps_state(path: Path) -> None:
    tree = _tree(path)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if not names or not _is_mutable(getattr(node, "value", None)):
            continue
        # A constant table is written in capitals and never written to.
        for name in names:
            assert name.lstrip("_").isupper() or name == "__all__", f"{name} at line {node.lineno}"
            assert not _is_written_to(tree, name), f"{name} is changed at run time"


def _is_mutable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp):
        return True
    if not isinstance(value, ast.Call):
        return False
    maker = value.func
    return (maker.id if isinstance(maker, ast.Name) else getattr(maker, "attr", "")) in _MUTABLE_MAKERS


def _is_written_to(tree: ast.Module, name: str) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            if isinstance(node.value, ast.Name) and node.value.id == name:
                return True
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == name
            and node.attr in {"append", "add", "update", "pop", "clear", "setdefault", "extend", "insert", "remove"}
        ):
            return True
    return False
