"""A simulated engine's data-parallel ranks: which one a request names, and how many requests each has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from router_core.testing.engine_transfer import RefusedLegError


class Ranks:
    """The ranks of one engine. They share its time and its cache; only the counting is theirs.

    Attributes:
        running: Generation requests inside, by rank.
    """

    def __init__(self, dp_size: int) -> None:
        self.running = [0] * dp_size
        self._next = 0

    @contextmanager
    def occupied(self, header: str | None, body: dict[str, Any]) -> Iterator[None]:
        """Count a request on the rank it names, or in turn.

        Args:
            header: Its `X-data-parallel-rank`, as vLLM reads it.
            body: Its body; SGLang reads `data_parallel_rank`. `Any`: it is a client's JSON.

        Raises:
            RefusedLegError: If the engine has no such rank.
        """
        size = len(self.running)
        named = read_rank(header, size, "X-data-parallel-rank")
        if named is None:
            named = read_rank(body.get("data_parallel_rank"), size, "data_parallel_rank")
        rank = self._next % size if named is None else named
        self._next += named is None
        self.running[rank] += 1
        try:
            yield
        finally:
            self.running[rank] -= 1


def read_rank(value: Any, dp_size: int, name: str) -> int | None:
    """Return a data-parallel rank that a request names, None if it names none (`Any`: header or JSON).

    Raises:
        RefusedLegError: If the engine has no such rank.
    """
    if value is None:
        return None
    rank = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if isinstance(rank, bool) or not isinstance(rank, int) or not 0 <= rank < dp_size:
        raise RefusedLegError(f"{name} must be a rank below {dp_size}, not {value!r}")
    return rank
