"""Tells an engine which of its data-parallel ranks a request is for, in the form that engine reads. No I/O.

1. SGLang: the field `data_parallel_rank` at the end of the JSON body. What the client sent stays byte for byte before
   it; of a field that stands twice the last one counts, so the router's word stands and its load stays true.
2. vLLM: the header `X-data-parallel-rank`.
3. An engine of an unknown kind, or a path that takes no rank: nothing, and the engine chooses itself.
"""

from __future__ import annotations

from collections.abc import Callable

from router_core.contract.worker import Worker
from router_core.relay.exchange import Exchange

RANK_HEADER = b"x-data-parallel-rank"
"""How a request names its rank to vLLM."""

_SGLANG_PATHS = frozenset({b"/generate", b"/v1/chat/completions", b"/v1/completions"})
_WHITE_SPACE = b" \t\r\n"


class RankPassing:
    """Addresses requests to ranks.

    Args:
        kind_of: Returns which engine is at an address: `sglang`, `vllm`, or None while unknown.
    """

    def __init__(self, kind_of: Callable[[str], str | None]) -> None:
        self._kind_of = kind_of

    def address(self, exchange: Exchange, worker: Worker) -> None:
        """Make a request one for a worker's rank; of one for another rank before, that is taken back."""
        exchange.restore()
        number = rank_of(worker)
        if number is None:
            return
        rank = b"%d" % number
        kind = self._kind_of(worker.base_url)
        if kind == "vllm":
            exchange.rewrite(exchange.head.changed({RANK_HEADER: rank}), exchange.body)
        elif kind == "sglang" and exchange.head.path in _SGLANG_PATHS:
            exchange.rewrite(exchange.head, with_rank(exchange.body, rank))


def rank_of(worker: Worker) -> int | None:
    """Return which rank of its engine a worker is, None for one that is the whole engine."""
    return None if worker.url == worker.base_url else int(worker.url[len(worker.base_url) + 1 :])


def with_rank(body: bytes, rank: bytes) -> bytes:
    """Return a JSON object with the field `data_parallel_rank` added at its end; anything else as it is."""
    end = len(body.rstrip(_WHITE_SPACE)) - 1
    start = len(body) - len(body.lstrip(_WHITE_SPACE))
    if end <= start or body[start] != 0x7B or body[end] != 0x7D:
        return body
    comma = b"," if body[start + 1 : end].strip(_WHITE_SPACE) else b""
    return b'%b%b"data_parallel_rank":%b%b' % (body[:end], comma, rank, body[end:])
