"""A simulated engine in a process of its own, behind a link that can be made faulty."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from urllib.parse import urlsplit

from router_core.testing.engine_process import EngineProcess

_READ = 65536
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class FaultyEngine:
    """An engine that can be killed and frozen, behind a TCP link that can be cut, held and slowed down.

    Attributes:
        url: Where routers find it: the link's address, the same for all its lives.
        connections: Connections through the link that are open.
    """

    def __init__(self, *arguments: str) -> None:
        self.url = ""
        self.connections: set[asyncio.StreamWriter] = set()
        self._arguments = arguments
        self._process: EngineProcess | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._drips = False
        self._refuses = False
        self._pumps: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> FaultyEngine:
        await self.revive()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.heal()
        self._server.close()
        self.reset()
        for pump in tuple(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._process is not None:
            await self._process.stop()

    # --- faults of the process ---

    async def kill(self) -> None:
        """End it as `kill -9` does; its port is dead until `revive`."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)
            await process.stop()

    async def revive(self) -> None:
        """Start it anew, with an empty cache, if it was killed."""
        if self._process is None:
            process = EngineProcess(*self._arguments)
            await process.start()
            self._process = process

    def freeze(self) -> None:
        """Stop the process; the kernel goes on taking connections and bytes for it."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if self._process is not None:
            os.kill(self._process.pid, signal.SIGCONT)

    # --- faults of the link ---

    def reset(self) -> None:
        """Cut all connections with a reset, whatever is on its way."""
        for writer in tuple(self.connections):
            sock = writer.get_extra_info("socket")
            if sock is not None:  # else it is closed already
                with contextlib.suppress(OSError, ValueError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    def close(self) -> None:
        """Close all connections in good order, in the middle of whatever is on its way."""
        for writer in tuple(self.connections):
            writer.close()

    def hold(self) -> None:
        """Let nothing through any more, in either direction."""
        self._flows.clear()

    def drip(self) -> None:
        """Let through a few bytes at a time."""
        self._drips = True

    def refuse(self) -> None:
        """Close each new connection at once."""
        self._refuses = True

    def heal(self) -> None:
        """Take back `hold`, `drip`, `refuse` and `freeze`."""
        self._flows.set()
        self._drips = self._refuses = False
        self.thaw()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses or self._process is None:
            writer.transport.abort()
            return
        parts = urlsplit(self._process.urls[0])
        try:
            engine_reader, engine_writer = await asyncio.open_connection(parts.hostname, parts.port)
        except OSError:
            writer.transport.abort()
            return
        self.connections |= {writer, engine_writer}
        pumps = [
            asyncio.ensure_future(self._pump(reader, engine_writer)),
            asyncio.ensure_future(self._pump(engine_reader, writer)),
        ]
        self._pumps.update(pumps)
        try:
            # Whichever side ends first ends both: a router must cope with that, and half-closed links help nobody here.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            self._pumps.difference_update(pumps)
            self.connections -= {writer, engine_writer}
            for each in (writer, engine_writer):
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(7 if self._drips else _READ):
                await self._flows.wait()
                if self._drips:
                    await asyncio.sleep(0.002)
                writer.write(data)
                await writer.drain()
