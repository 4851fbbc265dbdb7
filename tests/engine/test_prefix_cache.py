"""The trie of full blocks: finding, sharing, and evicting the least recently used leaf."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fireside.engine.prefix_cache import Node, PrefixCache

SIZE = 2


def slicer(tokens: tuple[int, ...]):
    return lambda start, end: tokens[start:end]


def insert_path(cache: PrefixCache, tokens: tuple[int, ...], first_block: int) -> list[Node]:
    """Enters `tokens` block by block, as a sequence does, and holds the path."""
    path: list[Node] = []
    for index in range(len(tokens) // SIZE):
        parent = path[-1] if path else None
        node = cache.insert(parent, tokens[index * SIZE : (index + 1) * SIZE], first_block + index)
        cache.acquire(node)
        path.append(node)
    return path


def test_match_gives_the_longest_path_of_full_blocks_within_the_limit():
    cache = PrefixCache(SIZE)
    insert_path(cache, (1, 2, 3, 4, 5, 6), first_block=0)
    tokens = slicer((1, 2, 3, 4, 9, 9))
    assert [node.block for node in cache.match(tokens, 6)] == [0, 1]
    assert [node.block for node in cache.match(tokens, 4)] == [0, 1]
    assert [node.block for node in cache.match(tokens, 3)] == [0], "a block reaching past the limit is not used"
    assert cache.match(tokens, 1) == []
    assert cache.match(slicer((2, 1, 3, 4)), 4) == []


def test_the_same_tokens_after_another_prefix_are_another_block():
    cache = PrefixCache(SIZE)
    insert_path(cache, (1, 2, 7, 7), first_block=0)
    insert_path(cache, (3, 4, 7, 7), first_block=2)
    assert [node.block for node in cache.match(slicer((3, 4, 7, 7)), 4)] == [2, 3]


def test_insert_returns_the_node_that_is_there():
    cache = PrefixCache(SIZE)
    first = cache.insert(None, (1, 2), 0)
    assert cache.insert(None, (1, 2), 5) is first
    assert first.block == 0


def test_eviction_takes_the_deepest_of_the_path_released_first():
    cache = PrefixCache(SIZE)
    old = insert_path(cache, (1, 2, 3, 4), first_block=0)
    new = insert_path(cache, (5, 6, 7, 8), first_block=2)
    cache.release(old)
    cache.release(new)
    assert [cache.evict() for _ in range(4)] == [1, 0, 3, 2]
    assert cache.nodes() == []


def test_use_makes_a_block_recent():
    cache = PrefixCache(SIZE)
    first = insert_path(cache, (1, 2), first_block=0)
    second = insert_path(cache, (3, 4), first_block=1)
    cache.release(first)
    cache.release(second)
    for node in cache.match(slicer((1, 2)), 2):
        cache.acquire(node)
    cache.release(first)
    assert [cache.evict(), cache.evict()] == [1, 0]


def test_a_block_in_use_and_its_ancestors_are_never_evicted():
    cache = PrefixCache(SIZE)
    shared = insert_path(cache, (1, 2), first_block=0)
    longer = insert_path(cache, (1, 2, 3, 4), first_block=0)
    cache.release(shared)
    assert cache.num_evictable == 0
    cache.release(longer)
    assert cache.num_evictable == 2
    assert cache.evict() == 1
    assert cache.evict() == 0
    with pytest.raises(KeyError):
        cache.evict()


class EvictionOrder(RuleBasedStateMachine):
    """Against a plain model: a table of paths with reference counts and times of last release."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = PrefixCache(SIZE)
        self.held: list[list[Node]] = []
        self.references: dict[tuple[int, ...], int] = {}
        self.released: dict[tuple[int, ...], int] = {}  # path -> time
        self.block_of: dict[tuple[int, ...], int] = {}
        self.next_block = 0
        self.clock = 0

    @rule(tokens=st.lists(st.integers(0, 1), min_size=SIZE, max_size=4 * SIZE))
    def hold(self, tokens: list[int]) -> None:
        path: list[Node] = []
        for end in range(SIZE, len(tokens) + 1, SIZE):
            key = tuple(tokens[:end])
            if key not in self.block_of:
                self.block_of[key] = self.next_block
                self.references[key] = 0
                self.next_block += 1
            node = self.cache.insert(path[-1] if path else None, key[-SIZE:], self.block_of[key])
            assert node.block == self.block_of[key]
            self.cache.acquire(node)
            self.references[key] += 1
            path.append(node)
        self.held.append(path)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        path = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        tokens = tuple(token for node in path for token in node.tokens)
        self.cache.release(path)
        for end in range(len(tokens), 0, -SIZE):
            self.references[tokens[:end]] -= 1
            self.released[tokens[:end]] = self.clock
            self.clock += 1

    @rule()
    def evict(self) -> None:
        leaves = [
            path
            for path, count in self.references.items()
            if count == 0 and not any(other[: len(path)] == path and other != path for other in self.references)
        ]
        if not leaves:
            assert self.cache.num_evictable == 0
            return
        oldest = min(leaves, key=self.released.__getitem__)
        assert self.cache.evict() == self.block_of.pop(oldest)
        del self.references[oldest]

    @invariant()
    def counts_agree(self) -> None:
        assert {node.block: node.references for node in self.cache.nodes()} == {
            self.block_of[path]: count for path, count in self.references.items()
        }
        assert self.cache.num_evictable == sum(count == 0 for count in self.references.values())


TestEvictionOrder = EvictionOrder.TestCase
TestEvictionOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
