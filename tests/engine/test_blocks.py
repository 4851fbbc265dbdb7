"""Who holds which block: taking, sharing, giving back, and noticing when the books are wrong."""

from __future__ import annotations

import pytest

from fireside.engine.blocks import BlockManager
from fireside.engine.sequence import Sequence
from tests.engine.driving import request

SIZE = 4


def sequence(*prompt: int, **sampling: object) -> Sequence:
    return Sequence(request("r", prompt, **sampling), arrival=0, max_context=1000)


def computed(blocks: BlockManager, one: Sequence) -> Sequence:
    """Starts a sequence from the cache and has its whole prompt computed."""
    blocks.attach(one, blocks.match(one))
    assert blocks.extend(one, one.num_tokens)
    one.num_computed = one.num_tokens
    blocks.commit(one)
    return one


def test_extend_takes_only_what_is_missing():
    blocks = BlockManager(4, SIZE)
    one = sequence(*range(6))
    assert blocks.extend(one, 4) and len(one.block_table) == 1
    assert blocks.extend(one, 5) and len(one.block_table) == 2
    assert blocks.extend(one, 8) and len(one.block_table) == 2
    assert blocks.num_free == 2


def test_extend_beyond_all_blocks_takes_nothing():
    blocks = BlockManager(2, SIZE)
    one = sequence(*range(12))
    assert not blocks.extend(one, 12)
    assert blocks.num_free == 2 and len(one.block_table) == 0


def test_full_blocks_are_shared_and_at_least_one_token_is_computed_again():
    blocks = BlockManager(8, SIZE)
    first = computed(blocks, sequence(*range(10)))
    longer = sequence(*range(10))
    blocks.attach(longer, blocks.match(longer))
    assert longer.block_table == first.block_table[:2] and longer.num_computed == 8
    exact = sequence(*range(8))
    blocks.attach(exact, blocks.match(exact))
    assert exact.num_computed == 4, "the logits of the last token are needed, so its block is not taken from the cache"
    blocks.check([first, longer, exact])


def test_prompt_logprobs_take_nothing_from_the_cache():
    blocks = BlockManager(8, SIZE)
    computed(blocks, sequence(*range(10)))
    assert blocks.match(sequence(*range(10), prompt_logprobs=0)) == []


@pytest.mark.parametrize(("draft_computed", "known"), [(False, 0), (True, 5)])
def test_with_a_block_goes_what_the_draft_model_had_in_it(draft_computed: bool, known: int):
    blocks = BlockManager(8, SIZE)
    first, second = sequence(*range(5)), sequence(*range(5))
    for one in (first, second):
        blocks.attach(one, [])
        blocks.extend(one, 5)
    first.num_computed = second.num_computed = 4
    blocks.commit(first)
    first.nodes[0].draft_computed = draft_computed
    second.num_draft_computed = 5
    blocks.commit(second)  # its own block is free again, with the draft model's keys in it
    assert second.num_draft_computed == known


def test_two_that_computed_the_same_block_keep_one():
    blocks = BlockManager(8, SIZE)
    first, second = sequence(*range(5)), sequence(*range(5))
    for one in (first, second):
        assert blocks.extend(one, 5)
        one.num_computed = 5
    assert blocks.num_free == 4
    blocks.commit(first)
    blocks.commit(second)
    assert second.block_table[0] == first.block_table[0]
    assert blocks.num_free == 5
    blocks.check([first, second])


def test_release_keeps_full_blocks_until_they_are_needed():
    blocks = BlockManager(3, SIZE)
    first = computed(blocks, sequence(*range(10)))
    blocks.release(first)
    assert blocks.num_free == 1 and blocks.cache.num_evictable == 2
    other = sequence(*range(100, 112))
    assert blocks.extend(other, 12), "cached blocks give way"
    assert blocks.cache.num_evictable == 0
    blocks.check([other])


@pytest.mark.parametrize(("num_others", "fits"), [(2, True), (3, False)])
def test_fits_does_not_count_the_cached_path_as_room(num_others: int, fits: bool):
    blocks = BlockManager(6, SIZE)
    blocks.release(computed(blocks, sequence(*range(8))))  # 2 cached, 4 free
    longer = sequence(*range(16))  # needs 2 more beside the cached ones
    assert blocks.fits(longer, blocks.match(longer), reserve=num_others) is fits


def test_check_finds_a_lost_block():
    blocks = BlockManager(4, SIZE)
    one = computed(blocks, sequence(*range(6)))
    blocks.check([one])
    one.block_table.pop()
    with pytest.raises(AssertionError, match="exactly one place"):
        blocks.check([one])


def test_check_finds_a_lost_reference():
    blocks = BlockManager(4, SIZE)
    one = computed(blocks, sequence(*range(6)))
    one.nodes[0].references += 1
    with pytest.raises(AssertionError, match="2 references, 1 holders"):
        blocks.check([one])
