"""What is asked of the engines through the router: caches to flush, loads, facts, metrics. Never an inference request.

However many workers there are, `_AT_ONCE` are asked at a time, each address once, and each within a time of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Protocol, TypeVar

import orjson
from aiohttp import web

from router_core.contract.worker import Worker, WorkerRole
from router_core.control.errors import error_response
from router_core.control.health import ProbedPool, is_available, json_response
from router_core.control.merged_metrics import merge_expositions
from router_core.fleet.engine_client import CannotAskError, EngineReply, EngineReplyError
from router_core.relay.shortage import EXHAUSTED

log = logging.getLogger(__name__)

_AT_ONCE = 32
_TIMEOUT_S = 5.0
_FLUSH_TIMEOUT_S = 30.0
_GENERATE_TIMEOUT_S = 20.0
_MAX_METRICS_BYTES = 64 * 1024 * 1024
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NOT_THERE = frozenset({404, 405, 501})

_Answer = TypeVar("_Answer")


class EngineAsker(Protocol):
    """Asks one worker; `EngineClient` does."""

    async def ask(self, method: str, base_url: str, path: str, timeout_s: float) -> EngineReply:
        """Return a worker's answer, whatever its status, or raise `EngineReplyError`."""


class EngineHandlers:
    """Answers what only the engines know.

    Args:
        pools: All pools.
        engines: Asks a worker.
        health_endpoint: Asked in place of `/health_generate` where an engine does not have that.
    """

    def __init__(self, pools: Sequence[ProbedPool], engines: EngineAsker, *, health_endpoint: str = "/health") -> None:
        self._pools = pools
        self._engines = engines
        self._health_endpoint = health_endpoint

    async def flush_cache(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Have every worker flush its cache: 200 when all did, else 206 and who did not."""
        addresses = self._addresses()
        errors = await self._each(addresses, self._flush)
        failed = [{"worker": url, "error": error} for url, error in zip(addresses, errors, strict=True) if error]
        totals = {"total_http_workers": len(addresses), "total_workers": self._worker_count()}
        if not failed:
            message = f"All {len(addresses)} workers have flushed their caches."
            return json_response({"status": "success", "message": message, "workers_flushed": len(addresses), **totals})
        successful = [url for url, error in zip(addresses, errors, strict=True) if not error]
        return json_response(
            {
                "status": "partial_success",
                "message": f"{len(successful)} of {len(addresses)} workers have flushed their caches.",
                "successful": successful,
                "failed": failed,
                **totals,
            },
            status=206,
        )

    async def loads(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with the tokens each worker holds, -1 where it does not say."""
        addresses = self._addresses()
        loads = await self._each(addresses, self._token_load)
        return json_response(
            {"workers": [{"worker": url, "load": load} for url, load in zip(addresses, loads, strict=True)]}
        )

    async def server_info(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with how many pools and workers there are."""
        counts = {"routers_count": len(self._pools), "workers_count": self._worker_count()}
        return json_response({"router_manager": True, **counts})

    async def model_info(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Pass on what the first available worker says of its model; of a pair, the prefill worker."""
        first = self._firsts()
        worker = first.get(WorkerRole.REGULAR) or first.get(WorkerRole.PREFILL)
        if worker is None:
            return error_response(503, "no_workers", "No worker is available that could be asked.")
        try:
            reply = await self._ask_first("GET", worker.base_url, ("/get_model_info", "/model_info"), _TIMEOUT_S)
        except CannotAskError as error:
            return _exhausted(error)
        except EngineReplyError as error:
            log.warning("model info: %s", error)
            return error_response(502, "upstream_connection_failed", "The worker could not be reached.")
        if reply.status != 200:
            return error_response(502, "upstream_bad_answer", f"The worker answered {reply.status}.")
        return web.Response(body=reply.body, content_type=reply.content_type.partition(";")[0] or "application/json")

    async def metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Answer with all workers' metrics as one exposition; whoever does not answer is left out."""
        addresses = self._addresses()
        budget = _MAX_METRICS_BYTES
        lacking: CannotAskError | None = None

        async def scrape(url: str) -> bytes | None:
            nonlocal budget, lacking
            try:
                reply = await self._engines.ask("GET", url, "/metrics", _TIMEOUT_S)
            except EngineReplyError as error:
                lacking = error if isinstance(error, CannotAskError) else lacking
                log.info("left out of the engines' metrics: %s", error)
                return None
            if reply.status != 200:
                return None
            budget -= len(reply.body)
            if budget < 0:
                log.warning("left out of the engines' metrics: %s, all together are too large", url)
                return None
            return reply.body

        expositions = await self._each(addresses, scrape)
        found = [(url, text) for url, text in zip(addresses, expositions, strict=True) if text is not None]
        if not found and lacking is not None:
            return _exhausted(lacking)
        if not found:
            return error_response(500, "all_workers_failed", "All backend requests failed.")
        body = await asyncio.to_thread(merge_expositions, found)
        return web.Response(body=body, headers={"Content-Type": _METRICS_TYPE})

    async def health_generate(self, request: web.Request) -> web.Response:  # noqa: ARG002  # a handler takes the request
        """Have one worker of each role generate a token; 200 when all of them could."""
        firsts = self._firsts()
        if WorkerRole.REGULAR not in firsts and len(firsts) < 2:
            return error_response(503, "no_available_workers", "No worker is available that could be asked.")
        workers = tuple(firsts.values())
        try:
            errors = await self._each([worker.base_url for worker in workers], self._generate)
        except CannotAskError as error:
            return _exhausted(error)
        failed = [error for error in errors if error]
        if failed:
            return error_response(503, "workers_unhealthy", f"{'; '.join(failed)}.")
        asked = [{"worker": worker.url, "worker_type": worker.role.value} for worker in workers]
        return json_response({"status": "ok", "workers": asked})

    # --- one worker ---

    async def _flush(self, url: str) -> str | None:
        """Return None when a worker has flushed its cache, else why not."""
        try:
            reply = await self._ask_first("POST", url, ("/flush_cache", "/reset_prefix_cache"), _FLUSH_TIMEOUT_S)
        except EngineReplyError as error:
            return str(error)
        return None if 200 <= reply.status < 300 else f"it answered {reply.status}: {_shown(reply.body)}"

    async def _token_load(self, url: str) -> int:
        try:
            reply = await self._ask_first("GET", url, ("/get_load", "/v1/loads?include=core"), _TIMEOUT_S)
        except EngineReplyError:
            return -1
        return _tokens(reply.body) if reply.status == 200 else -1

    async def _generate(self, url: str) -> str | None:
        """Return None when a worker could generate a token, else why not."""
        try:
            paths = ("/health_generate", self._health_endpoint)
            reply = await self._ask_first("GET", url, paths, _GENERATE_TIMEOUT_S)
        except CannotAskError:
            raise
        except EngineReplyError as error:
            return str(error)
        return None if 200 <= reply.status < 300 else f"{url} answered {reply.status}"

    async def _ask_first(self, method: str, url: str, paths: Sequence[str], timeout_s: float) -> EngineReply:
        """Return a worker's answer on the first path it knows, else that on the last."""
        for path in paths[:-1]:
            reply = await self._engines.ask(method, url, path, timeout_s)
            if reply.status not in _NOT_THERE:
                return reply
        return await self._engines.ask(method, url, paths[-1], timeout_s)

    # --- all workers ---

    def _worker_count(self) -> int:
        return len({worker.url for pool in self._pools for worker in pool.workers})

    def _addresses(self) -> list[str]:
        return list(dict.fromkeys(worker.base_url for pool in self._pools for worker in pool.workers))

    def _firsts(self) -> dict[WorkerRole, Worker]:
        """Return the first available worker of each role."""
        firsts: dict[WorkerRole, Worker] = {}
        for pool in self._pools:
            for worker in pool.workers:
                if is_available(worker):
                    firsts.setdefault(worker.role, worker)
        return firsts

    @staticmethod
    async def _each(addresses: Iterable[str], ask: Callable[[str], Awaitable[_Answer]]) -> list[_Answer]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def in_turn(url: str) -> _Answer:
            async with gate:
                return await ask(url)

        return await asyncio.gather(*map(in_turn, addresses))


def _exhausted(error: CannotAskError) -> web.Response:
    """Say that the router can ask nobody now, which is no worker's fault."""
    log.error("no worker can be asked: %s", error)
    return error_response(EXHAUSTED.status, EXHAUSTED.code, EXHAUSTED.message, dict(EXHAUSTED.headers))


def _tokens(body: bytes) -> int:
    """Return the tokens an engine holds: the sum over its ranks, -1 when it does not say.

    1. A list of `{num_tokens}` (`/get_load`).  2. An object with such a list in `loads` (`/v1/loads`).
    """
    try:
        document: Any = orjson.loads(body)  # Any: an engine's own JSON
    except orjson.JSONDecodeError:
        return -1
    ranks = document.get("loads") if isinstance(document, dict) else document
    if not isinstance(ranks, list):
        return -1
    found = [tokens for rank in ranks if isinstance(rank, dict) and (tokens := _first_count(rank)) is not None]
    return sum(found) if found else -1


def _first_count(rank: dict[str, Any]) -> int | None:
    counts = (rank.get(name) for name in ("num_tokens", "num_total_tokens", "num_used_tokens"))
    return next((count for count in counts if isinstance(count, int) and count >= 0), None)


def _shown(body: bytes) -> str:
    return body[:200].decode(errors="replace").strip()
