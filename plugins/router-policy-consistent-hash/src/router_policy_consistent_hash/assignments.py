"""Which worker each key was given: bounded in number and in idle time. Knows nothing of routers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass


class Assignments:
    """Remembers for each key the workers it was given last, oldest first, by their names.

    Args:
        max_idle_s: A key not asked for during so many seconds is forgotten.
        max_keys: So many are remembered; the one not asked for longest goes first.
    """

    def __init__(self, max_idle_s: float, max_keys: int) -> None:
        self._max_idle_s = max_idle_s
        self._max_keys = max_keys
        self._entries: OrderedDict[int, _Entry] = OrderedDict()  # in the order of their use
        self._members: dict[str, _Member] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: int, among: Collection[str], now: float) -> str | None:
        """Return the worker a key belongs to: the earliest given that is among these."""
        entries = self._entries
        while entries and now - next(iter(entries.values())).used_at > self._max_idle_s:
            self._forget_oldest()
        entry = entries.get(key)
        if entry is None:
            return None
        entry.used_at = now
        entries.move_to_end(key)
        for member in entry.members:
            if member.name in among and self._members.get(member.name) is member:
                return member.name
        return None

    def assign(self, key: int, worker: str, now: float) -> None:
        """Give a key a worker; of more than two, the oldest is no longer its own."""
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _Entry(now, [])
            if len(self._entries) > self._max_keys:
                self._forget_oldest()
        member = self._members.setdefault(worker, _Member(worker))
        member.keys += 1
        entry.members.append(member)
        if len(entry.members) > _KEPT_MEMBERS:
            entry.members.pop(0).keys -= 1

    def keys_of(self, worker: str) -> int:
        """Return how many keys a worker was given."""
        member = self._members.get(worker)
        return 0 if member is None else member.keys

    def remove(self, worker: str) -> None:
        """Take a worker's keys away from it; should one of its name come again, it is another."""
        self._members.pop(worker, None)

    def _forget_oldest(self) -> None:
        _, entry = self._entries.popitem(last=False)
        for member in entry.members:
            member.keys -= 1


@dataclass(slots=True, eq=False)
class _Member:
    """A worker, and how many keys it was given."""

    name: str
    keys: int = 0


@dataclass(slots=True, eq=False)
class _Entry:
    """One key: when it was last asked for, and whom it was given."""

    used_at: float
    members: list[_Member]


_KEPT_MEMBERS = 2
"""A home and who stood in for it: when the first is back, so are its keys."""
