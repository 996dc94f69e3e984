import ast
import inspect
from pathlib import Path

import router_core.testing
from router_core.testing import pytest_plugin


def test_fixtures_work_together(make_worker, make_request, fake_pool):
    fake_pool.advance(1)

    assert make_worker("http://a", load=3).load == 3
    assert make_request("Hello").text == "Hello"
    assert fake_pool.now() == 1.0


def test_nothing_of_ours_is_imported_before_coverage_starts():
    tree = ast.parse(inspect.getsource(pytest_plugin))
    imported = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]

    assert not [line for line in imported if "router_core" in line]
    assert Path(router_core.testing.__file__).read_text() == ""
