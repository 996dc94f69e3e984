"""The legs of a client that left: they go on until the KV cache has changed hands, or `linger_s` is over.

A KV cache that nobody fetches would occupy the prefill worker until it gives up.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from router_core.traffic.pd.pair import Pair

if TYPE_CHECKING:
    from router_core.traffic.pd.pair_dispatcher import PairDispatcher


class Linger:
    """Ends an abandoned pair as soon as it may."""

    __slots__ = ("_dispatcher", "_pair", "_timer")

    def __init__(self, dispatcher: PairDispatcher, pair: Pair) -> None:
        self._dispatcher = dispatcher
        self._pair = pair
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """The client has left just now."""
        pair = self._pair
        pair.dialogue.is_abandoned = True
        pair.calls.detach()
        self.settle()
        if not pair.is_over:
            pair.on_over = self._over
            self._timer = self._dispatcher.linger(self)

    def give_up(self) -> None:
        """It took too long, or the router shuts down."""
        self._pair.drop()

    def settle(self) -> None:
        """End it if the KV cache has changed hands, or never will."""
        pair = self._pair
        calls = pair.calls
        is_sent = calls.prefill is not None or calls.decode is not None
        if is_sent and not pair.prefill.is_finished:
            return
        is_fetched = pair.has_decode_begun or self._dispatcher.protocol.prefill_waits_for_fetch
        has_one_leg = calls.prefill is None or calls.decode is None
        if has_one_leg or is_fetched or pair.decode.is_finished:
            pair.drop()

    def decode_ended(self) -> None:
        """Decode's answer, which nobody took, is over, or there is none."""
        pair = self._pair
        pair.decode.cancel()
        if pair.prefill.is_finished or self._dispatcher.protocol.prefill_waits_for_fetch:
            pair.drop()  # Nobody is left to fetch anything.

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._dispatcher.lingered(self)
