"""Which worker keeps which stored response: an id of the Responses API is known only to the worker that made it."""

from __future__ import annotations

import re
from collections import OrderedDict

from router_core.contract.worker import Worker

PREFIX = b"/v1/responses/"
_ID = re.compile(rb'"id"\s*:\s*"(resp[^"\\]{1,250})"')
# A quote inside the client's text is escaped, so text cannot pose as this key.
_PREVIOUS = re.compile(rb'"previous_response_id"\s*:\s*"([^"\\]{1,250})"')
_MAX_IDS = 100_000


class StoredResponses:
    """Remembers the newest ids and their workers."""

    def __init__(self, max_ids: int = _MAX_IDS) -> None:
        self._workers: OrderedDict[bytes, Worker] = OrderedDict()
        self._max_ids = max_ids

    def learn(self, answer: bytes, worker: Worker) -> bool:
        """Take the id out of a piece of an answer, streamed or not; returns whether one was there."""
        match = _ID.search(answer)
        if match is None:
            return False
        self._workers[match[1]] = worker
        self._workers.move_to_end(match[1])
        while len(self._workers) > self._max_ids:
            self._workers.popitem(last=False)
        return True

    def find(self, path: bytes) -> Worker | None:
        """Return the worker that made the id in `/v1/responses/{id}[/...]`, or None."""
        return self._workers.get(path[len(PREFIX) :].partition(b"/")[0])

    def find_previous(self, body: bytes) -> Worker | None:
        """Return the worker that made the response which a request's body continues, or None."""
        match = _PREVIOUS.search(body)
        return None if match is None else self._workers.get(match[1])

    def forget(self, worker: Worker) -> None:
        """A worker left, and its stored responses with it."""
        for key in [key for key, maker in self._workers.items() if maker is worker]:
            del self._workers[key]
