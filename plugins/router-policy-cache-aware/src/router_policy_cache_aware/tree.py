"""A radix tree that remembers which holder was given which text, within a budget of characters.

It knows nothing of routers: holders are strings, namespaces any hashable. No clock, no thread, no I/O.

What always holds between two calls:

1. A node's text is the labels from its root down. Siblings differ in the first character of their labels.
2. Who holds a node holds its parent: what a holder has of a text is one path from the root.
3. A holder's `chars` is the sum of the label lengths of the nodes it holds; the tree's `chars` is the sum over holders.
   Splitting a node changes neither.
4. A node that nobody holds is gone, and so is a root without children.
5. `Holding.branches` counts the children its holder also holds. Holdings without branches are where a holder's texts
   end; they are exactly its `ends`, and all of them stand in `_recency`.
6. `_recency` runs from the longest unused to the latest used. A holding with branches stands there only if a text ended
   at it later than any continuation was learned; eviction passes over it, since its continuations are newer.

Cost: no step looks at the characters one by one. Whole labels are compared by `startswith` (memcmp); where two strings
part is found by bisection, also with `startswith`.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Container, Hashable, Mapping

from router_policy_cache_aware.node import Holder, Holding, Node, Root


class Match:
    """How much of a text is known. Good until the tree changes.

    Attributes:
        text: What was looked up.
        chars: How many of its characters are known, to whomever.
        node: The node in which the known part ends; a root when nothing is known.
        offset: How many characters of that node's label are known.
    """

    __slots__ = ("text", "chars", "node", "offset")

    def __init__(self, text: str, chars: int, node: Node, offset: int) -> None:
        self.text = text
        self.chars = chars
        self.node = node
        self.offset = offset


class PrefixTree:
    """Texts by namespace and by holder; the least recently used go when there are too many characters.

    Args:
        max_chars: The budget: `chars` never exceeds it. None for no bound.
    """

    def __init__(self, max_chars: int | None = None) -> None:
        self._max_chars = max_chars
        self._chars = 0
        self._roots: dict[Hashable, Root] = {}
        self._holders: dict[str, Holder] = {}
        self._removed: deque[Holder] = deque()
        self._recency: OrderedDict[Holding, None] = OrderedDict()

    @property
    def chars(self) -> int:
        """Characters held, a text that two hold counting twice."""
        return self._chars

    @property
    def holders(self) -> Mapping[str, Holder]:
        """The holders by key, without removed ones."""
        return self._holders

    def holder(self, key: str) -> Holder:
        """Return the holder called `key`, a new one if need be."""
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = Holder(key)
        return holder

    # --- looking up ---

    def match(self, namespace: Hashable, text: str) -> Match:
        """Return how much of `text` is known in `namespace`. Changes nothing."""
        root = self._roots.get(namespace)
        if root is None:
            return Match(text, 0, Root(namespace), 0)
        node: Node = root
        offset = chars = 0
        size = len(text)
        while chars < size and node.children is not None:
            child = node.children.get(text[chars])
            if child is None:
                break
            node = child
            label = child.label
            if text.startswith(label, chars):
                offset = len(label)
                chars += offset
            else:
                offset = common_prefix(label, text, chars)
                chars += offset
                break
        return Match(text, chars, node, offset)

    def deepest(self, match: Match, among: Container[Holder]) -> tuple[int, list[Holder]]:
        """Return who holds most of the matched text.

        Args:
            match: A match of this tree.
            among: The holders that count.

        Returns:
            How many characters those hold, and who they are; 0 and nobody when none of them holds any.
        """
        node, chars, offset = match.node, match.chars, match.offset
        while node.parent is not None:
            holders = [holding.holder for holding in node.holdings() if holding.holder in among]
            if holders:
                return chars, holders
            chars -= offset
            node = node.parent
            offset = len(node.label)
        return 0, []

    # --- learning ---

    def learn(self, match: Match, holder: Holder) -> Holding | None:
        """Note that `holder` was given the matched text, all of it, and that this is its latest use.

        Makes room by evicting what was not used for longest: no more characters than it learns, plus one end.

        Args:
            match: A match of this tree that is still good.
            holder: A holder of this tree that was not removed.

        Returns:
            Where the text now ends, or None when nothing was learned: it is empty or larger than the budget.
        """
        text, node = match.text, match.node
        rest = len(text) - match.chars
        holding = node.held_by(holder) if rest == 0 else None
        if holding is None:
            if not text or (self._max_chars is not None and len(text) > self._max_chars):
                return None
            if match.offset < len(node.label) and node.parent is not None:
                node = self._split(node, node.parent, match.offset)
            if rest:
                node = self._grow(node, text[match.chars :])
            holding = self._hold(node, holder)
            if self._removed:
                self.sweep(_SWEPT_PER_LESSON)
        self._recency[holding] = None
        self._recency.move_to_end(holding)
        if self._max_chars is not None and self._chars > self._max_chars:
            self.evict(self._max_chars)
        return holding

    def confirm(self, holding: Holding) -> None:
        """Say that a lesson was true: `retract` of this text or of a continuation no longer takes it back."""
        here: Holding | None = holding
        while here is not None and not here.is_confirmed:
            here.is_confirmed = True
            here = _above(here)

    def retract(self, holding: Holding) -> None:
        """Take a lesson back: whatever of its text was neither confirmed nor is part of another text of its holder."""
        here: Holding | None = holding
        while here is not None and here.node is not None and not here.is_confirmed and not here.branches:
            above = _above(here)
            self._let_go(here)
            if above is not None and not above.branches:
                self._recency.move_to_end(above)  # its continuation was the latest use of it
            here = above

    # --- forgetting ---

    def remove_holder(self, key: str) -> None:
        """Forget a holder for good. At once nobody finds it any more; its texts go little by little."""
        holder = self._holders.pop(key, None)
        if holder is not None and holder.chars:
            self._removed.append(holder)

    def evict(self, target: int, *, limit: int | None = None) -> bool:
        """Let go of what was not used for longest, removed holders' texts before all, until `target` characters remain.

        Args:
            target: Characters that may stay.
            limit: The most ends to let go of in this call; None for no limit.

        Returns:
            Whether the target is reached.
        """
        steps = 0
        while self._chars > target and steps != limit:
            steps += 1
            if self._removed:
                self.sweep(1)
                continue
            holding, _ = self._recency.popitem(last=False)
            if not holding.branches:
                self._let_go(holding)
        return self._chars <= target

    def sweep(self, limit: int) -> None:
        """Let go of some texts of removed holders, `limit` ends at most."""
        for _ in range(limit):
            if not self._removed:
                return
            holder = self._removed[0]
            if holder.ends:
                self._let_go(holder.ends.pop())
            if not holder.ends:
                self._removed.popleft()

    # --- how ---

    def _split(self, node: Node, parent: Node, offset: int) -> Node:
        """Cut a node in two and return the upper part. The lower keeps its holdings, so whoever has one finds it."""
        upper = Node(node.label[:offset], parent)
        node.label = node.label[offset:]
        node.parent = upper
        upper.children = {node.label[0]: node}
        for holding in node.holdings():
            upper.add(Holding(upper, holding.holder, branches=1, is_confirmed=holding.is_confirmed))
        _adopt(parent, upper)
        return upper

    def _grow(self, node: Node, label: str) -> Node:
        """Give a node another child."""
        child = Node(label, node)
        if type(node) is Root and node.children is None:
            self._roots[node.namespace] = node
        _adopt(node, child)
        return child

    def _hold(self, node: Node, holder: Holder) -> Holding:
        """Make `holder` hold `node`, which it does not yet, and all above it; return its holding of `node`."""
        end = Holding(node, holder, branches=0, is_confirmed=False)
        node.add(end)
        holder.ends.add(end)
        chars = len(node.label)
        here = node.parent
        while here is not None and here.parent is not None:
            known = here.held_by(holder)
            if known is not None:
                known.branches += 1
                holder.ends.discard(known)
                self._recency.pop(known, None)
                break
            here.add(Holding(here, holder, branches=1, is_confirmed=False))
            chars += len(here.label)
            here = here.parent
        holder.chars += chars
        self._chars += chars
        return end

    def _let_go(self, end: Holding) -> None:
        """Undo one holding without branches; its parent may become an end, then the longest unused one."""
        node, holder = end.node, end.holder
        if node is None:
            return
        above = _above(end)
        end.node = None
        holder.ends.discard(end)
        self._recency.pop(end, None)
        chars = len(node.label)
        holder.chars -= chars
        self._chars -= chars
        if not node.drop(holder):
            self._cut(node)
        if above is not None:
            above.branches -= 1
            if not above.branches:
                holder.ends.add(above)
                if above not in self._recency:
                    self._recency[above] = None
                    self._recency.move_to_end(above, last=False)

    def _cut(self, node: Node) -> None:
        """Remove a node that nobody holds, hence without children."""
        parent = node.parent
        if parent is None or parent.children is None:
            return
        del parent.children[node.label[0]]
        if not parent.children:
            parent.children = None
            if type(parent) is Root:
                del self._roots[parent.namespace]


_SWEPT_PER_LESSON = 4
"""More ends than a lesson adds, so that a removed holder is gone soon where there is traffic."""


def _above(holding: Holding) -> Holding | None:
    """Return the same holder's holding of the parent node, None below a root or when it was let go."""
    node = holding.node
    if node is None or node.parent is None:
        return None
    return node.parent.held_by(holding.holder)


def _adopt(parent: Node, child: Node) -> None:
    """Put a child in its place, or in that of the one it was cut from."""
    if parent.children is None:
        parent.children = {}
    parent.children[child.label[0]] = child


def common_prefix(label: str, text: str, start: int) -> int:
    """Return how many characters `label` and `text` from `start` on have in common; the first is known to be."""
    high = min(len(label), len(text) - start)
    if text.startswith(label[:high], start):
        return high
    low = 1  # label[:low] is common, the first difference lies in label[low:high]
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(label[low:middle], start + low):
            low = middle
        else:
            high = middle
    return low
