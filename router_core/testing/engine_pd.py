"""What makes a simulated engine half of a disaggregated pair: its protocol, its KV caches, its way to the others."""

from __future__ import annotations

import uuid
from typing import Any

from router_core.testing.engine_leg import Leg, LegRequest
from router_core.testing.engine_pd_sglang import SglangProtocol
from router_core.testing.engine_pd_vllm import VllmProtocol
from router_core.testing.engine_request import Ask
from router_core.testing.engine_side_channel import SideChannel, SideChannelClient
from router_core.testing.engine_state import EngineState
from router_core.testing.engine_transfer import TransferTable


class Disaggregation:
    """Reads each generation request as a leg; in an engine without `pd` as the only one.

    Attributes:
        engine_ids: The engine's ids, one for each data-parallel rank; new ones at each start, as in vLLM.
        side_channel: Where other engines ask for KV caches.
    """

    def __init__(self, state: EngineState) -> None:
        life = f"{state.name}-{uuid.uuid4()}"
        ranks = range(state.dp_size)
        self.engine_ids = [life if state.dp_size == 1 else f"{life}_dp{rank}" for rank in ranks]
        self._table = TransferTable(state)
        self._client = SideChannelClient()
        self.side_channel = SideChannel(self._table, self.engine_ids)
        self._protocol: SglangProtocol | VllmProtocol | None = None
        if state.pd == "sglang":
            self._protocol = SglangProtocol(state, self._table, self._client)
        elif state.pd == "vllm":
            self._protocol = VllmProtocol(state, self._table, self._client, self.engine_ids)

    def admit(self, seen: LegRequest, body: dict[str, Any], ask: Ask, request_id: str) -> Leg:
        """Take in a generation request.

        Args:
            seen: The request.
            body: Its body. `Any`: it is a client's JSON.
            ask: What it asks for.
            request_id: The id its answer will have.

        Raises:
            RefusedLegError: If it breaks the protocol.
        """
        return Leg(ask) if self._protocol is None else self._protocol.admit(seen, body, ask, request_id)

    async def close(self) -> None:
        """Lose all KV caches and connections, as when the process is killed."""
        self._table.close()
        await self._client.close()
