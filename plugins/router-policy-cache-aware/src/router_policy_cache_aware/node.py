"""The parts of the prefix tree: nodes, who holds them, and each one's share. `tree.py` keeps them in agreement."""

from __future__ import annotations

from collections.abc import Collection, Hashable


class Holder:
    """Somebody who holds texts. A holder that was removed and comes back is a new one.

    Attributes:
        key: Its name.
        chars: Characters it holds.
        ends: Holdings where its texts end.
    """

    __slots__ = ("key", "chars", "ends")

    def __init__(self, key: str) -> None:
        self.key = key
        self.chars = 0
        self.ends: set[Holding] = set()


class Holding:
    """One holder's share in one node.

    Attributes:
        node: The node, None once it was let go.
        holder: Whose it is.
        branches: How many of the node's children the same holder holds.
        is_confirmed: Whether it is known to be true; see `PrefixTree.confirm`.
    """

    __slots__ = ("node", "holder", "branches", "is_confirmed")

    def __init__(self, node: Node, holder: Holder, *, branches: int, is_confirmed: bool) -> None:
        self.node: Node | None = node
        self.holder = holder
        self.branches = branches
        self.is_confirmed = is_confirmed


class Node:
    """A piece of text that is held as a whole, who holds it, and what may follow it.

    Most nodes have one holder and no children, so neither costs a dict before it is needed.
    """

    __slots__ = ("label", "parent", "children", "_sole", "_many")

    def __init__(self, label: str, parent: Node | None) -> None:
        self.label = label
        self.parent = parent
        self.children: dict[str, Node] | None = None
        self._sole: Holding | None = None
        self._many: dict[Holder, Holding] | None = None

    def holdings(self) -> Collection[Holding]:
        """Return all holdings of this node."""
        if self._many is not None:
            return self._many.values()
        return () if self._sole is None else (self._sole,)

    def held_by(self, holder: Holder) -> Holding | None:
        """Return the holding of `holder`, None when it has none."""
        if self._many is not None:
            return self._many.get(holder)
        sole = self._sole
        return sole if sole is not None and sole.holder is holder else None

    def add(self, holding: Holding) -> None:
        """Add the holding of one who had none."""
        if self._many is not None:
            self._many[holding.holder] = holding
        elif self._sole is None:
            self._sole = holding
        else:
            self._many = {self._sole.holder: self._sole, holding.holder: holding}
            self._sole = None

    def drop(self, holder: Holder) -> bool:
        """Drop a holding there is; return whether others are left."""
        if self._many is None:
            self._sole = None
            return False
        del self._many[holder]
        if len(self._many) == 1:
            (self._sole,) = self._many.values()
            self._many = None
        return True


class Root(Node):
    """Where the texts of one namespace begin; nobody holds it."""

    __slots__ = ("namespace",)

    def __init__(self, namespace: Hashable) -> None:
        super().__init__("", None)
        self.namespace = namespace
