"""SGLang's protocol: both legs get the same body at once, with a bootstrap room in it where their engines meet.

The prefill engine answers when decode has fetched the KV cache, so its answer is the sign that the transfer is over.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import orjson
from pydantic import Field

from router_core.contract.policy import PolicyConfig
from router_core.contract.worker import Worker
from router_core.relay.call import Pieces
from router_core.traffic.json_edit import append_members
from router_core.traffic.pd.protocol import BOOTSTRAP_PORT, Conversation, Legs
from router_core.traffic.pd.sglang_logprobs import LogprobMerge
from router_core.traffic.ranks import rank_of

_ROOM_BITS = 63
_MAX_COPIES = 1024  # of one prompt; more is for the engine to refuse, not for us to make rooms for


class SglangProtocol:
    """`pd.protocol: sglang`; see `PairProtocol`."""

    class Config(PolicyConfig):
        """What can be set under `pd.options`."""

        linger_s: float = Field(default=30.0, gt=0, le=3600)
        """Seconds the legs of a client that left may go on, for their transfer to be finished."""

    prefill_waits_for_fetch = True
    keeps_kv_cache = False  # the prefill engine meets one decode engine in one room
    local_prefill = None  # a decode engine of SGLang's does no prefill

    def __init__(self, config: Config) -> None:
        self.linger_s = config.linger_s
        self._random = random.SystemRandom()

    def converse(self, legs: Legs) -> Conversation:
        """Take a request."""
        return _SglangConversation(legs, self._random)


class _SglangConversation:
    def __init__(self, legs: Legs, chance: random.Random) -> None:
        self._legs = legs
        self._chance = chance

    def begin(self) -> None:
        """Send both legs."""
        legs = self._legs
        fields = legs.fields
        members = bootstrap_members(legs.prefill, batch_size(legs.head.path, fields), self._chance)
        prefill_rank, decode_rank = rank_of(legs.prefill), rank_of(legs.decode)
        prefill_body = append_members(legs.body, members + _rank_members(data_parallel_rank=prefill_rank))
        if prefill_body is None:
            legs.refuse(400, "invalid_json", "The body must be a JSON object.")
            return
        decode_body: bytes | Pieces | None = prefill_body
        if prefill_rank is not None or decode_rank is not None:
            # Without being told, decode takes the prefill rank to be the room's number modulo their count.
            ranks = _rank_members(data_parallel_rank=decode_rank, disagg_prefill_dp_rank=prefill_rank)
            decode_body = append_members(legs.body, members + ranks)
        assert decode_body is not None  # noqa: S101  # as the other one
        merge = None
        if fields.get("return_logprob"):
            merge = LogprobMerge(is_stream=fields.get("stream") is True)
        legs.send_prefill(prefill_body)
        legs.send_decode(decode_body, merge=merge)

    def prefilled(self, answer: bytes) -> None:
        """The transfer is over; nothing more is to be sent."""

    def decode_again(self) -> None:
        """Not told: both legs are sent at once, and have to be worded anew together."""

    def failed(self) -> None:
        """A room is used once: nothing is to be forgotten."""


def batch_size(path: bytes, fields: Mapping[str, Any]) -> int | None:
    """Return how many rooms a request needs, None for one that is no batch (`Any`: it is a client's JSON)."""
    # 1. How many prompts: a list of texts, or of lists of token ids; one list of token ids is one prompt.
    prompts: object = None
    if path == b"/generate":
        prompts = fields.get("text") if "text" in fields else fields.get("input_ids")
    elif path == b"/v1/completions":
        prompts = fields.get("prompt")
    is_list = isinstance(prompts, list) and bool(prompts) and not isinstance(prompts[0], int)
    count = len(prompts) if is_list and isinstance(prompts, list) else 1
    # 2. How many answers to each.
    sampling = fields.get("sampling_params") if path == b"/generate" else fields
    copies = sampling.get("n") if isinstance(sampling, dict) else None
    if isinstance(copies, int) and not isinstance(copies, bool) and 1 < copies <= _MAX_COPIES:
        return count * copies
    return count if is_list else None


def bootstrap_members(prefill: Worker, size: int | None, chance: random.Random) -> bytes:
    """Return the three fields as JSON members: a fresh room for each item of a batch."""
    port = prefill.labels.get(BOOTSTRAP_PORT)
    host = urlsplit(prefill.base_url).hostname or ""
    host_text = f"[{host}]" if ":" in host else host
    port_number = None if port is None else int(port)
    fields: dict[str, object] = {
        "bootstrap_host": host_text,
        "bootstrap_port": port_number,
        "bootstrap_room": chance.getrandbits(_ROOM_BITS),
    }
    if size is not None:
        fields = {
            "bootstrap_host": [host_text] * size,
            "bootstrap_port": [port_number] * size,
            "bootstrap_room": [chance.getrandbits(_ROOM_BITS) for _ in range(size)],
        }
    return orjson.dumps(fields)[1:-1]


def _rank_members(**ranks: int | None) -> bytes:
    """Return the ranks that are known as JSON members that follow others."""
    return b"".join(b',"%b":%d' % (name.encode(), rank) for name, rank in ranks.items() if rank is not None)
