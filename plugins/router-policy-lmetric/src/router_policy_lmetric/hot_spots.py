"""Which beginnings of prompts are so frequent that those who hold them cannot serve them. Knows nothing of routers."""

from __future__ import annotations

from collections import Counter, deque


class HotSpots:
    """Counts classes of requests over a window, and says when one has outgrown its holders.

    A class whose share of the requests is larger than its holders' share of the workers gives an alarm. One alarm is
    chance; as many in a row as twice its holders are not.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._recent: deque[int] = deque()
        self._counts: Counter[int] = Counter()
        self._alarms: dict[int, int] = {}

    def is_hot(self, kind: int, holders: int, others: int) -> bool:
        """Note a request, and say whether it should go to somebody who is no holder.

        Args:
            kind: Its class.
            holders: How many workers hold it.
            others: How many do not.
        """
        self._note(kind)
        count = self._counts[kind]
        # share / (1 - share) > holders / others, free of division; a window not yet full counts as if it were
        if not holders or not others or count * others <= (self._window - count) * holders:
            self._alarms.pop(kind, None)
            return False
        alarms = self._alarms.get(kind, 0) + 1
        if alarms < 2 * holders:
            self._alarms[kind] = alarms
            return False
        self._alarms.pop(kind, None)
        return True

    def _note(self, kind: int) -> None:
        self._recent.append(kind)
        self._counts[kind] += 1
        if len(self._recent) > self._window:
            gone = self._recent.popleft()
            self._counts[gone] -= 1
            if not self._counts[gone]:
                del self._counts[gone]
                self._alarms.pop(gone, None)
