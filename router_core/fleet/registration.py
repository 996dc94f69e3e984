"""What is learned of an engine when its first health check passes, before it gets its first request.

1. Which engine it is: its list of models tells, which is asked for anyway.
2. Where an SGLang prefill worker's bootstrap server listens, if nobody said.
3. If it is wished, its data-parallel ranks: it becomes one worker for each of them, `url@rank`. SGLang tells how many,
   by other paths; vLLM does not, so the label `dp_size` says it, or a setting for all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.engine_facts import EngineFacts, engine_kind
from router_core.fleet.membership.roster import BOOTSTRAP_PORT_LABEL
from router_core.fleet.registry import WorkerRegistry

log = logging.getLogger(__name__)

DP_SIZE_LABEL = "dp_size"
MAX_RANKS = 1024


class FactsClient(Protocol):
    """Asks an engine what it is; `EngineClient` does."""

    async def fetch_server_info(self, base_url: str, timeout_s: float) -> EngineFacts:
        """Return what it tells; whatever it does not tell is empty."""


class Registrar:
    """Learns what engines are, and takes them apart into their data-parallel ranks.

    Args:
        registry: Where they are registered.
        client: Asks them.
        timeout_s: Seconds each of their answers may take.
        splits: Whether an engine with several ranks becomes a worker for each.
        dp_size: How many one has that neither tells nor has the label.
        learns_ports: Whether prefill workers have bootstrap servers.
    """

    def __init__(
        self,
        registry: WorkerRegistry,
        client: FactsClient,
        *,
        timeout_s: float,
        splits: bool = False,
        dp_size: int = 1,
        learns_ports: bool = False,
    ) -> None:
        self._registry = registry
        self._client = client
        self._timeout_s = timeout_s
        self._splits = splits
        self._dp_size = dp_size
        self._learns_ports = learns_ports

    def identify(self, worker: Worker, models: Sequence[Mapping[str, Any]]) -> None:
        """Learn which engine a worker is; what is known stays known if its models do not tell.

        Args:
            worker: Of the fleet.
            models: What it answers on `/v1/models`. `Any`: an engine's own fields.
        """
        registration = self._registry.at(worker.base_url)
        if registration is not None:
            registration.kind = engine_kind(models) or registration.kind

    async def register(self, worker: Worker) -> None:
        """Learn what engine a worker is; one with several ranks is replaced by a worker for each."""
        if worker.url != worker.base_url:
            return  # it is a rank already
        lacks_port = worker.role is WorkerRole.PREFILL and BOOTSTRAP_PORT_LABEL not in worker.labels
        learns_port = self._learns_ports and lacks_port
        if not (self._splits or learns_port):
            return
        facts = await self._client.fetch_server_info(worker.base_url, self._timeout_s)
        registration = self._registry.at(worker.base_url)
        if registration is None or worker not in registration.workers:
            return  # it left meanwhile
        registration.kind = facts.kind or registration.kind
        if learns_port and facts.bootstrap_port is not None:
            labels = {**worker.labels, BOOTSTRAP_PORT_LABEL: str(facts.bootstrap_port)}
            self._registry.describe(registration, labels=labels)
        if not self._splits:
            return
        dp_size = facts.dp_size or _declared_size(worker) or self._dp_size
        if dp_size > MAX_RANKS:
            log.warning("worker %s tells of %d data-parallel ranks: taken as one worker", worker.url, dp_size)
        elif dp_size > 1 and not worker.is_draining:
            self._registry.split(registration, dp_size, facts.models, facts.adapters)
            log.info("worker %s has %d data-parallel ranks, a worker each", worker.url, dp_size)


def _declared_size(worker: Worker) -> int | None:
    text = worker.labels.get(DP_SIZE_LABEL, "")
    return int(text) if text.isascii() and text.isdigit() else None
