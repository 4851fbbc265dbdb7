"""`PrefixCache`: which blocks hold which prefixes, shared by every sequence.

A trie of full blocks. A child is found by the exact tokens of its block, so that no hash has to be trusted; a block's
keys and values depend on every token before it, which is the path from the root.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from itertools import chain, islice


class Node:
    """One full block of tokens after the path that leads to it. `references` counts the sequences that hold it.

    is_preamble: it holds nothing of a conversation, and neither does anything before it.
    """

    __slots__ = ("block", "children", "is_preamble", "parent", "references", "tokens")

    def __init__(self, tokens: tuple[int, ...], parent: Node | None, block: int) -> None:
        self.tokens = tokens
        self.parent = parent
        self.block = block
        self.children: dict[tuple[int, ...], Node] = {}
        self.references = 0
        self.is_preamble = False


class PrefixCache:
    """Finds, shares and evicts full blocks of keys and values.

    Unreferenced nodes stand in one queue by the time of their release, and a path is released from its deepest node
    up. Who holds a node holds its ancestors too, so an ancestor always stands behind its descendants, and the head of
    the queue is always a leaf: the least recently used one. Eviction is O(1), and an unreferenced block is never out of
    reach behind one that is in use.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self.root = Node((), None, -1)
        self._evictable: OrderedDict[Node, None] = OrderedDict()

    @property
    def num_evictable(self) -> int:
        return len(self._evictable)

    def match(self, tokens: Callable[[int, int], tuple[int, ...]], limit: int) -> list[Node]:
        """The longest known path of full blocks within the first `limit` tokens. Takes no reference.

        `tokens(start, end)` gives a slice of the sequence.
        """
        path: list[Node] = []
        node = self.root
        size = self.block_size
        for start in range(0, limit - size + 1, size):
            child = node.children.get(tokens(start, start + size))
            if child is None:
                break
            path.append(child)
            node = child
        return path

    def insert(self, parent: Node | None, tokens: tuple[int, ...], block: int) -> Node:
        """The node for `tokens` after `parent` (None: the root), a new one that owns `block` if there was none."""
        parent = parent or self.root
        node = parent.children.get(tokens)
        if node is None:
            node = parent.children[tokens] = Node(tokens, parent, block)
            self._evictable[node] = None
        return node

    def acquire(self, node: Node) -> None:
        """Adds a reference. The caller holds one to every ancestor too."""
        if node.references == 0:
            del self._evictable[node]
        node.references += 1

    def release(self, path: list[Node]) -> None:
        """Gives back one reference to each node of a path from the root."""
        for node in reversed(path):
            node.references -= 1
            if node.references == 0:
                self._evictable[node] = None

    def evict(self) -> int:
        """Forgets the least recently used leaf that nobody holds and returns its block. KeyError if there is none."""
        node, _ = self._evictable.popitem(last=False)
        assert node.parent is not None
        del node.parent.children[node.tokens]
        return node.block

    def preambles(self, limit: int) -> list[Node]:
        """At most `limit` nodes of preambles: those in use, then the most recently used; each after its parent."""
        in_use = (node for node in self.nodes() if node.references)
        return list(islice((node for node in chain(in_use, reversed(self._evictable)) if node.is_preamble), limit))

    def nodes(self) -> list[Node]:
        """Every node but the root, ancestors first."""
        found: list[Node] = []
        stack = [self.root]
        while stack:
            node = stack.pop()
            found.extend(node.children.values())
            stack.extend(node.children.values())
        return found

    def is_evictable(self, node: Node) -> bool:
        return node in self._evictable
