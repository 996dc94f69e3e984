"""One worker's address: the idle connections to it, and those in the making."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from router_core.relay.answer_heads import AnswerHead
from router_core.relay.call import Call
from router_core.relay.head_memory import HeadMemory
from router_core.relay.parties import Ending, Silence
from router_core.relay.request_head import RequestHead
from router_core.relay.shortage import REMEDIES, Shortages, shortage_of
from router_core.relay.tls import CertificateError, WorkerTls, describe_tls_error
from router_core.relay.upstream import Upstream


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Times that bound a connection to a worker, in seconds.

    Attributes:
        connect_timeout_s: For making a connection.
        idle_timeout_s: How long an idle connection may be reused; below the 5 s after which engines close theirs.
        silence: How long a worker may send nothing once it has a request; None for as long as it likes.
    """

    connect_timeout_s: float = 10.0
    idle_timeout_s: float = 3.0
    silence: Silence | None = None


class Origin:
    """One worker's address and the idle connections to it."""

    def __init__(
        self,
        base_url: str,
        *,
        loop: asyncio.AbstractEventLoop,
        limits: UpstreamLimits,
        tls: WorkerTls | None = None,
        api_key: str | None = None,
        shortages: Shortages | None = None,
    ) -> None:
        parts = urlsplit(base_url)
        if parts.hostname is None:
            raise ValueError(f"{base_url!r} names no host: write http://host:port")
        self.base_url = base_url
        self.host = parts.hostname
        self.tls = (tls or WorkerTls()) if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        self.host_header = parts.netloc.rpartition("@")[2].encode()
        self.loop = loop
        self.limits = limits
        self._credentials = b"" if api_key is None else b"Authorization: Bearer %b\r\n" % api_key.encode("ascii")
        self.silence = limits.silence
        self.shortages = shortages or Shortages(loop.time)
        self.answer_heads: HeadMemory[AnswerHead] = HeadMemory()
        self._idle: list[Upstream] = []
        self._connecting: set[Connecting] = set()
        self.is_closed = False

    def outgoing(self, head: RequestHead, size: int, fields: bytes) -> bytes:
        """Return a head as it goes to this worker, for a body of `size` bytes; `fields` are further lines."""
        if self._credentials:
            return head.anonymous.outgoing(self.host_header, size, self._credentials + fields)
        return head.outgoing(self.host_header, size, fields)

    def tls_options(self) -> dict[str, Any]:  # Any: keyword arguments of the loop's
        """Return how a connection is to be made, for the loop.

        Raises:
            CertificateError: If a certificate's file cannot be used.
        """
        if self.tls is None:
            return {}
        # As long as the whole connection may take: that time bounds the handshake, too.
        return {
            "ssl": self.tls.context,
            "server_hostname": self.tls.server_name or self.host,
            "ssl_handshake_timeout": self.limits.connect_timeout_s,
        }

    def send(self, exchange: Call, *, fresh: bool = False) -> Upstream | Connecting:
        """Send a request on the newest idle connection, or on a new one."""
        if not fresh:
            upstream = self._take_idle()
            if upstream is not None:
                upstream.send(exchange, is_reused=True)
                return upstream
        connecting = Connecting(self, exchange, self._connecting.discard)
        self._connecting.add(connecting)
        return connecting

    def _take_idle(self) -> Upstream | None:
        idle = self._idle
        if idle:
            upstream = idle.pop()
            if self.loop.time() - upstream.idle_since <= self.limits.idle_timeout_s and not upstream.is_closing:
                return upstream
            # The newest is too old, so are all others; a closing one is a hint that the worker restarted.
            upstream.close()
            self.close_idle()
        return None

    def keep(self, upstream: Upstream) -> None:
        """Keep a connection for the next request."""
        if self.is_closed:
            upstream.close()
            return
        upstream.idle_since = self.loop.time()
        self._idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """An idle connection was closed by the worker."""
        if upstream in self._idle:
            self._idle.remove(upstream)

    def sweep(self) -> None:
        """Close connections that were idle too long."""
        oldest_allowed = self.loop.time() - self.limits.idle_timeout_s
        while self._idle and self._idle[0].idle_since < oldest_allowed:
            self._idle.pop(0).close()

    def close_idle(self) -> None:
        """Close all idle connections."""
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close idle connections now and busy ones as they finish."""
        self.is_closed = True
        self.close_idle()


class Connecting:
    """A connection in the making, for one exchange. Stands in for the connection until it is there."""

    def __init__(self, origin: Origin, exchange: Call, on_done: Callable[[Connecting], object]) -> None:
        self._origin = origin
        self._exchange: Call | None = exchange
        self._task = origin.loop.create_task(self._connect())
        # Not in the task's own `finally`: one cancelled before its first step never gets there.
        self._task.add_done_callback(lambda _: on_done(self))

    async def _connect(self) -> None:
        origin = self._origin
        try:
            async with asyncio.timeout(origin.limits.connect_timeout_s):
                _, upstream = await origin.loop.create_connection(
                    lambda: Upstream(origin), origin.host, origin.port, **origin.tls_options()
                )
        except TimeoutError:
            self._fail(f"no connection to {origin.base_url} within {origin.limits.connect_timeout_s:g} s")
            return
        except (ssl.SSLError, CertificateError) as error:
            reason = describe_tls_error(error) if isinstance(error, ssl.SSLError) else str(error)
            self._fail(f"no connection to {origin.base_url}: {reason}")
            return
        except OSError as error:
            lacking = shortage_of(error, origin.host, origin.port)
            if lacking is not None:
                origin.shortages.note(lacking, origin.base_url)
                self._fail(f"no connection to {origin.base_url}: {REMEDIES[lacking]}", Ending.ROUTER_EXHAUSTED)
                return
            # Without a word of its own it is the loop's, for an end of the connection in the middle of the handshake.
            reason = error.strerror or str(error) or "the worker closed it in the TLS handshake"
            self._fail(f"no connection to {origin.base_url}: {reason}")
            return
        except UnicodeError as error:  # a host name that IDNA cannot encode
            self._fail(f"no connection to {origin.base_url}: {error}")
            return
        if upstream.is_closing:
            self._fail(f"no connection to {origin.base_url}: closed as soon as it was made")
            return
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            origin.keep(upstream)
        else:
            upstream.send(exchange, is_reused=False)

    def _fail(self, error: str, ending: Ending = Ending.CONNECT_FAILED) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.connect_failed(error, ending)

    def abort(self) -> None:
        """Give up connecting."""
        if self._exchange is not None:
            self._exchange = None
            self._task.cancel()

    def release(self, *, reusable: bool) -> None:
        """Nothing was sent yet, so nothing is to be released."""

    def pause_reading(self) -> None:
        """Nothing comes yet."""

    def resume_reading(self) -> None:
        """Nothing comes yet."""
