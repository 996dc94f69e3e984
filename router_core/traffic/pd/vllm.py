"""vLLM's protocol: a prefill request for one token, then a decode request that names its KV cache.

1. `nixl`: what the prefill answer says of its KV cache goes into the decode request as it is. An engine that pushes
   says so in its first answer; from then on both legs are sent at once.
2. `mooncake`: the router names the transfer, and asks the bootstrap server for the engine's id first.
3. `p2p`: both addresses stand in `X-Request-Id`, the same for both legs.

A prefill engine keeps a KV cache that nobody fetches until it gives up. So when the client leaves between the legs,
decode is sent all the same, for one token; and when the decode worker cannot be reached, to another one.

Only one that nothing was sent to is replaced. What another may have fetched is not asked for again: an engine frees its
KV cache when it was fetched, or when a decode engine refuses the request, and one that pulls by NIXL reads memory that
is given up, or belongs to another request by now, without noticing. Mooncake's would wait for minutes. Then the whole
pair is tried anew.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field

from router_core.contract.policy import PolicyConfig
from router_core.contract.worker import Worker
from router_core.relay.request_head import RequestHead
from router_core.traffic.json_edit import append_members, replace_members
from router_core.traffic.pd.local_prefill import LocalPrefill
from router_core.traffic.pd.protocol import BOOTSTRAP_PORT, Conversation, Legs
from router_core.traffic.pd.vllm_usage import UsageMerge
from router_core.traffic.ranks import RANK_HEADER, rank_of

_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_REPLACED = frozenset({*_LIMITS, "min_tokens", "stream", "stream_options", "kv_transfer_params"})
_IDENTITY = ("remote_engine_id", "remote_host", "remote_port", "tp_size", "transfer_mode")
_NIXL: Mapping[str, object] = {
    "do_remote_decode": True,
    "do_remote_prefill": False,
    "remote_engine_id": None,
    "remote_block_ids": None,
    "remote_host": None,
    "remote_port": None,
}
_QUERIES = 3
_MESSAGES = b"/v1/messages"

Parameters = Mapping[str, Any]  # Any: what an engine puts into kv_transfer_params is its own business


class VllmProtocol:
    """`pd.protocol: vllm`; see `PairProtocol`."""

    class Config(PolicyConfig):
        """What can be set under `pd.options`."""

        connector: Literal["nixl", "mooncake", "p2p"] = "nixl"
        """How the engines move KV caches."""

        min_prefill_tokens: int = Field(default=0, ge=0)
        """Requests of whose prompt fewer (estimated) tokens are missing on a decode worker go to that one alone."""

        decode_cache_tokens: int = Field(default=400_000, ge=0)
        """KV cache of a decode worker; with `min_prefill_tokens` the router keeps track of what is in it."""

        linger_s: float = Field(default=10.0, gt=0, le=3600)
        """Seconds the legs of a client that left may go on, for their transfer to be finished."""

    prefill_waits_for_fetch = False

    def __init__(self, config: Config) -> None:
        self.linger_s = config.linger_s
        # P2P engines send to the address in the request's id, as soon as they have computed something.
        self.keeps_kv_cache = config.connector != "p2p"
        self.connector = config.connector
        self.pushers: dict[str, Parameters] = {}
        self.local_prefill: LocalPrefill | None = None
        if config.min_prefill_tokens:
            self.local_prefill = LocalPrefill(config.min_prefill_tokens, config.decode_cache_tokens)

    def converse(self, legs: Legs) -> Conversation:
        """Take a request."""
        return _VllmConversation(legs, self)


class _VllmConversation:
    def __init__(self, legs: Legs, protocol: VllmProtocol) -> None:
        self._legs = legs
        self._protocol = protocol
        self._connector = protocol.connector
        self._id = uuid.uuid4().hex
        self._queries = 0
        self._engine_id = ""
        self._is_push = False
        self._is_alone = False
        self._parameters: Parameters | None = None  # that the decode leg was sent with

    def begin(self) -> None:
        """Send the prefill leg, or find out first what it takes."""
        legs = self._legs
        if append_members(legs.body, b"") is None or not legs.fields:
            legs.refuse(400, "invalid_json", "The body must be a JSON object.")
        elif _is_batch(legs.fields) or (self._connector == "nixl" and legs.head.path == _MESSAGES):
            # 1. One KV cache is fetched once: several sequences could not share it.
            # 2. An answer in Anthropic's form does not tell where the KV cache is.
            legs.skip_prefill()
            self._is_alone = True
            self.decode_again()
        elif self._connector == "mooncake":
            self._query()
        else:
            self._send_prefill()

    def prefilled(self, answer: bytes) -> None:
        """Send the decode leg, if it is not on its way."""
        legs = self._legs
        try:
            document = orjson.loads(answer)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            self._protocol.pushers.pop(legs.prefill.url, None)
            if not self._is_push:
                legs.fail_prefill("the prefill leg's answer is not a JSON object")
            return
        if self._connector == "mooncake":
            self._send_decode(self._mooncake())
        elif self._connector == "p2p":
            self._send_decode(None)
        else:
            parameters = document.get("kv_transfer_params")
            parameters = parameters if isinstance(parameters, dict) else None
            self._learn(parameters)
            if not self._is_push:
                self._send_decode(parameters)  # without any, decode computes the prompt itself

    def decode_again(self) -> None:
        """Send the decode leg, as it was sent before if it was."""
        if self._is_alone:
            self._legs.send_decode(self._legs.body, self._head_for(self._legs.decode))
        else:
            self._send_decode(self._parameters)

    def failed(self) -> None:
        """What is known of the prefill engine may not be true any more: it may have been started anew."""
        self._protocol.pushers.pop(self._legs.prefill.url, None)

    # --- prefill ---

    def _send_prefill(self) -> None:
        legs = self._legs
        pusher = self._protocol.pushers.get(legs.prefill.url) if self._connector == "nixl" else None
        members: dict[str, object] = _one_token(legs)
        if self._connector == "nixl":
            members["kv_transfer_params"] = _NIXL
        elif self._connector == "mooncake":
            members["kv_transfer_params"] = {
                "do_remote_decode": True,
                "do_remote_prefill": False,
                "transfer_id": f"xfer-{self._id}",
            }
        body = replace_members(legs.body, _REPLACED, _members(members))
        if body is None:
            legs.refuse(400, "invalid_json", "The body must be a JSON object.")
            return
        self._is_push = pusher is not None
        legs.send_prefill(body, self._head_for(legs.prefill))
        if pusher is not None:
            early: dict[str, object] = {
                "do_remote_prefill": True,
                "do_remote_decode": False,
                "remote_request_id": self._request_id(),
            }
            self._send_decode({**early, **pusher})

    def _query(self) -> None:
        """Ask the bootstrap server for the engine's id; an engine that was started anew has another."""
        self._queries += 1
        self._legs.ask(_bootstrap_url(self._legs.prefill), b"/query", self._answered)

    def _answered(self, answer: bytes | None) -> None:
        engine_id = _engine_id(answer, rank_of(self._legs.prefill) or 0)
        if engine_id is not None:
            self._engine_id = engine_id
            self._send_prefill()
        elif self._queries < _QUERIES:
            self._query()
        else:
            self._legs.fail_prefill("its bootstrap server did not tell the engine's id")

    def _learn(self, parameters: Parameters | None) -> None:
        pushers, url = self._protocol.pushers, self._legs.prefill.url
        if parameters is not None and parameters.get("transfer_mode") == "push":
            pushers[url] = {name: parameters[name] for name in _IDENTITY if name in parameters}
        else:
            pushers.pop(url, None)

    # --- decode ---

    def _send_decode(self, parameters: Parameters | None) -> None:
        legs, head = self._legs, self._head_for(self._legs.decode)
        self._parameters = parameters
        added: dict[str, object] = {} if parameters is None else {"kv_transfer_params": parameters}
        if legs.is_abandoned:
            short = replace_members(legs.body, _REPLACED, _members(_one_token(legs) | added))
            legs.send_decode(legs.body if short is None else short, head)
            return
        body = append_members(legs.body, _members(added)) if added else None
        legs.send_decode(legs.body if body is None else body, head, merge=_merge(legs.fields))

    def _mooncake(self) -> Parameters:
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "transfer_id": f"xfer-{self._id}",
            "remote_bootstrap_addr": _bootstrap_url(self._legs.prefill),
            "remote_engine_id": self._engine_id,
        }

    def _head_for(self, worker: Worker) -> RequestHead:
        fields = {b"x-request-id": self._request_id().encode()}
        rank = rank_of(worker)
        if rank is not None:
            fields[RANK_HEADER] = b"%d" % rank
        return self._legs.head.changed(fields)

    def _request_id(self) -> str:
        if self._connector == "p2p":
            prefill, decode = _address(self._legs.prefill), _address(self._legs.decode)
            return f"___prefill_addr_{prefill}___decode_addr_{decode}_{self._id}"
        given = self._legs.head.fields.get(b"x-request-id")
        return self._id if given is None else f"{given.decode('latin-1')}-{self._id}"


def _is_batch(fields: Mapping[str, Any]) -> bool:
    prompt, copies = fields.get("prompt"), fields.get("n")
    is_list = isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int)
    return is_list or (isinstance(copies, int) and copies > 1)


def _one_token(legs: Legs) -> dict[str, object]:
    limit = "max_output_tokens" if legs.head.path == b"/v1/responses" else "max_tokens"
    members: dict[str, object] = {limit: 1, "stream": False}
    if legs.fields.get("max_completion_tokens") is not None:
        members["max_completion_tokens"] = 1
    return members


def _members(fields: Mapping[str, object]) -> bytes:
    return orjson.dumps(fields)[1:-1]


def _merge(fields: Mapping[str, Any]) -> UsageMerge | None:
    if fields.get("stream") is not True:
        return UsageMerge(is_stream=False)
    options = fields.get("stream_options")
    wants_usage = isinstance(options, dict) and options.get("include_usage")
    return UsageMerge(is_stream=True) if wants_usage else None


def _engine_id(answer: bytes | None, rank: int) -> str | None:
    """Return the id of a data-parallel rank, None if the answer tells none."""
    try:
        ranks = None if answer is None else orjson.loads(answer)
    except orjson.JSONDecodeError:
        return None
    found = ranks.get(str(rank)) if isinstance(ranks, dict) else None
    engine_id = found.get("engine_id") if isinstance(found, dict) else None
    return engine_id if isinstance(engine_id, str) else None


def _bootstrap_url(prefill: Worker) -> str:
    return f"http://{_address(prefill)}"


def _address(worker: Worker) -> str:
    """Return where a worker's connector listens: its bootstrap port, else the port of its HTTP server."""
    parts = urlsplit(worker.base_url)
    host = parts.hostname or ""
    port = worker.labels.get(BOOTSTRAP_PORT) or parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
