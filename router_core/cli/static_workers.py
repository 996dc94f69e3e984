"""The workers that the settings name, and the keys they want."""

from __future__ import annotations

from router_core.config import RouterConfig
from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.worker_keys import WorkerKeys
from router_core.traffic.pd.protocol import BOOTSTRAP_PORT


def static_workers(config: RouterConfig) -> list[Worker]:
    """Return the workers of the config, not known to be healthy yet."""
    workers = [Worker(url, is_healthy=False) for url in config.worker_urls]
    for prefill in config.pd.prefill:
        labels = {} if prefill.bootstrap_port is None else {BOOTSTRAP_PORT: str(prefill.bootstrap_port)}
        workers.append(Worker(prefill.url, role=WorkerRole.PREFILL, labels=labels, is_healthy=False))
    workers += [Worker(url, role=WorkerRole.DECODE, is_healthy=False) for url in config.pd.decode]
    return workers


def worker_keys(config: RouterConfig) -> WorkerKeys:
    """Return where the workers' API keys stand, with the one of the config for those that have none of their own."""
    key = config.worker_api_key
    return WorkerKeys(None if key is None else key.get_secret_value())
