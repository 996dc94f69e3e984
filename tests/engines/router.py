"""The router as its users run it: `router-core serve` in a child process of its own."""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from .processes import ChildProcess, free_port, wait_until
from .scraping import answers

_PREFIX = "ROUTER_CORE_"


class RouterProcess:
    """A running router: `with RouterProcess(workers, log, policy="round_robin") as router: router.url`.

    It is entered once all its workers are healthy.

    Attributes:
        url: Its address, `http://127.0.0.1:<port>`.
    """

    def __init__(
        self,
        workers: Sequence[str],
        log: Path,
        *,
        policy: str,
        policy_options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `settings` are of its environment, without their prefix: `HEALTH__INTERVAL_S`."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._workers = len(workers)
        command = [sys.executable, "-m", "router_core", "serve", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--worker-urls", *workers, "--policy", policy]
        command += [word for option in policy_options for word in ("--policy-option", option)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        environment[f"{_PREFIX}LIMITS__SHUTDOWN_SETTLE_S"] = "0"  # no balancer has to notice its end
        environment |= {_PREFIX + name: value for name, value in (settings or {}).items()}
        self._process = ChildProcess(command, log, environment)

    def __enter__(self) -> Self:
        try:
            wait_until(self._has_all_workers_or_ended, f"router ready with {self._workers} workers")
        except TimeoutError as error:
            self._process.end()
            raise TimeoutError(f"{error}; it said:\n{self._process.said()}") from None
        if not self._process.is_running():
            self._process.end()
            raise RuntimeError(f"the router did not start:\n{self._process.said()}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.end()

    def healthy_workers(self) -> int:
        """Return how many workers the router says are healthy; 0 while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.url}/readiness", timeout=10) as response:
                return int(json.load(response)["healthy_workers"])
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        return 0

    def in_flight(self) -> int:
        """Return how many requests the router holds reserved on its workers, by its own metrics."""
        return int(sum(self.figures("worker_requests_active").values()))

    def figures(self, name: str, **labels: str) -> dict[str, float]:
        """Return the router's figures `router_core_<name>` that have these labels, by worker (empty without one)."""
        found: dict[str, float] = {}
        for family in text_string_to_metric_families(answers(f"{self.url}/metrics")):
            for sample in family.samples:
                if sample.name == f"router_core_{name}" and labels.items() <= sample.labels.items():
                    worker = sample.labels.get("worker", "")
                    found[worker] = found.get(worker, 0) + sample.value
        return found

    def _has_all_workers_or_ended(self) -> bool:
        return not self._process.is_running() or self.healthy_workers() == self._workers
