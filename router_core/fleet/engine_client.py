"""Asking a worker how it is and what it serves. For upkeep, never on a request's path."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson

_MAX_REPLY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_CANNOT_REACH = (aiohttp.ClientError, OSError, ValueError)  # ValueError: a host name or address that is none


class EngineReplyError(Exception):
    """A worker could not be asked, or what it answered is not what was asked for."""


class EngineClient:
    """Probes workers; use it as `async with EngineClient() as client`.

    Every probe is a connection of its own: a check then also tells whether the worker still accepts connections, and
    never trips over one the engine has just closed. Redirects are not followed, since requests would not follow them.

    Args:
        headers: Sent with every probe, such as `{"Authorization": "Bearer ..."}` for engines that want a key.
    """

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # No limit: workers that hang would use it up, and those that are well would fail their checks.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; probes under way fail."""
        if self._session is not None:
            await self._session.close()

    async def check_health(self, base_url: str, endpoint: str, timeout_s: float) -> str | None:
        """Ask a worker whether it is well.

        Args:
            base_url: The worker's address.
            endpoint: The path to ask, such as `/health`.
            timeout_s: Seconds it may take to answer.

        Returns:
            None when it is well, else the reason why not, for a log line.
        """
        try:
            async with self._get(base_url, endpoint, timeout_s) as response:
                if 200 <= response.status < 300:
                    return None
                return f"GET {endpoint} answered {response.status}"
        except TimeoutError:
            return f"GET {endpoint} took longer than {timeout_s:g} s"
        except _CANNOT_REACH as error:
            return f"GET {endpoint} failed: {_described(error)}"

    async def fetch_models(self, base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        """Ask a worker which models it serves.

        Args:
            base_url: The worker's address.
            timeout_s: Seconds it may take to answer.

        Returns:
            The items of its `GET /v1/models`, as they came; each has a text `id`.

        Raises:
            EngineReplyError: If it does not answer, or not with a list of models.
        """
        where = f"GET {base_url}/v1/models"
        try:
            async with self._get(base_url, "/v1/models", timeout_s) as response:
                if response.status != 200:
                    raise EngineReplyError(f"{where} answered {response.status}")
                body = await _read_bounded(response, where)
        except TimeoutError as error:
            raise EngineReplyError(f"{where} took longer than {timeout_s:g} s") from error
        except _CANNOT_REACH as error:
            raise EngineReplyError(f"{where} failed: {_described(error)}") from error
        return _model_items(body, where)

    def _get(self, base_url: str, path: str, timeout_s: float) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            raise RuntimeError("EngineClient is not open: use it as `async with EngineClient() as client`")
        return self._session.get(
            base_url.rstrip("/") + path,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        )


async def _read_bounded(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            raise EngineReplyError(f"{where} answered more than {_MAX_REPLY_BYTES} bytes")
    return bytes(body)


def _model_items(body: bytes, where: str) -> list[dict[str, Any]]:
    """Return the models of a reply. `Any`: an engine's own fields are passed on, whatever they are."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EngineReplyError(f"{where} answered something that is not JSON: {body[:80]!r}") from error
    items = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(items, list):
        raise EngineReplyError(f"{where} answered JSON without a list `data`: {body[:80]!r}")
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__
