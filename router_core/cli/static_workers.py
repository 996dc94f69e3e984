"""The workers that the settings name, and the keys they want."""

from __future__ import annotations

from collections.abc import Iterator

from router_core.config import PdConfig, RouterConfig
from router_core.contract.worker import Worker, WorkerRole
from router_core.fleet.worker_keys import WorkerKeys
from router_core.traffic.pd.protocol import BOOTSTRAP_PORT


def static_workers(config: RouterConfig) -> list[Worker]:
    """Return the workers of the config, not known to be healthy yet; those named under a model serve it."""
    workers = list(_workers(config.worker_urls, config.pd, ()))
    for model in config.models:
        workers += _workers(model.worker_urls, model.pd, (model.name,))
    return workers


def worker_keys(config: RouterConfig) -> WorkerKeys:
    """Return where the workers' API keys stand, with the one of the config for those that have none of their own."""
    key = config.worker_api_key
    return WorkerKeys(None if key is None else key.get_secret_value())


def _workers(urls: tuple[str, ...], pd: PdConfig, models: tuple[str, ...]) -> Iterator[Worker]:
    for url in urls:
        yield Worker(url, models=models, is_healthy=False)
    for prefill in pd.prefill:
        labels = {} if prefill.bootstrap_port is None else {BOOTSTRAP_PORT: str(prefill.bootstrap_port)}
        yield Worker(prefill.url, role=WorkerRole.PREFILL, models=models, labels=labels, is_healthy=False)
    for url in pd.decode:
        yield Worker(url, role=WorkerRole.DECODE, models=models, is_healthy=False)
