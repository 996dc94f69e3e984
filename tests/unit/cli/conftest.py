import os
import subprocess
import sys
from typing import NamedTuple

import pytest

GOOD = """
from router_core.api import PolicyConfig, hookimpl, least_loaded

class Good:
    '''Take the least loaded one.

    The rest of the story.
    '''

    needs = frozenset({"prefix"})

    class Config(PolicyConfig):
        margin: int = 8
        \"\"\"How much busier a home may be.\"\"\"

    def __init__(self, config): ...

    @hookimpl
    def select_single(self, workers):
        return least_loaded(workers)
"""


class Finished(NamedTuple):
    code: int
    out: str
    err: str


class Site:
    """A folder on the import path, to put made-up distributions and modules into."""

    good_source = GOOD

    def __init__(self, folder):
        self.folder = folder

    def module(self, name, source=GOOD):
        (self.folder / f"{name}.py").write_text(source)

    def distribution(self, name, entry_points, *, version="1.0", summary="Does its best"):
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n")
        lines = "".join(f"{key} = {target}\n" for key, target in entry_points.items())
        (info / "entry_points.txt").write_text(f"[router_core.policies]\n{lines}")
        return info


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    return Site(folder)


@pytest.fixture
def router_core(site, tmp_path):
    """Run `router-core` as a user does, away from this repository."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ROUTER_CORE_")}

    def run(*arguments, **variables):
        completed = subprocess.run(
            [sys.executable, "-P", "-m", "router_core", *arguments],
            env={**environ, "PYTHONPATH": str(site.folder), "COLUMNS": "120", **variables},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Finished(completed.returncode, completed.stdout, completed.stderr)

    return run
