"""What scorers remember: where a session was, which adapters a worker has, who got a cold prompt. All bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Sessions:
    """The worker each session was last given, by names."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._worker_of: OrderedDict[tuple[str, str], str] = OrderedDict()

    def find(self, role: str, session: str) -> str | None:
        """Return a session's worker for a role."""
        return self._worker_of.get((role, session))

    def note(self, role: str, session: str, worker: str) -> None:
        """A session was given a worker."""
        self._worker_of[role, session] = worker
        self._worker_of.move_to_end((role, session))
        if len(self._worker_of) > self._limit:
            self._worker_of.popitem(last=False)


class Adapters:
    """The adapters each worker has room for, the latest used of those it was given."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._loaded: dict[str, OrderedDict[str, bool]] = {}

    def score(self, worker: str, adapter: str) -> float:
        """Return 1 if a worker has an adapter, 0.8 if it has room for one, 0.6 if it is loading it, else 0."""
        held = self._loaded.get(worker)
        if held is None:
            return 0.8
        if adapter in held:
            return 1.0 if held[adapter] else 0.6
        return 0.8 if len(held) < self._slots else 0.0

    def note(self, worker: str, adapter: str) -> None:
        """A worker was given a request for an adapter."""
        held = self._loaded.setdefault(worker, OrderedDict())
        held.setdefault(adapter, False)
        held.move_to_end(adapter)
        if len(held) > self._slots:
            held.popitem(last=False)

    def loaded(self, worker: str, adapter: str) -> None:
        """A worker answered with an adapter."""
        held = self._loaded.get(worker)
        if held is not None and adapter in held:
            held[adapter] = True

    def forget(self, worker: str) -> None:
        """A worker left for good."""
        self._loaded.pop(worker, None)


class Unread:
    """Requests that were sent to a worker and that its engine's latest reading may not show yet."""

    def __init__(self) -> None:
        self._sent_at: dict[str, dict[Hashable, float]] = {}

    def sent(self, worker: str, request: Hashable, now: float) -> None:
        """A worker was given a request."""
        waiting = self._sent_at.setdefault(worker, {})
        waiting[request] = now
        if len(waiting) > _MOST_WAITING:
            del waiting[next(iter(waiting))]

    def over(self, worker: str, request: Hashable) -> None:
        """It waits no more: it has its first token, or has ended."""
        waiting = self._sent_at.get(worker)
        if waiting is not None:
            waiting.pop(request, None)

    def since(self, worker: str, observed_at: float) -> int:
        """Return how many requests that still wait were sent after a reading."""
        count = 0
        for sent_at in reversed(self._sent_at.get(worker, {}).values()):  # the latest first
            if sent_at < observed_at:
                break
            count += 1
        return count

    def forget(self, worker: str) -> None:
        """A worker left for good."""
        self._sent_at.pop(worker, None)


class ColdPrompts:
    """In which order workers were given prompts that nobody had cached."""

    def __init__(self) -> None:
        self._turn = 0
        self._turns: dict[str, int] = {}

    def last_turn(self, worker: str) -> int:
        """Return when a worker had its latest, 0 for never."""
        return self._turns.get(worker, 0)

    def note(self, worker: str) -> None:
        """A worker was given one."""
        self._turn += 1
        self._turns[worker] = self._turn

    def forget(self, worker: str) -> None:
        """A worker left for good."""
        self._turns.pop(worker, None)


_MOST_WAITING = 4096
"""Requests remembered as waiting on a worker; more are only there if some were chosen for and never sent."""
