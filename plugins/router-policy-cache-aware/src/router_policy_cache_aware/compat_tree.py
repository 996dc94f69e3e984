"""The radix tree as the older router kept it, for `compat` alone. For what the policy does itself see `tree.py`.

Kept as they were: whoever created a node answers for it, characters are counted and bounded for each tenant by itself,
eviction and removal visit the whole tree in one go.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from router_policy_cache_aware.tree import common_prefix


class OriginalTree:
    """Texts of one model by tenant.

    Attributes:
        tenant_chars: Characters of the nodes each tenant is attached to, in the order tenants came.
    """

    def __init__(self) -> None:
        self.tenant_chars: dict[str, int] = {}
        self._root = _Node("", None)
        self._epoch = 0

    def insert(self, text: str, tenant: str) -> None:
        """Attach `tenant` to every node of `text`; only the last one gets the present time."""
        self._epoch += 1
        self.tenant_chars.setdefault(tenant, 0)
        node, position = self._root, 0
        while position < len(text):
            child = node.children.get(text[position])
            if child is None:
                child = node.children[text[position]] = _Node(text[position:], node)
                child.answers_for = tenant
            else:
                shared = common_prefix(child.label, text, position)
                if shared < len(child.label):
                    child = child.split(shared)
            if tenant not in child.tenants:
                child.tenants[tenant] = 0
                self.tenant_chars[tenant] += len(child.label)
            position += len(child.label)
            node = child
        if node is not self._root:
            node.tenants[tenant] = self._epoch

    def prefix_match(self, text: str) -> tuple[int, str | None]:
        """Return how many characters are known and the one tenant that answers for them."""
        self._epoch += 1
        node, position = self._root, 0
        while position < len(text):
            child = node.children.get(text[position])
            if child is None:
                break
            shared = common_prefix(child.label, text, position)
            position += shared
            node = child
            if shared < len(child.label):
                break
        if node is self._root:
            return 0, next(iter(self.tenant_chars), None)
        if node.answers_for not in node.tenants:
            node.answers_for = next(iter(node.tenants))
        if self._epoch % 8 == 0:
            node.tenants[node.answers_for] = self._epoch
        return position, node.answers_for

    def smallest_tenant(self) -> str | None:
        """Return the tenant with the fewest characters, the first of equals, None when there is none."""
        return min(self.tenant_chars, key=self.tenant_chars.__getitem__, default=None)

    def remove_tenant(self, tenant: str) -> None:
        """Detach a tenant from every node."""
        for node in list(self._nodes()):
            if node.tenants.pop(tenant, None) is not None:
                node.prune()
        self.tenant_chars.pop(tenant, None)

    def evict_tenants_by_size(self, max_chars: int) -> None:
        """Detach each tenant that exceeds `max_chars` from its least recently used leaves until it does not."""
        nodes = list(self._nodes())
        heap = [
            (epoch, order, tenant, node)
            for order, node in enumerate(nodes)
            for tenant, epoch in node.tenants.items()
            if node.is_leaf_of(tenant)
        ]
        heapq.heapify(heap)
        order = len(nodes)
        while heap:
            _, _, tenant, node = heapq.heappop(heap)
            if self.tenant_chars[tenant] <= max_chars:
                continue
            self.tenant_chars[tenant] -= len(node.label)
            del node.tenants[tenant]
            parent = node.parent
            node.prune()
            if parent is not None and tenant in parent.tenants and parent.is_leaf_of(tenant):
                order += 1
                heapq.heappush(heap, (parent.tenants[tenant], order, tenant, parent))

    def _nodes(self) -> Iterator[_Node]:
        """Yield every node but the root, parents first."""
        stack = list(self._root.children.values())
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children.values())


class _Node:
    __slots__ = ("label", "parent", "children", "tenants", "answers_for")

    def __init__(self, label: str, parent: _Node | None) -> None:
        self.label = label
        self.parent = parent
        self.children: dict[str, _Node] = {}
        self.tenants: dict[str, int] = {}
        self.answers_for = ""

    def split(self, offset: int) -> _Node:
        """Cut the node in two and return the upper part, with the same tenants."""
        upper = _Node(self.label[:offset], self.parent)
        upper.tenants = dict(self.tenants)
        upper.answers_for = self.answers_for
        if self.parent is not None:
            self.parent.children[upper.label[0]] = upper
        self.label = self.label[offset:]
        self.parent = upper
        upper.children[self.label[0]] = self
        return upper

    def prune(self) -> None:
        """Drop the node and its ancestors as long as they have neither tenants nor children."""
        node = self
        while node.parent is not None and not node.tenants and not node.children:
            parent = node.parent
            if parent.children.get(node.label[0]) is node:
                del parent.children[node.label[0]]
            node = parent

    def is_leaf_of(self, tenant: str) -> bool:
        """Say whether no child has the tenant."""
        return not any(tenant in child.tenants for child in self.children.values())
