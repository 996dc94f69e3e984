"""The two legs of a prefill/decode pair, placed one after the other by policies that choose single workers."""

from __future__ import annotations

from collections.abc import Callable

from router_core.contract.request import Leg, RoutingRequest
from router_core.contract.worker import Worker

SelectSingle = Callable[[tuple[Worker, ...], RoutingRequest], Worker | None]


def compose_decode(
    select_decode: SelectSingle, decode_workers: tuple[Worker, ...], request: RoutingRequest
) -> Worker | None:
    """Place the decode leg alone, with `request.leg` set."""
    leg = request.leg
    try:
        request.leg = Leg.DECODE
        return select_decode(decode_workers, request)
    finally:
        request.leg = leg


def compose_pair(
    select_prefill: SelectSingle,
    select_decode: SelectSingle,
    prefill_workers: tuple[Worker, ...],
    decode_workers: tuple[Worker, ...],
    request: RoutingRequest,
) -> tuple[Worker, Worker] | None:
    """Place the two legs one after the other, with `request.leg` set; None when either finds nobody."""
    leg = request.leg
    try:
        request.leg = Leg.PREFILL
        prefill = select_prefill(prefill_workers, request)
        if prefill is None:
            return None
        request.leg = Leg.DECODE
        decode = select_decode(decode_workers, request)
        return None if decode is None else (prefill, decode)
    finally:
        request.leg = leg
