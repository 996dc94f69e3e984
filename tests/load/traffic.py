"""Clients as cheap as they come: one protocol a request, a connection each."""

from __future__ import annotations

import asyncio
import json
import random
import re
from typing import Any
from urllib.parse import urlsplit

PROMPTS = 200
"""Distinct prompts: enough to spread, few enough that what a policy remembers of them stops growing."""


class Call(asyncio.Protocol):
    """One request.

    Attributes:
        received: All of the answer so far.
        ended: Set when the connection is over.
        has_hung_up: Whether we ended it.
    """

    def __init__(self, request: bytes) -> None:
        self.received = bytearray()
        self.ended = asyncio.get_running_loop().create_future()
        self.has_hung_up = False
        self._request = request
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def hang_up(self) -> None:
        """End it, unless the answer is whole already."""
        if not self._transport.is_closing():
            self.has_hung_up = True
            self._transport.abort()

    def tokens(self) -> int:
        """Return how many generated tokens came."""
        return self.received.count(b'"delta":{"content":')

    def is_whole(self) -> bool:
        return self.received.startswith(b"HTTP/1.1 200 ") and self.received.endswith(b"\r\n0\r\n\r\n")

    def is_whole_json(self) -> bool:
        """Return whether it is a plain answer with as much of a body as it announced."""
        head, _, body = self.received.partition(b"\r\n\r\n")
        announced = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        return head.startswith(b"HTTP/1.1 200 ") and announced is not None and int(announced[1]) == len(body)


async def call(url: str, request: bytes, *, hang_up_after_s: float | None = None) -> Call:
    """Send one request and return when it is over."""
    loop = asyncio.get_running_loop()
    parts = urlsplit(url)
    _, made = await loop.create_connection(lambda: Call(request), parts.hostname, parts.port)
    if hang_up_after_s is not None:
        loop.call_later(hang_up_after_s, made.hang_up)
    await made.ended
    return made


def chat_request(chance: random.Random, *, prompts: int = PROMPTS, **fields: Any) -> bytes:
    """Return a chat request with one of so many prompts."""
    prompt = f"Prompt {chance.randrange(prompts)}. " + "And so on, and so forth. " * 40
    body = {"model": "simulated-model", "messages": [{"role": "user", "content": prompt}], **fields}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: router\r\ncontent-length: {len(data)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + data
