"""The KV caches a simulated prefill engine has computed, or will, and who may fetch each of them: once.

What becomes of a transfer, in six cases:

1. A decode engine fetches it: over.
2. A decode engine asks before the prefill leg has come or is through: it waits, as long as it likes.
3. The prefill leg breaks off before it is computed: whoever waits is told so.
4. Nobody fetches it in time: its blocks are given up, it counts as stranded.
5. The decode engine dies while it fetches: nobody says that it has it, so it stays until case 4.
6. Its prefill leg ends while the engine waits for the fetch (SGLang): likewise, at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from router_core.testing.engine_request import BadRequestError

_KEPT_KEYS = 100_000


class RefusedLegError(BadRequestError):
    """A request that breaks the transfer protocol; answered by 400 and counted."""


class TransferLostError(Exception):
    """The KV cache will not come; answered by 500."""


class TransferCounts(Protocol):
    """What an engine counts of its transfers."""

    transfer_timeout_s: float
    transfer_s: float
    transfers: int
    stranded: int
    held: int

    def changed(self) -> None:
        """Wake those who wait for a count."""


class Transfer:
    """One KV cache on its way.

    Attributes:
        key: What both legs call it by.
        facts: What the decode leg has to know rightly.
        state: `expected` (only a decode engine has asked), `open`, `ready`, `fetched`, `aborted` or `expired`.
        settled: Set when it is ready, or never will be.
        over: Set when it is fetched, or never will be.
    """

    __slots__ = ("key", "facts", "state", "is_claimed", "settled", "over", "timer")

    def __init__(self, key: str) -> None:
        self.key = key
        self.facts: Mapping[str, Any] = {}  # Any: whatever JSON a protocol carries
        self.state = "expected"
        self.is_claimed = False
        self.settled = asyncio.Event()
        self.over = asyncio.Event()
        self.timer: asyncio.TimerHandle | None = None


class KeyMemory:
    """Keys that were used already, the oldest forgotten first, with what became of them."""

    def __init__(self) -> None:
        self._ends: dict[str, str] = {}

    def get(self, key: str) -> str | None:
        """Return what became of a key, None if it was never used."""
        return self._ends.get(key)

    def note(self, key: str, end: str) -> None:
        """Remember a key."""
        self._ends[key] = end
        if len(self._ends) > _KEPT_KEYS:
            del self._ends[next(iter(self._ends))]


class TransferTable:
    """All transfers out of one prefill engine."""

    def __init__(self, counts: TransferCounts) -> None:
        self._counts = counts
        self._transfers: dict[str, Transfer] = {}
        self._ended = KeyMemory()

    def open(self, key: str) -> Transfer:
        """Take in a prefill leg.

        Raises:
            RefusedLegError: If there was one with this key before.
        """
        transfer = self._transfers.get(key)
        if self._ended.get(key) is not None or (transfer is not None and transfer.state != "expected"):
            raise RefusedLegError(f"{key} was used before")
        if transfer is None:
            transfer = self._transfers[key] = Transfer(key)
        transfer.state = "open"
        return transfer

    def complete(self, transfer: Transfer, facts: Mapping[str, Any]) -> None:
        """Offer a computed KV cache, for as long as the engine keeps it."""
        transfer.facts = facts
        transfer.state = "ready"
        self._count_held(1)
        loop = asyncio.get_running_loop()
        transfer.timer = loop.call_later(self._counts.transfer_timeout_s, self.give_up, transfer, "expired")
        transfer.settled.set()

    def give_up(self, transfer: Transfer, state: str = "aborted") -> None:
        """Let go of a transfer that is not over; it counts as stranded when it was computed for nothing."""
        if transfer.state == "ready":
            self._counts.stranded += 1
            self._count_held(-1)
        elif transfer.state != "open":
            return
        self._end(transfer, state)

    async def claim(
        self, key: str, claims: Mapping[str, Any], *, may_wait: bool, is_there: Callable[[], bool] = lambda: True
    ) -> None:
        """Fetch a KV cache for a decode engine.

        Args:
            key: Of the transfer.
            claims: Facts the decode leg was told; each has to be true.
            may_wait: Whether to wait for a prefill leg that has not come yet.
            is_there: Tells whether the decode engine lives.

        Raises:
            RefusedLegError: If the decode leg is wrong, or not the first.
            TransferLostError: If the KV cache is gone, or the decode engine.
        """
        end = self._ended.get(key)
        if end is not None:
            self._refuse_ended(key, end)
        transfer = self._transfers.get(key)
        if transfer is None:
            if not may_wait:
                raise RefusedLegError(f"{key} is unknown here")
            transfer = self._transfers[key] = Transfer(key)
        if transfer.is_claimed:
            raise RefusedLegError(f"{key} is being fetched already")
        transfer.is_claimed = True
        try:
            await transfer.settled.wait()
            if transfer.state != "ready":
                self._refuse_ended(key, transfer.state)
            for name, value in claims.items():
                if transfer.facts.get(name) != value:
                    raise RefusedLegError(f"{key}: {name} is {transfer.facts.get(name)!r}, not {value!r}")
            if self._counts.transfer_s:
                await asyncio.sleep(self._counts.transfer_s)
                if transfer.state != "ready":
                    self._refuse_ended(key, transfer.state)
            if not is_there():
                raise TransferLostError(f"{key}: the decode engine is gone")
        finally:
            transfer.is_claimed = False
            if transfer.state == "expected":
                del self._transfers[key]
        self._counts.transfers += 1
        self._count_held(-1)
        self._end(transfer, "fetched")

    def close(self) -> None:
        """Forget everything, as when the process is killed."""
        for transfer in self._transfers.values():
            if transfer.timer is not None:
                transfer.timer.cancel()
            if transfer.state == "ready":
                self._count_held(-1)
        self._transfers.clear()

    def _refuse_ended(self, key: str, end: str) -> None:
        if end == "fetched":
            raise RefusedLegError(f"{key} was fetched before")
        raise TransferLostError(f"{key}: the prefill leg has {end}")

    def _end(self, transfer: Transfer, state: str) -> None:
        transfer.state = state
        if transfer.timer is not None:
            transfer.timer.cancel()
        del self._transfers[transfer.key]
        self._ended.note(transfer.key, state)
        transfer.settled.set()
        transfer.over.set()
        self._counts.changed()

    def _count_held(self, change: int) -> None:
        self._counts.held += change
        self._counts.changed()


def refuse_unless(is_right: Callable[[Any], bool] | bool, value: Any, what: str) -> None:
    """Refuse a leg whose field is not right (`Any`: it is JSON).

    Raises:
        RefusedLegError: With `what` and the value.
    """
    if not (is_right(value) if callable(is_right) else is_right):
        raise RefusedLegError(f"{what}, not {value!r}")
