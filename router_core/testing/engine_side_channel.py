"""How a simulated decode engine asks a simulated prefill engine for a KV cache: over HTTP, in this process or another.

It stands for SGLang's and Mooncake's bootstrap servers, NIXL's side channel and the P2P connector's socket alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp import web

from router_core.testing.engine_request import BadRequestError, read_json
from router_core.testing.engine_transfer import RefusedLegError, TransferLostError, TransferTable

CLAIM_PATH = "/simulated/claim"
_REFUSED = 409
_LOST = 410


class Claim(NamedTuple):
    """What a decode engine asks for; see `TransferTable.claim`."""

    key: str
    claims: Mapping[str, Any]
    may_wait: bool


class SideChannel:
    """The prefill engine's end.

    Args:
        table: What it may hand out.
        engine_ids: The engine's id on each data-parallel rank.
    """

    def __init__(self, table: TransferTable, engine_ids: Sequence[str]) -> None:
        self._table = table
        self._engine_ids = engine_ids

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a claim, or Mooncake's `/query` for the engine's ids."""
        body = await request.read()

        def is_there() -> bool:
            return request.transport is not None and not request.transport.is_closing()

        if request.method == "GET" and request.path == "/query":
            ranks = enumerate(self._engine_ids)
            return _json({str(rank): {"engine_id": engine_id, "worker_addr": {}} for rank, engine_id in ranks})
        if request.method != "POST" or request.path != CLAIM_PATH:
            return _json({"error": "Not Found"}, 404)
        try:
            for claim in read_json(body)["claims"]:
                facts, may_wait = claim["claims"], claim["may_wait"]
                await self._table.claim(claim["key"], facts, may_wait=may_wait, is_there=is_there)
        except TransferLostError as error:
            return _json({"error": str(error)}, _LOST)
        except BadRequestError as error:
            return _json({"error": str(error)}, _REFUSED)
        return _json({})


class SideChannelClient:
    """The decode engine's end. Close it."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def claim(self, address: str, claims: Sequence[Claim], timeout_s: float) -> None:
        """Fetch KV caches from one prefill engine.

        Args:
            address: Its side channel, such as `http://127.0.0.1:8998`.
            claims: What to fetch.
            timeout_s: How long to wait.

        Raises:
            RefusedLegError: If the prefill engine says that the decode leg is wrong.
            TransferLostError: If it cannot be reached, has lost the KV cache, or it does not come in time.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        body = orjson.dumps({"claims": [claim._asdict() for claim in claims]})
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.post(address + CLAIM_PATH, data=body, timeout=timeout) as response:
                status, answer = response.status, await response.read()
        except TimeoutError as error:
            keys = ", ".join(claim.key for claim in claims)
            raise TransferLostError(f"{keys} did not come from {address} within {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TransferLostError(f"no prefill engine at {address}: {error!r}") from error
        if status == _REFUSED:
            raise RefusedLegError(read_json(answer)["error"])
        if status != 200:
            raise TransferLostError(f"{address} answered {status}: {answer[:200]!r}")

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(answer), status=status, content_type="application/json")
