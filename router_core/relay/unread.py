"""What waits for a client that does not read as fast as its worker writes, and whether any of it still leaves."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios


class Unread:
    """The bytes that wait for one client; made when they are too many, and dropped once it has caught up."""

    __slots__ = ("_seen", "_since", "_transport")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._seen = self._waiting()
        self._since = now

    def still_s(self, now: float) -> float:
        """Return for how many seconds nothing has moved; true only if it is asked now and then."""
        waiting = self._waiting()
        if waiting != self._seen:
            self._seen, self._since = waiting, now
        return now - self._since

    def _waiting(self) -> tuple[int, int]:
        """Return the bytes in our buffer and in the kernel's.

        Ours alone would not do: it is emptied in large steps, and over TLS it hides a second one.
        """
        return self._transport.get_write_buffer_size(), self._in_kernel()

    def _in_kernel(self) -> int:
        try:
            handle = self._transport.get_extra_info("socket").fileno()
            return int(struct.unpack("i", fcntl.ioctl(handle, termios.TIOCOUTQ, bytes(4)))[0])
        except (OSError, ValueError):
            return 0  # a system that does not tell, or a connection that is closed
