"""One leg of a request, as a disaggregated engine sees it. The protocols make legs, the HTTP side walks them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from multidict import CIMultiDictProxy

from router_core.testing.engine_reply import Reply
from router_core.testing.engine_request import Ask
from router_core.testing.engine_side_channel import Claim, SideChannelClient
from router_core.testing.engine_transfer import (
    Transfer,
    TransferCounts,
    TransferLostError,
    TransferTable,
)


class LegRequest(Protocol):
    """What a protocol reads of a request; `SeenRequest` is one."""

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """By name, any case."""


class Leg:
    """The only leg there is, in an engine that does prefill and decode itself.

    Attributes:
        ask: What to generate.
        is_prefill: Whether the answer is only the sign that the KV cache is there.
        is_received: Whether the KV cache comes from elsewhere, so that no prefill is needed.
    """

    is_prefill = False
    is_received = False

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    async def receive(self) -> None:
        """Wait for the KV cache, before anything is generated.

        Raises:
            RefusedLegError: If the other engine refuses.
            TransferLostError: If it does not come.
        """

    async def hand_over(self, reply: Reply) -> None:
        """Offer the KV cache that is now computed, and add to the reply what the decode leg has to know.

        Raises:
            TransferLostError: If the engine waits for the other side, and that never comes.
        """

    def close(self) -> None:
        """Tidy up, however the request ended."""


class PrefillLeg(Leg):
    """Computes KV caches for others. Its answer is one token long.

    Args:
        ask: What was asked for.
        table: Where to offer the KV caches.
        transfers: Those of this request.
        facts: What the decode leg has to know of each of them.
        parameters: `kv_transfer_params` of the answer.
        waits_for_fetch: Whether the answer comes only when they are fetched, as in SGLang.
    """

    is_prefill = True

    def __init__(
        self,
        ask: Ask,
        table: TransferTable,
        transfers: Sequence[Transfer],
        facts: Sequence[Mapping[str, Any]],
        *,
        parameters: dict[str, Any] | None = None,
        waits_for_fetch: bool = False,
    ) -> None:
        super().__init__(replace(ask, tokens=1, finish="length"))
        self._table = table
        self._transfers = transfers
        self._facts = facts
        self._parameters = parameters
        self._waits_for_fetch = waits_for_fetch

    async def hand_over(self, reply: Reply) -> None:
        """Offer the KV caches; see `Leg`."""
        reply.kv_transfer_params = self._parameters
        for transfer, facts in zip(self._transfers, self._facts, strict=True):
            self._table.complete(transfer, facts)
        if self._waits_for_fetch:
            for transfer in self._transfers:
                await transfer.over.wait()
                if transfer.state != "fetched":
                    raise TransferLostError(f"{transfer.key}: nobody fetched the KV cache")

    def close(self) -> None:
        """Give up what is not computed, and in SGLang also what is not fetched."""
        for transfer in self._transfers:
            if self._waits_for_fetch or transfer.state == "open":
                self._table.give_up(transfer)


class DecodeLeg(Leg):
    """Generates from KV caches computed elsewhere.

    Args:
        ask: What to generate.
        counts: The engine's counters.
        client: How to reach prefill engines.
        claims: What to fetch from each address.
    """

    is_received = True

    def __init__(
        self, ask: Ask, counts: TransferCounts, client: SideChannelClient, claims: Mapping[str, Sequence[Claim]]
    ) -> None:
        super().__init__(ask)
        self._counts = counts
        self._client = client
        self._claims = claims

    async def receive(self) -> None:
        """Fetch the KV caches; see `Leg`. Those that do not come count as stranded."""
        for address, claims in self._claims.items():
            try:
                await self._client.claim(address, claims, self._counts.transfer_timeout_s)
            except TransferLostError:
                self._counts.stranded += len(claims)
                self._counts.changed()
                raise
            self._counts.transfers += len(claims)
            self._counts.changed()
