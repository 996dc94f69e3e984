"""Asking a worker how it is and what it serves. For upkeep, never on a request's path."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import orjson

from router_core.fleet.engine_facts import EngineFacts, facts_of
from router_core.relay.shortage import REMEDIES, shortage_of
from router_core.relay.tls import CertificateError, WorkerTls, describe_tls_error

_MAX_REPLY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
# ValueError: a host name or address that is none.
_CANNOT_REACH = (aiohttp.ClientError, OSError, ValueError, CertificateError)


class EngineReplyError(Exception):
    """A worker could not be asked, or what it answered is not what was asked for.

    Attributes:
        status: The status it answered; None when there was no answer.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class CannotAskError(EngineReplyError):
    """The router itself had no means to ask, which says nothing of the worker."""


class EngineReply(NamedTuple):
    """What a worker answered, whatever its status."""

    status: int
    content_type: str
    body: bytes


class Refusal(str):
    """Why a worker is not well: its address refuses connections, so that no engine runs there."""

    __slots__ = ()


def _no_key(base_url: str) -> None:  # noqa: ARG001  # what a caller's own function would look at
    return None


class EngineClient:
    """Probes workers; use it as `async with EngineClient() as client`.

    Every probe is a connection of its own: a check then also tells whether the worker still accepts connections, and
    never trips over one the engine has just closed. Redirects are not followed, since requests would not follow them.

    Args:
        key_of: Returns the API key of the worker at an address, None if it wants none.
        tls: How workers at `https://` are spoken to.
    """

    def __init__(self, *, key_of: Callable[[str], str | None] = _no_key, tls: WorkerTls | None = None) -> None:
        self._key_of = key_of
        self._tls = tls or WorkerTls()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # No limit: workers that hang would use it up, and those that are well would fail their checks.
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            cookie_jar=aiohttp.DummyCookieJar(),
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
            None when it is well, else the reason why not, for a log line; a `Refusal` if nobody listens there.

        Raises:
            CannotAskError: If the router has no file or port left to ask with.
        """
        try:
            async with self._request("GET", base_url, endpoint, timeout_s) as response:
                if 200 <= response.status < 300:
                    return None
                return f"GET {endpoint} answered {response.status}"
        except TimeoutError:
            return f"GET {endpoint} took longer than {timeout_s:g} s"
        except _CANNOT_REACH as error:
            _raise_if_exhausted(error)
            reason = f"GET {endpoint} failed: {_described(error)}"
            is_refused = isinstance(error, aiohttp.ClientConnectorError) and isinstance(
                error.os_error, ConnectionRefusedError
            )
            return Refusal(reason) if is_refused else reason

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
        body = await self.fetch(base_url, "/v1/models", timeout_s)
        return _model_items(body, f"GET {base_url}/v1/models")

    async def fetch_server_info(self, base_url: str, timeout_s: float) -> EngineFacts:
        """Ask a worker what it is. Engines differ and old ones know few paths, so whatever it does not tell is empty.

        Args:
            base_url: The worker's address.
            timeout_s: Seconds each of its answers may take.
        """
        items, server, model = await asyncio.gather(
            self._models_or_none(base_url, timeout_s),
            self._first_object(base_url, ("/server_info", "/get_server_info"), timeout_s),
            self._first_object(base_url, ("/model_info", "/get_model_info"), timeout_s),
        )
        return facts_of(items, server, model)

    async def fetch(self, base_url: str, path: str, timeout_s: float) -> bytes:
        """Return the body of a worker's answer to a GET.

        Args:
            base_url: The worker's address.
            path: What to ask for, with its query.
            timeout_s: Seconds the whole answer may take.

        Raises:
            EngineReplyError: If it does not answer, or not with status 200, or with far too much.
        """
        reply = await self.ask("GET", base_url, path, timeout_s)
        if reply.status != 200:
            raise EngineReplyError(f"GET {base_url}{path} answered {reply.status}", reply.status)
        return reply.body

    async def ask(self, method: str, base_url: str, path: str, timeout_s: float) -> EngineReply:
        """Return a worker's answer to a request without a body, whatever its status.

        Args:
            method: Such as `POST`.
            base_url: The worker's address.
            path: What to ask for, with its query.
            timeout_s: Seconds the whole answer may take.

        Raises:
            CannotAskError: If the router has no file or port left to ask with.
            EngineReplyError: If it does not answer, or with far too much.
        """
        where = f"{method} {base_url}{path}"
        try:
            async with self._request(method, base_url, path, timeout_s) as response:
                body = await _read_bounded(response, where)
                return EngineReply(response.status, response.headers.get(aiohttp.hdrs.CONTENT_TYPE, ""), body)
        except TimeoutError as error:
            raise EngineReplyError(f"{where} took longer than {timeout_s:g} s") from error
        except _CANNOT_REACH as error:
            _raise_if_exhausted(error)
            raise EngineReplyError(f"{where} failed: {_described(error)}") from error

    async def _models_or_none(self, base_url: str, timeout_s: float) -> list[dict[str, Any]]:
        try:
            return await self.fetch_models(base_url, timeout_s)
        except EngineReplyError:
            return []

    async def _first_object(self, base_url: str, paths: Sequence[str], timeout_s: float) -> dict[str, Any]:
        """Return the first JSON object among the answers to `paths`, an empty one if there is none."""
        for path in paths:
            try:
                document = orjson.loads(await self.fetch(base_url, path, timeout_s))
            except EngineReplyError as error:
                if error.status is None:
                    break  # it does not answer this one; waiting for another would only take longer
            except orjson.JSONDecodeError:
                continue
            else:
                if isinstance(document, dict):
                    return document
        return {}

    def _request(
        self, method: str, base_url: str, path: str, timeout_s: float
    ) -> aiohttp.client._RequestContextManager:
        if self._session is None:
            raise RuntimeError("EngineClient is not open: use it as `async with EngineClient() as client`")
        key = self._key_of(base_url)
        return self._session.request(
            method,
            base_url.rstrip("/") + path,
            headers=None if key is None else {"Authorization": f"Bearer {key}"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=timeout_s),
            **self._tls_options(base_url),
        )

    def _tls_options(self, base_url: str) -> dict[str, Any]:  # Any: keyword arguments of aiohttp's
        if not base_url.startswith("https:"):
            return {}
        return {"ssl": self._tls.context, "server_hostname": self._tls.server_name}


def _raise_if_exhausted(error: Exception) -> None:
    if isinstance(error, aiohttp.ClientConnectorError):
        lacking = shortage_of(error.os_error, error.host, error.port or 0)
        if lacking is not None:
            raise CannotAskError(REMEDIES[lacking]) from error


async def _read_bounded(response: aiohttp.ClientResponse, where: str) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        body += chunk
        if len(body) > _MAX_REPLY_BYTES:
            raise EngineReplyError(f"{where} answered more than {_MAX_REPLY_BYTES} bytes", response.status)
    return bytes(body)


def _model_items(body: bytes, where: str) -> list[dict[str, Any]]:
    """Return the models of a reply. `Any`: an engine's own fields are passed on, whatever they are."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise EngineReplyError(f"{where} answered something that is not JSON: {body[:80]!r}", 200) from error
    items = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(items, list):
        raise EngineReplyError(f"{where} answered JSON without a list `data`: {body[:80]!r}", 200)
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)]


def _described(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    if isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error  # the address is known already, and the rest is about TLS where there is none
    if isinstance(error, ssl.SSLError):
        return describe_tls_error(error)
    return str(error) or type(error).__name__
