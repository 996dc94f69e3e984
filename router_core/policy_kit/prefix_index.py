"""Which worker holds which prefix: a mirror of every worker's KV cache in blocks, kept from what was sent there.

As in an engine, the blocks of running requests are pinned, and what is not is forgotten, least recently used first, as
far as the worker's capacity asks. Nothing expires by the clock.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_core.contract.prefix import prefix_tokens
from router_core.contract.worker import Worker
from router_core.policy_kit.cache_mirror import CacheMirror, Holders, Placement

_SWEEP_STEPS = 64
"""Blocks of departed workers that each placement drops."""


class PrefixIndex:
    """Mirrors the KV caches of one pool's workers.

    A placed request needs exactly one `release` or `withdraw` of its placement. Workers need not be announced: one that
    is not known yet is added by its first placement, with the default capacity.

    Memory is 160 to 230 bytes for each block on each worker. All token figures are estimates, four bytes of text each,
    in whole blocks.
    """

    def __init__(self, capacity_tokens: int = 400_000, *, max_blocks: int = 1_000_000) -> None:
        """Make an empty index.

        Args:
            capacity_tokens: KV cache of a worker nobody has given a capacity of its own.
            max_blocks: Blocks to remember over all workers together, a block on two workers counting twice. Beyond it
                the least recently used goes first, whoever holds it; what running requests pin stays.

        Raises:
            ValueError: If `capacity_tokens` is negative or `max_blocks` not positive.
        """
        _check_capacity(capacity_tokens)
        if max_blocks < 1:
            raise ValueError(f"max_blocks: {max_blocks} is not positive; the index could remember nothing")
        self._capacity_tokens = capacity_tokens
        self._max_blocks = max_blocks
        self._holders = Holders()
        self._mirrors: dict[str, CacheMirror] = {}
        self._departed: list[CacheMirror] = []
        self._free_bits: list[int] = []
        self._bits = 0
        self._releases = 0
        self._view: tuple[Sequence[Worker], int, dict[int, int]] = (), 0, {}

    def __len__(self) -> int:
        """How many blocks are remembered over all workers, those included that departed and are not swept yet."""
        return self._holders.blocks

    # --- asking ---

    def match(self, prefix: Sequence[int], workers: Sequence[Worker]) -> list[int]:
        """Return how many tokens of a prompt each of `workers` has, in their order. Changes nothing.

        One pass over the prompt for all workers. Quickest with the tuple a select hook is given, which stays the same
        object while the candidates do.

        Args:
            prefix: The prompt's block hashes, `RoutingRequest.prefix`.
            workers: The candidates, each at most once.
        """
        view, mask, positions = self._view
        if workers is not view:
            mask, positions = self._look_at(workers)
        matched = [0] * len(workers)
        holders = self._holders
        alive = mask & holders.get(prefix[0], 0) if prefix else 0
        if not alive:
            return matched
        for depth, block in enumerate(prefix):
            still = alive & holders.get(block, 0)
            if still != alive:
                _note(alive ^ still, prefix_tokens(depth), positions, matched)
                if not still:
                    return matched
                alive = still
        _note(alive, prefix_tokens(len(prefix)), positions, matched)
        return matched

    def tokens(self, worker_url: str) -> int:
        """Return how many tokens a worker is believed to hold, 0 for a stranger."""
        mirror = self._mirrors.get(worker_url)
        return 0 if mirror is None else mirror.tokens

    def pinned_tokens(self, worker_url: str) -> int:
        """Return how many of them running requests pin; a prefix that several share counts once."""
        mirror = self._mirrors.get(worker_url)
        return 0 if mirror is None else mirror.pinned_tokens

    def capacity_tokens(self, worker_url: str) -> int:
        """Return how many tokens a worker is taken to have room for."""
        mirror = self._mirrors.get(worker_url)
        return self._capacity_tokens if mirror is None else mirror.capacity

    # --- following requests ---

    def place(self, worker_url: str, prefix: Sequence[int]) -> Placement:
        """Remember that a prompt was sent to a worker, and pin its blocks there.

        Args:
            worker_url: Where it goes.
            prefix: The prompt's block hashes, `RoutingRequest.prefix`.
        """
        placement = self._mirror(worker_url).pin(prefix)
        if self._holders.blocks > self._max_blocks:
            self._evict_anywhere()
        if self._departed:
            self.sweep(_SWEEP_STEPS)
        return placement

    def confirm(self, placement: Placement) -> None:
        """The prompt has been computed, as its first token says: `withdraw` takes nothing back any more."""
        mirror = placement.mirror
        if mirror is not None and mirror.provisional:
            mirror.provisional.difference_update(placement.prefix)

    def release(self, placement: Placement) -> None:
        """The request has run: its blocks stay until their room is needed. A second call does nothing."""
        self._unpin(placement, keeps=True)

    def withdraw(self, placement: Placement) -> None:
        """The request was not computed: take its blocks back unless others count on them. A second call does nothing.

        For requests that failed or were refused, or that ended before their prefill did.
        """
        self._unpin(placement, keeps=False)

    # --- knowing the workers ---

    def add_worker(self, worker_url: str, capacity_tokens: int | None = None) -> None:
        """Know a worker. One that departed and returns has again what was not dropped meanwhile.

        Args:
            worker_url: Who.
            capacity_tokens: Its KV cache; None leaves it as it is, the default for a newcomer.

        Raises:
            ValueError: If `capacity_tokens` is negative.
        """
        if capacity_tokens is None:
            self._mirror(worker_url)
        else:
            self.set_capacity(worker_url, capacity_tokens)

    def remove_worker(self, worker_url: str) -> None:
        """A worker left: drop what it holds little by little, with the placements and sweeps that follow.

        Requests still running on it are released as usual. A worker that is only unhealthy should stay.
        """
        mirror = self._mirrors.pop(worker_url, None)
        if mirror is not None:
            self._departed.append(mirror)
            self._view = (), 0, {}

    def forget(self, worker_url: str) -> None:
        """A worker's cache is empty, as after a restart; it counts as departed and a new one takes its place."""
        mirror = self._mirrors.get(worker_url)
        if mirror is not None:
            self.remove_worker(worker_url)
            mirror.url = None  # never to return
            self.add_worker(worker_url, mirror.capacity)

    def set_capacity(self, worker_url: str, capacity_tokens: int) -> None:
        """Change a worker's capacity; what no longer fits is forgotten now.

        Raises:
            ValueError: If `capacity_tokens` is negative.
        """
        _check_capacity(capacity_tokens)
        mirror = self._mirror(worker_url)
        mirror.capacity = capacity_tokens
        mirror.evict()

    def sweep(self, steps: int) -> bool:
        """Drop up to `steps` blocks of departed workers; returns whether any is left to drop.

        Placements sweep too: this is for a pool that may stand still.
        """
        for mirror in tuple(self._departed):
            while steps > 0 and mirror.idle:
                mirror.drop_oldest()
                steps -= 1
            if not mirror.idle and not mirror.pins:
                self._departed.remove(mirror)
                self._free_bits.append(mirror.bit)
        return any(mirror.idle for mirror in self._departed)

    # --- within ---

    def _mirror(self, worker_url: str) -> CacheMirror:
        """Return a worker's mirror: the one it has, the one it left behind, or a new one."""
        mirror = self._mirrors.get(worker_url)
        if mirror is not None:
            return mirror
        mirror = next((each for each in self._departed if each.url == worker_url), None)
        if mirror is None:
            mirror = CacheMirror(worker_url, self._free_bit(), self._capacity_tokens, self._holders)
        else:
            self._departed.remove(mirror)
        self._mirrors[worker_url] = mirror
        self._view = (), 0, {}
        return mirror

    def _free_bit(self) -> int:
        if self._free_bits:
            return self._free_bits.pop()
        self._bits += 1
        return 1 << (self._bits - 1)

    def _unpin(self, placement: Placement, *, keeps: bool) -> None:
        mirror = placement.mirror
        if mirror is None:
            return
        placement.mirror = None
        self._releases += 1
        mirror.unpin(placement.prefix, keeps=keeps, release=self._releases)
        if self._holders.blocks > self._max_blocks:
            self._evict_anywhere()

    def _evict_anywhere(self) -> None:
        """Forget what was not used for longest, of departed workers first, until the budget holds."""
        while (excess := self._holders.blocks - self._max_blocks) > 0:
            idle = [mirror for mirror in self._departed if mirror.idle]
            idle = idle or [mirror for mirror in self._mirrors.values() if mirror.idle]
            if not idle:
                return
            oldest = min(idle, key=_oldest_release)
            release = oldest.oldest_release  # one request's, so no other mirror has blocks of it
            while excess > 0 and oldest.idle and oldest.oldest_release == release:
                oldest.drop_oldest()
                excess -= 1

    def _look_at(self, workers: Sequence[Worker]) -> tuple[int, dict[int, int]]:
        mask, positions = 0, {}
        for position, worker in enumerate(workers):
            mirror = self._mirrors.get(worker.url)
            if mirror is not None:
                mask |= mirror.bit
                positions[mirror.bit] = position
        if type(workers) is tuple:  # a list might have changed when it is seen again
            self._view = workers, mask, positions
        return mask, positions


def _oldest_release(mirror: CacheMirror) -> int:
    return mirror.oldest_release


def _note(bits: int, tokens: int, positions: dict[int, int], matched: list[int]) -> None:
    while bits:
        lowest = bits & -bits
        matched[positions[lowest]] = tokens
        bits ^= lowest


def _check_capacity(tokens: int) -> None:
    if tokens < 0:
        raise ValueError(f"capacity_tokens: {tokens} is negative; give 0 for a worker without a prefix cache")
