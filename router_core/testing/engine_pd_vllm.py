"""vLLM's prefill/decode protocols: a prefill request for one token, then a decode request that names its KV cache.

1. `nixl`: the prefill answer's `kv_transfer_params` go into the decode request as they are.
2. `nixl-push`: the same, and its `transfer_mode` says that from now on both may be sent at once: the decode request
   then has the engine's identity, and as `remote_request_id` the `X-Request-Id` of the prefill request.
3. `mooncake`: the router names the transfer; the decode request has the bootstrap address and the engine's id.
4. `p2p`: everything stands in the `X-Request-Id`, the same for both.

Stricter than the real engine, which computes what it was not given, or what was given wrongly: here that is refused.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from router_core.engine_model.prefix_cache import BLOCK_TOKENS, token_count
from router_core.testing.engine_leg import DecodeLeg, Leg, LegRequest, PrefillLeg
from router_core.testing.engine_ranks import read_rank
from router_core.testing.engine_request import Ask
from router_core.testing.engine_side_channel import Claim, SideChannelClient
from router_core.testing.engine_state import EngineState
from router_core.testing.engine_transfer import KeyMemory, RefusedLegError, TransferTable, refuse_unless

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_REMOTE = ("remote_engine_id", "remote_block_ids", "remote_host", "remote_port")
_ADDRESS = r"(?:tcp://|http://)?([^/\s]+):(\d+)"
_P2P_ID = re.compile(rf"___prefill_addr_{_ADDRESS}___decode_addr_{_ADDRESS}_[0-9a-f-]{{32,36}}")
_ID_PREFIX = re.compile(r"^(?:chatcmpl-|cmpl-|resp_|msg_)")


class VllmProtocol:
    """Reads the legs of an engine with `pd="vllm"`."""

    def __init__(
        self, state: EngineState, table: TransferTable, client: SideChannelClient, engine_ids: Sequence[str]
    ) -> None:
        self._state = state
        self._table = table
        self._client = client
        self._engine_ids = engine_ids
        self._seen = KeyMemory()
        self._next_block = 1

    def admit(self, seen: LegRequest, body: dict[str, Any], ask: Ask, request_id: str) -> Leg:
        """Take in a leg.

        Raises:
            RefusedLegError: If it breaks the protocol.
        """
        rank = read_rank(seen.headers.get("x-data-parallel-rank"), self._state.dp_size, "X-data-parallel-rank") or 0
        parameters = body.get("kv_transfer_params")
        if self._state.connector == "p2p":
            return self._p2p(seen.headers.get("x-request-id", ""), body, ask)
        if self._state.role == "decode":
            if parameters is None and self._state.recomputes:
                return Leg(ask)
            return self._decode(_object(parameters), ask)
        _check_prefill(body)
        return self._prefill(_object(parameters), ask, request_id, self._engine_ids[rank])

    def _prefill(self, parameters: dict[str, Any], ask: Ask, request_id: str, engine_id: str) -> Leg:
        refuse_unless(parameters.get("do_remote_decode") is True, parameters, "do_remote_decode must be true")
        refuse_unless(parameters.get("do_remote_prefill") is False, parameters, "do_remote_prefill must be false")
        if self._state.connector == "mooncake":
            transfer = self._table.open(_mooncake_key(parameters))
            return PrefillLeg(ask, self._table, [transfer], [{"engine_id": engine_id}])
        for name in _REMOTE:
            refuse_unless(parameters.get(name) is None, parameters, f"{name} must be null, only the engine knows it")
        is_push = self._state.connector == "nixl-push"
        remote_id = request_id if is_push else f"{request_id}-{uuid.uuid4().hex[:8]}"
        blocks = self._allocate(ask)
        answer = {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": blocks,
            "remote_engine_id": engine_id,
            "remote_request_id": remote_id,
            "remote_host": self._state.host,
            "remote_port": self._state.bootstrap_port,
            "tp_size": 1,
        } | ({"transfer_mode": "push"} if is_push else {})
        transfer = self._table.open(_nixl_key(remote_id))
        facts = {"engine_id": engine_id, "block_ids": blocks}
        return PrefillLeg(ask, self._table, [transfer], [facts], parameters=answer)

    def _decode(self, parameters: dict[str, Any], ask: Ask) -> Leg:
        refuse_unless(parameters.get("do_remote_prefill") is True, parameters, "do_remote_prefill must be true")
        refuse_unless(parameters.get("do_remote_decode") is False, parameters, "do_remote_decode must be false")
        facts: dict[str, Any] = {"engine_id": _text(parameters, "remote_engine_id")}
        if self._state.connector == "mooncake":
            address = _text(parameters, "remote_bootstrap_addr")
            refuse_unless(address.startswith("http://"), address, "remote_bootstrap_addr must be an http:// address")
            return self._fetch(ask, address.rstrip("/"), Claim(_mooncake_key(parameters), facts, may_wait=True))
        host, port = _text(parameters, "remote_host"), parameters.get("remote_port")
        refuse_unless(isinstance(port, int) and 0 < port < 65536, port, "remote_port must be a port")
        blocks = parameters.get("remote_block_ids")
        is_early = self._state.connector == "nixl-push" and blocks is None
        if not is_early:
            refuse_unless(isinstance(blocks, list) and bool(blocks), blocks, "remote_block_ids must be a list")
            facts["block_ids"] = blocks
        key = _nixl_key(_text(parameters, "remote_request_id"))
        return self._fetch(ask, f"http://{host}:{port}", Claim(key, facts, may_wait=is_early))

    def _p2p(self, request_id: str, body: dict[str, Any], ask: Ask) -> Leg:
        found = _P2P_ID.fullmatch(request_id)
        if found is None:
            form = "___prefill_addr_HOST:PORT___decode_addr_HOST:PORT_UUID"
            raise RefusedLegError(f"X-Request-Id must be {form}, not {request_id!r}")
        prefill_host, prefill_port, _, decode_port = found.groups()
        is_prefill = self._state.role == "prefill"
        own_port = int(prefill_port if is_prefill else decode_port)
        is_own = own_port in (self._state.port, self._state.bootstrap_port)
        refuse_unless(is_own, request_id, f"X-Request-Id must have this engine's address as {self._state.role}_addr")
        if is_prefill:
            _check_prefill(body)
            return PrefillLeg(ask, self._table, [self._table.open(request_id)], [{}])
        return self._fetch(ask, f"http://{prefill_host}:{prefill_port}", Claim(request_id, {}, may_wait=True))

    def _fetch(self, ask: Ask, address: str, claim: Claim) -> Leg:
        refuse_unless(self._seen.get(claim.key) is None, claim.key, "a KV cache is fetched once")
        self._seen.note(claim.key, "seen")
        return DecodeLeg(ask, self._state, self._client, {address: [claim]})

    def _allocate(self, ask: Ask) -> list[int]:
        size = max(1, sum(map(token_count, ask.prompts)) // BLOCK_TOKENS)
        first = self._next_block
        self._next_block += size
        return list(range(first, first + size))


def _check_prefill(body: dict[str, Any]) -> None:
    """Refuse a prefill request that would generate more than its first token, or stream it."""
    limits = {name: body[name] for name in _LIMITS if body.get(name) is not None}
    is_one = bool(limits) and all(limit == 1 and limit is not True for limit in limits.values())
    refuse_unless(is_one, limits, "a prefill request must have max_tokens 1")
    refuse_unless(body.get("min_tokens") in (None, 0, 1), body.get("min_tokens"), "min_tokens must be at most 1")
    refuse_unless(body.get("stream") in (None, False), body.get("stream"), "a prefill request must have stream false")
    refuse_unless("stream_options" not in body, body.get("stream_options"), "stream_options must be left out")


def _object(parameters: Any) -> dict[str, Any]:
    if not isinstance(parameters, dict):
        raise RefusedLegError(f"kv_transfer_params must be an object, not {parameters!r}")
    return parameters


def _text(parameters: dict[str, Any], name: str) -> str:
    value = parameters.get(name)
    if not isinstance(value, str) or not value:
        raise RefusedLegError(f"kv_transfer_params.{name} is missing")
    return value


def _mooncake_key(parameters: dict[str, Any]) -> str:
    return "transfer_id " + _text(parameters, "transfer_id")


def _nixl_key(remote_request_id: str) -> str:
    return "remote_request_id " + _ID_PREFIX.sub("", remote_request_id)
