"""What one worker's KV cache is believed to hold, in blocks. `PrefixIndex` keeps one for each worker."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from router_core.contract.prefix import BLOCK_TOKENS, SHORT_BLOCK_TOKENS, SHORT_BLOCKS, prefix_tokens


class Holders(dict[int, int]):
    """For each block one bit for each mirror that has it.

    Attributes:
        blocks: Blocks over all mirrors together, one on two of them counting twice.
    """

    __slots__ = ("blocks",)

    def __init__(self) -> None:
        self.blocks = 0


class CacheMirror:
    """Blocks in least-recently-used order, those of running requests pinned. None is there without those before it.

    Attributes:
        url: The worker's; None for a mirror that was given up.
        bit: Its bit among a block's holders.
        capacity: Tokens it has room for.
        tokens: Tokens it holds; more than its capacity only as far as they are pinned.
        pinned_tokens: Tokens that running requests pin.
        pins: How many running requests need each pinned block.
        idle: The other blocks, least recently used first, with the number of the release they come from; negative for
            short blocks.
        provisional: Pinned blocks that no request which was computed has vouched for.
    """

    __slots__ = ("url", "bit", "capacity", "tokens", "pinned_tokens", "pins", "idle", "provisional", "_holders")

    def __init__(self, url: str, bit: int, capacity: int, holders: Holders) -> None:
        self.url: str | None = url
        self.bit = bit
        self.capacity = capacity
        self.tokens = 0
        self.pinned_tokens = 0
        self.pins: dict[int, int] = {}
        self.idle: OrderedDict[int, int] = OrderedDict()
        self.provisional: set[int] = set()
        self._holders = holders

    @property
    def oldest_release(self) -> int:
        """Number of the release that its oldest idle block comes from; there must be one."""
        return abs(next(iter(self.idle.values())))

    def pin(self, prefix: Sequence[int]) -> Placement:
        """Pin a prompt's blocks, those that are new too, and make room for them."""
        pins, idle, holders, bit = self.pins, self.idle, self._holders, self.bit
        provisional = self.provisional
        known = 0
        for depth, block in enumerate(prefix):
            if block in pins:
                pins[block] += 1
                known += 1
                continue
            tokens = SHORT_BLOCK_TOKENS if depth < SHORT_BLOCKS else BLOCK_TOKENS
            if idle.pop(block, None) is None:
                holders[block] = holders.get(block, 0) | bit
                holders.blocks += 1
                provisional.add(block)
                self.tokens += tokens
            else:
                known += 1
            pins[block] = 1
            self.pinned_tokens += tokens
        computed = known
        if provisional:
            while computed and prefix[computed - 1] in provisional:
                computed -= 1
        self.evict()
        return Placement(self, prefix, prefix_tokens(known), prefix_tokens(computed))

    def unpin(self, prefix: Sequence[int], *, keeps: bool, release: int) -> None:
        """Let go of a prompt's blocks: they become idle, or go if nobody vouches for them.

        Args:
            prefix: As it was pinned.
            keeps: Whether the prompt was computed: vouches for its blocks.
            release: A number higher than any before.
        """
        pins, idle, provisional = self.pins, self.idle, self.provisional
        if keeps and provisional:
            provisional.difference_update(prefix)
        short_release = -release  # made once: all blocks share the two numbers
        depth = len(prefix)
        for block in reversed(prefix):  # The last is to be forgotten first.
            depth -= 1
            count = pins[block] - 1
            if count:
                pins[block] = count
                continue
            del pins[block]
            is_short = depth < SHORT_BLOCKS
            tokens = SHORT_BLOCK_TOKENS if is_short else BLOCK_TOKENS
            self.pinned_tokens -= tokens
            if block in provisional:
                provisional.discard(block)
                self._drop(block, tokens)
            else:
                idle[block] = short_release if is_short else release
        self.evict()

    def evict(self) -> None:
        """Forget what was not used for longest, as far as the capacity asks."""
        while self.tokens > self.capacity and self.idle:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Forget the idle block that was not used for longest; there must be one."""
        block, release = self.idle.popitem(last=False)
        self._drop(block, BLOCK_TOKENS if release > 0 else SHORT_BLOCK_TOKENS)

    def _drop(self, block: int, tokens: int) -> None:
        self.tokens -= tokens
        holders = self._holders
        holders.blocks -= 1
        left = holders[block] ^ self.bit
        if left:
            holders[block] = left
        else:
            del holders[block]


class Placement:
    """A request's blocks on one worker, pinned until `PrefixIndex.release` or `withdraw`.

    Attributes:
        matched_tokens: How many tokens of the prompt the worker had when it was placed.
        computed_tokens: How many of them were surely computed already; the others were still on their way.
    """

    __slots__ = ("mirror", "prefix", "matched_tokens", "computed_tokens")

    def __init__(self, mirror: CacheMirror, prefix: Sequence[int], matched_tokens: int, computed_tokens: int) -> None:
        self.mirror: CacheMirror | None = mirror  # None once it is released
        self.prefix = prefix
        self.matched_tokens = matched_tokens
        self.computed_tokens = computed_tokens
