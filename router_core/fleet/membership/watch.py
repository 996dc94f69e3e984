"""List, then watch: keeps a copy of something that tells its whole state on request and its changes as they come.

Knows nothing of Kubernetes, only of its protocol's idea: a list has a version, and a watch begins at a version. The
copy is only ever a full list and the changes that followed it without a gap. How it goes on after a watch:

1. It ended in order after a while: watch on from the last version seen, nothing was missed.
2. The time for a full list has come (`resync_s`): list anew, at once.
3. Anything else (a connection that broke, a version that is no longer known, an event nobody understands, a watch that
   ends as soon as it begins): list anew, after a pause that grows while that goes on. What vanished meanwhile is not in
   the new list, and so it is gone, whether or not anybody said so.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from random import Random
from typing import Generic, Protocol, TypeVar

from router_core.contract.errors import StartupError
from router_core.fleet.membership.backoff import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

_MIN_WATCH_S = 1.0  # a watch that ends sooner, even in order, counts as broken: do not ask again and again
_RESYNC_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """The whole state.

    Attributes:
        items: All there is, by key.
        version: Where a watch has to begin.
    """

    items: Mapping[str, T]
    version: str


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One change, or the mere news that there was none up to a version.

    Attributes:
        version: Where the next watch may begin.
        key: What changed; None if nothing did.
        item: What it is now; None if it is gone.
    """

    version: str
    key: str | None = None
    item: T | None = None


class WatchBrokenError(Exception):
    """A list or a watch failed, or cannot be trusted; the message says why, for a log line."""


class Watchable(Protocol[T]):
    """What can be listed and watched."""

    async def list_all(self) -> Listing[T]:
        """Return the whole state, never an older one than before.

        Raises:
            WatchBrokenError: If it cannot be had now.
            StartupError: If it never can.
        """

    def watch(self, version: str, timeout_s: float) -> AsyncGenerator[Change[T], None]:
        """Yield the changes since `version`, for `timeout_s` seconds or less; end in order only if nothing was missed.

        Raises:
            WatchBrokenError: If changes may have been missed.
        """


@dataclass(frozen=True, slots=True)
class WatchTiming:
    """When things are done.

    Attributes:
        resync_s: Seconds between full lists when nothing goes wrong, about.
        watch_s: Seconds a single watch lasts at most: bounds how long a dead connection goes unnoticed.
        initial_backoff_s: The first pause after a failure.
        max_backoff_s: The longest one.
    """

    resync_s: float = 300.0
    watch_s: float = 60.0
    initial_backoff_s: float = 0.5
    max_backoff_s: float = 30.0


class Reflector(Generic[T]):
    """Keeps a copy of what `source` holds, and says when it changed.

    Args:
        source: What to follow.
        on_items: Called with the whole copy, by key, after each list, each change and each watch that ended in order.
        name: For log lines.
        timing: When things are done.
        random: Spreads lists and pauses.
        clock: Monotonic seconds; the event loop's unless given.
        sleep: Waits.
    """

    def __init__(
        self,
        source: Watchable[T],
        on_items: Callable[[Mapping[str, T]], None],
        *,
        name: str,
        timing: WatchTiming,
        random: Random,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._source = source
        self._on_items = on_items
        self._name = name
        self._timing = timing
        self._random = random
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._sleep = sleep
        self._backoff = Backoff(random, initial_s=timing.initial_backoff_s, max_s=timing.max_backoff_s)
        self._items: dict[str, T] = {}
        self._version = ""
        self._has_listed = False
        self._complaint: str | None = None

    async def run(self) -> None:
        """Follow the source until cancelled.

        Raises:
            StartupError: If it cannot be listed, and never could be.
        """
        while True:
            try:
                await self._list()
                await self._watch_until_resync()
            except WatchBrokenError as error:
                self._complain(str(error))
                await self._sleep(self._backoff.next_delay_s())
            except StartupError as error:
                if not self._has_listed:
                    raise
                self._complain("; ".join(error.problems))
                await self._sleep(self._backoff.next_delay_s())

    async def _list(self) -> None:
        listing = await self._source.list_all()
        self._items = dict(listing.items)
        self._version = listing.version
        self._has_listed = True
        if self._complaint is not None:
            self._complaint = None
            log.info("%s: listed anew, %d found", self._name, len(self._items))
        self._on_items(self._items)

    async def _watch_until_resync(self) -> None:
        spread = self._random.uniform(1 - _RESYNC_JITTER, 1 + _RESYNC_JITTER)
        resync_at = self._clock() + self._timing.resync_s * spread
        while (left_s := resync_at - self._clock()) > 0:
            await self._watch(min(left_s, self._timing.watch_s))

    async def _watch(self, timeout_s: float) -> None:
        began = self._clock()
        try:
            async with aclosing(self._source.watch(self._version, timeout_s)) as changes:
                async for change in changes:
                    self._apply(change)
        finally:
            lasted_s = self._clock() - began
            if lasted_s >= min(self._timing.max_backoff_s, self._timing.watch_s):
                self._backoff.reset()
        if lasted_s < min(_MIN_WATCH_S, timeout_s):
            raise WatchBrokenError(f"the watch ended after {lasted_s:.3f} s")
        self._on_items(self._items)  # a sign of life

    def _apply(self, change: Change[T]) -> None:
        self._version = change.version
        if change.key is None:
            return
        before = self._items.get(change.key)
        if change.item == before:  # most news are about what is not kept
            return
        if change.item is None:
            del self._items[change.key]
        else:
            self._items[change.key] = change.item
        self._on_items(self._items)

    def _complain(self, sentence: str) -> None:
        """Log what is wrong, once as long as it stays the same."""
        if sentence != self._complaint:
            log.warning("%s: %s; the last list stays until it can be listed anew", self._name, sentence)
        self._complaint = sentence
