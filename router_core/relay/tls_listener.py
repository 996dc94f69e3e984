"""Sockets on which TLS is spoken. A client counts from the first byte of its handshake, and one that fails is told of.

The loop's own TLS servers shake hands unseen: nobody could count the connections that are busy with it, nor learn why
it failed.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from router_core.relay.handshakes import HandshakeFailures
from router_core.relay.peer_address import peer_address
from router_core.relay.tls import ServerTls

_log = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
_SHUTDOWN_S = 2.0  # for a client to take leave, as TLS wants it
_ACCEPTS = 64  # at a time; then it is the others' turn
_NO_ROOM_S = 1.0


class TlsListener:
    """Accepts clients and makes TLS connections of them."""

    def __init__(
        self,
        tls: ServerTls,
        *,
        make: Callable[[], asyncio.Protocol],
        has_room: Callable[[int], bool],
        failures: HandshakeFailures,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """Make ready; nothing is opened yet.

        Args:
            tls: What clients are shown.
            make: Makes the protocol of a connection that is there.
            has_room: Tells whether there may be one more, given how many are shaking hands.
            failures: Told of those that failed.
            loop: Where all of it runs.
        """
        self._tls = tls
        self._make = make
        self._has_room = has_room
        self._failures = failures
        self._loop = loop
        self._sockets: list[socket.socket] = []
        self._shaking: set[asyncio.Task[None]] = set()
        self._pauses: set[asyncio.TimerHandle] = set()

    async def open(self, host: str, port: int, backlog: int) -> tuple[str, int]:
        """Listen at all addresses of a host; returns the first that was bound.

        Raises:
            OSError: If one of them cannot be had.
        """
        found = await self._loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        try:
            for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found):
                listening = socket.create_server(address, family=family, backlog=backlog)
                listening.setblocking(False)
                self._sockets.append(listening)
        except OSError:
            self.close()
            raise
        for listening in self._sockets:
            self._loop.add_reader(listening, self._accept, listening)
        bound = self._sockets[0].getsockname()
        return bound[0], bound[1]

    def close(self) -> None:
        """Accept nobody any more, and give up those who are shaking hands."""
        for listening in self._sockets:
            self._loop.remove_reader(listening)
            listening.close()
        self._sockets.clear()
        for pause in self._pauses:
            pause.cancel()
        for task in self._shaking:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until nobody is shaking hands."""
        await asyncio.gather(*self._shaking, return_exceptions=True)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTS):
            try:
                client, name = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(listening, error)
                return
            if not self._has_room(len(self._shaking)):
                client.close()
                continue
            client.setblocking(False)
            task = self._loop.create_task(self._shake_hands(client, peer_address(name)))
            self._shaking.add(task)
            task.add_done_callback(self._shaking.discard)

    def _pause(self, listening: socket.socket, error: OSError) -> None:
        """Accept nobody for a moment: with no file to be had, the client would wait at the door and keep us busy."""
        _log.error("no client can be accepted for %g s: %s", _NO_ROOM_S, error.strerror)
        self._loop.remove_reader(listening)

        def go_on() -> None:
            self._pauses.discard(pause)
            self._loop.add_reader(listening, self._accept, listening)

        pause = self._loop.call_later(_NO_ROOM_S, go_on)
        self._pauses.add(pause)

    async def _shake_hands(self, client: socket.socket, peer: str) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make,
                client,
                ssl=self._tls.context,
                ssl_handshake_timeout=HANDSHAKE_S,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError as error:
            self._failures.note(error, peer)
