"""`make audit` fails when a dependency has a known vulnerability, and says so when nobody could look."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
AUDIT = Path(__file__).parents[1] / "audit_dependencies.py"
ADVISORY = {
    "id": "PYSEC-2026-1",
    "summary": "Made up for a test.",
    "affected": [
        {
            "package": {"name": "pluggy", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


@contextmanager
def advisories(*vulnerable: str) -> Iterator[str]:
    """Serve a list of vulnerabilities in which these distributions stand; yields where."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            is_listed = query["package"]["name"] in vulnerable
            body = json.dumps({"vulns": [ADVISORY]} if is_listed else {}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1/query"
        finally:
            server.shutdown()
            thread.join()


def audit(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, AUDIT, "--osv-url", url], capture_output=True, text=True, timeout=120)


def test_a_dependency_with_a_known_vulnerability_fails_the_audit():
    with advisories("pluggy") as url:
        done = audit(url)
    assert done.returncode == 1, done
    assert f"pluggy {importlib.metadata.version('pluggy')}: PYSEC-2026-1, fixed in 99.1" in done.stderr
    assert "1 with known vulnerabilities; require the fixed versions in pyproject.toml" in done.stderr


def test_without_one_it_passes_and_says_how_many_were_looked_up():
    with advisories() as url:
        done = audit(url)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 10
    assert "0 with known vulnerabilities" in done.stdout


def test_where_no_list_can_be_reached_it_says_that_nobody_looked():
    done = audit("http://127.0.0.1:1/v1/query")
    assert (done.returncode, done.stdout) == (0, "")
    assert "dependencies were NOT audited" in done.stderr
