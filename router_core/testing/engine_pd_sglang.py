"""SGLang's prefill/decode protocol: both legs get the same body at the same time, with a bootstrap room in it.

Stricter than the real engine where that lets a router's mistake pass at first: rooms are never used twice, a batch has
one room for each item, the port is the prefill engine's own. As in the real one the prefill leg is answered when the
decode engine has its KV cache, so legs sent one after another never end.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from router_core.testing.engine_leg import DecodeLeg, Leg, LegRequest, PrefillLeg
from router_core.testing.engine_ranks import read_rank
from router_core.testing.engine_request import Ask
from router_core.testing.engine_side_channel import Claim, SideChannelClient
from router_core.testing.engine_state import EngineState
from router_core.testing.engine_transfer import KeyMemory, RefusedLegError, TransferTable, refuse_unless

_ROOMS = 2**63


class Room(NamedTuple):
    """One item's bootstrap fields."""

    host: str
    port: int
    number: int

    @property
    def key(self) -> str:
        """What both legs call its transfer."""
        return f"bootstrap_room {self.number}"


class SglangProtocol:
    """Reads the legs of an engine with `pd="sglang"`."""

    def __init__(self, state: EngineState, table: TransferTable, client: SideChannelClient) -> None:
        self._state = state
        self._table = table
        self._client = client
        self._seen = KeyMemory()

    def admit(self, _seen: LegRequest, body: dict[str, Any], ask: Ask, _request_id: str) -> Leg:
        """Take in a leg.

        Raises:
            RefusedLegError: If it breaks the protocol.
        """
        rooms = read_rooms(body, len(ask.prompts) * ask.copies)
        rank = read_rank(body.get("data_parallel_rank"), self._state.dp_size, "data_parallel_rank")
        return self._prefill(rooms, rank, ask) if self._state.role == "prefill" else self._decode(rooms, body, ask)

    def _prefill(self, rooms: list[Room], rank: int | None, ask: Ask) -> Leg:
        for room in rooms:
            refuse_unless(room.port == self._state.bootstrap_port, room.port, "bootstrap_port is another engine's")
        transfers = []
        try:
            for room in rooms:
                transfers.append(self._table.open(room.key))  # noqa: PERF401 - those opened before one is refused
        except RefusedLegError:
            for transfer in transfers:
                self._table.give_up(transfer)
            raise
        dp_size = self._state.dp_size
        guesses = [room.number % dp_size for room in rooms]
        ranks = guesses if rank is None else [rank] * len(rooms)
        facts = [{"dp_rank": own, "is_guessable": own == guess} for own, guess in zip(ranks, guesses, strict=True)]
        return PrefillLeg(ask, self._table, transfers, facts, waits_for_fetch=True)

    def _decode(self, rooms: list[Room], body: dict[str, Any], ask: Ask) -> Leg:
        prefill_rank = body.get("disagg_prefill_dp_rank")
        is_rank = isinstance(prefill_rank, int) and not isinstance(prefill_rank, bool) and prefill_rank >= 0
        refuse_unless(prefill_rank is None or is_rank, prefill_rank, "disagg_prefill_dp_rank must be a rank")
        facts = {"is_guessable": True} if prefill_rank is None else {"dp_rank": prefill_rank}
        claims: dict[str, list[Claim]] = defaultdict(list)
        for room in rooms:
            refuse_unless(self._seen.get(room.key) is None, room.number, "bootstrap_room must be fresh")
        for room in rooms:
            self._seen.note(room.key, "seen")
            claims[f"http://{room.host}:{room.port}"].append(Claim(room.key, facts, may_wait=True))
        return DecodeLeg(ask, self._state, self._client, claims)


def read_rooms(body: dict[str, Any], size: int) -> list[Room]:
    """Return the bootstrap fields of each item of a request.

    Args:
        body: The request.
        size: How many items its batch has; 1 for no batch.

    Raises:
        RefusedLegError: If one is missing, invalid, used twice, or lists are not of the batch's length.
    """
    hosts, ports, numbers = (
        _items(body, name, size) for name in ("bootstrap_host", "bootstrap_port", "bootstrap_room")
    )
    for host in hosts:
        refuse_unless(_is_host, host, "bootstrap_host must be a host")
    for port in ports:
        refuse_unless(_is_whole(port) and 0 < port < 65536, port, "bootstrap_port must be a port")
    for number in numbers:
        refuse_unless(_is_whole(number) and 0 <= number < _ROOMS, number, "bootstrap_room must be 0 to 2**63 - 1")
    refuse_unless(len(set(numbers)) == len(numbers), numbers, "bootstrap_room must differ from item to item")
    return [Room(*fields) for fields in zip(hosts, ports, numbers, strict=True)]


def _items(body: dict[str, Any], name: str, size: int) -> list[Any]:
    value = body.get(name)
    if value is None:
        raise RefusedLegError(f"{name} is missing")
    if isinstance(value, list):
        refuse_unless(len(value) == size, value, f"{name} must have {size} items")
        return value
    refuse_unless(size == 1, value, f"{name} must be a list of {size} items")
    return [value]


def _is_host(value: Any) -> bool:
    if not isinstance(value, str) or not value or any(character in value for character in "/@ "):
        return False
    return (value.startswith("[") and value.endswith("]")) or ":" not in value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
