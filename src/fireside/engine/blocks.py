"""`BlockManager`: who holds which block of keys and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from fireside.engine.prefix_cache import Node, PrefixCache
from fireside.engine.sequence import Sequence


class BlockManager:
    """Gives blocks to sequences and takes them back.

    Every block is in exactly one place: free, in the prefix cache (shared by reference count, evictable when nobody
    holds it), or private to one running sequence (partly filled, or not yet committed).
    """

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.cache = PrefixCache(block_size)
        self._free = list(range(num_blocks - 1, -1, -1))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def match(self, sequence: Sequence) -> list[Node]:
        """The cached blocks that this sequence can start from."""
        return self.cache.match(sequence.tokens, sequence.num_cacheable)

    def fits(self, sequence: Sequence, path: list[Node], reserve: int) -> bool:
        """Whether all known tokens of the sequence find room besides `path`, leaving `reserve` blocks for others."""
        needed = -(-sequence.num_tokens // self.block_size) - len(path)
        idle = sum(node.references == 0 for node in path)
        return needed + reserve <= len(self._free) + self.cache.num_evictable - idle

    def attach(self, sequence: Sequence, path: list[Node]) -> None:
        """Starts the sequence from cached blocks."""
        for node in path:
            self._hold(sequence, node)
        sequence.block_table.extend(node.block for node in path)
        sequence.num_computed = len(path) * self.block_size

    def extend(self, sequence: Sequence, num_tokens: int) -> bool:
        """Makes room for the first `num_tokens` tokens. False, and nothing changed, if blocks do not suffice."""
        missing = -(-num_tokens // self.block_size) - len(sequence.block_table)
        if missing <= 0:
            return True
        if missing > len(self._free) + self.cache.num_evictable:
            return False
        for _ in range(missing):
            sequence.block_table.append(self._free.pop() if self._free else self.cache.evict())
        return True

    def commit(self, sequence: Sequence) -> None:
        """Enters every block that is full by now into the cache, for others to share.

        If another sequence entered the same tokens meanwhile, its block is taken over and ours is free again.
        """
        size = self.block_size
        nodes = sequence.nodes
        for index in range(len(nodes), sequence.num_computed // size):
            block = sequence.block_table[index]
            parent = nodes[-1] if nodes else None
            node = self.cache.insert(parent, sequence.tokens(index * size, (index + 1) * size), block)
            self._hold(sequence, node)
            if node.block != block:
                sequence.block_table[index] = node.block
                self._free.append(block)

    def release(self, sequence: Sequence) -> None:
        """Takes everything back. Committed blocks stay in the cache until they are evicted."""
        self._free.extend(sequence.block_table[len(sequence.nodes) :])
        self.cache.release(sequence.nodes)
        sequence.nodes = []
        del sequence.block_table[:]
        sequence.num_computed = 0

    def free_blocks(self, limit: int) -> list[int]:
        """At most `limit` blocks that hold nothing. They stay free."""
        return self._free[:limit]

    def adopt(self, blocks: list[int], tokens: list[tuple[int, ...]], parents: list[int]) -> list[Node]:
        """Enters free blocks that hold a preamble's keys and values by now, the most recently used first.

        `parents`: for each the index of its parent, which is smaller, or -1. No path may be in the cache already.
        """
        nodes: list[Node] = []
        for block, own, parent in zip(blocks, tokens, parents, strict=True):
            node = self.cache.insert(None if parent < 0 else nodes[parent], own, block)
            node.is_preamble = True
            self.cache.acquire(node)
            nodes.append(node)
        self.cache.release(nodes)  # from the last, as a path is: each goes in the queue before its parent
        taken = set(blocks)
        self._free = [block for block in self._free if block not in taken]
        return nodes

    def _hold(self, sequence: Sequence, node: Node) -> None:
        """Appends the node, which is in the cache, to those of the sequence."""
        self.cache.acquire(node)
        sequence.nodes.append(node)
        if len(sequence.nodes) * self.block_size <= sequence.request.preamble_tokens:
            node.is_preamble = True

    def check(self, sequences: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every block is in exactly one place and every reference is accounted for.

        `sequences` are those that hold blocks: none when idle.
        """
        holders = Counter(node for sequence in sequences for node in sequence.nodes)
        cached = self.cache.nodes()
        private = [block for sequence in sequences for block in sequence.block_table[len(sequence.nodes) :]]
        places = Counter([*self._free, *private, *(node.block for node in cached)])
        wrong = {block: places[block] for block in range(self.num_blocks) if places[block] != 1}
        if wrong or len(places) != self.num_blocks:
            raise AssertionError(f"blocks not in exactly one place (block: places): {wrong}")
        for node in cached:
            if node.references != holders[node]:
                raise AssertionError(f"block {node.block}: {node.references} references, {holders[node]} holders")
            if self.cache.is_evictable(node) != (node.references == 0):
                raise AssertionError(f"block {node.block} has {node.references} references but is in the wrong queue")
        for sequence in sequences:
            if any(node.block != block for node, block in zip(sequence.nodes, sequence.block_table, strict=False)):
                raise AssertionError(f"{sequence}: block table and cached path differ")
