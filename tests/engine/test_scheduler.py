"""Who gets how many tokens in a step."""

from __future__ import annotations

from itertools import count

from fireside.engine.blocks import BlockManager
from fireside.engine.scheduler import Scheduler
from fireside.engine.sequence import Sequence, SequenceState
from tests.engine.driving import request

SIZE = 4
_arrivals = count()


def make(num_blocks: int = 100, max_batch_tokens: int = 8, max_running: int = 8) -> Scheduler:
    return Scheduler(BlockManager(num_blocks, SIZE), max_batch_tokens=max_batch_tokens, max_running=max_running)


def add(scheduler: Scheduler, prompt: range, *, priority: int = 0, **sampling: object) -> Sequence:
    arrival = next(_arrivals)
    one = Sequence(request(f"r{arrival}", prompt, priority=priority, **sampling), arrival, max_context=1000)
    scheduler.add(one)
    return one


def step(scheduler: Scheduler) -> dict[Sequence, int]:
    """Schedules, computes, and draws a token for each that caught up, as the engine does. Tokens given to each."""
    chunks = scheduler.schedule()
    for chunk in chunks:
        assert chunk.start == chunk.sequence.num_computed
        assert len(chunk.sequence.block_table) * SIZE >= chunk.end
    scheduler.commit(chunks)
    for sequence, _, end in chunks:
        if end == sequence.num_tokens:
            sequence.decoding = True
            sequence.append(7, None)
    scheduler.blocks.check(scheduler.running)
    return {chunk.sequence: chunk.end - chunk.start for chunk in chunks}


def test_a_long_prompt_is_cut_into_chunks_and_stalls_nobody():
    scheduler = make(max_batch_tokens=8)
    short = add(scheduler, range(3))
    assert step(scheduler) == {short: 3}
    long = add(scheduler, range(100, 120))
    assert step(scheduler) == {short: 1, long: 7}
    assert step(scheduler) == {short: 1, long: 7}
    assert step(scheduler) == {short: 1, long: 6}
    assert step(scheduler) == {short: 1, long: 1}


def test_decoding_comes_before_a_prompt_of_higher_priority():
    scheduler = make(max_batch_tokens=8)
    short = add(scheduler, range(2))
    step(scheduler)
    long = add(scheduler, range(200, 230), priority=-2)
    assert step(scheduler) == {short: 1, long: 7}


def test_a_newcomer_of_higher_priority_need_not_wait_for_a_long_prompt():
    scheduler = make(max_batch_tokens=8)
    long = add(scheduler, range(100, 130), priority=1)
    assert step(scheduler) == {long: 8}
    same, urgent = add(scheduler, range(200, 202), priority=1), add(scheduler, range(2))
    assert step(scheduler) == {urgent: 2, long: 6}
    assert step(scheduler) == {urgent: 1, long: 7}
    assert step(scheduler) == {urgent: 1, long: 7}
    assert step(scheduler) == {urgent: 1, long: 2, same: 2}


def test_forced_tokens_go_in_one_chunk_where_there_is_room():
    scheduler = make(max_batch_tokens=6)
    first, second = add(scheduler, range(2)), add(scheduler, range(10, 12))
    step(scheduler)
    first.output_ids += [1, 1, 1, 1, 1, 1]  # as a grammar would
    assert step(scheduler) == {first: 5, second: 1}
    assert step(scheduler) == {first: 2, second: 1}


def test_first_come_first_served_within_a_priority():
    scheduler = make(max_batch_tokens=4, max_running=4)
    late = add(scheduler, range(4), priority=1)
    first, second = add(scheduler, range(10, 14)), add(scheduler, range(20, 24))
    assert scheduler.waiting == [first, second, late]
    assert step(scheduler) == {first: 4}
    scheduler.remove(first)
    assert step(scheduler) == {second: 4}
    scheduler.remove(second)
    assert step(scheduler) == {late: 4}


def test_no_more_run_than_allowed():
    scheduler = make(max_running=2)
    one, two, three = (add(scheduler, range(10 * i, 10 * i + 2)) for i in range(3))
    assert step(scheduler) == {one: 2, two: 2}
    scheduler.remove(one)
    assert step(scheduler) == {two: 1, three: 2}


def test_the_youngest_is_preempted_when_blocks_run_out_and_comes_back():
    scheduler = make(num_blocks=5, max_batch_tokens=16)
    old, young = add(scheduler, range(8)), add(scheduler, range(100, 107))
    assert step(scheduler) == {old: 8, young: 7}
    assert step(scheduler) == {old: 1, young: 1}  # the fifth block goes to the old one, the young one fills its own
    assert step(scheduler) == {old: 1}, "no block is left for the young one"
    assert young.state is SequenceState.WAITING and len(young.block_table) == 0 and not young.decoding
    assert scheduler.num_preemptions == 1
    scheduler.remove(old)
    assert step(scheduler) == {young: 1}, "it starts from its own blocks, which are still in the cache"


def test_the_lowest_priority_is_preempted_before_the_youngest():
    scheduler = make(num_blocks=5, max_batch_tokens=16)
    low = add(scheduler, range(8), priority=5)
    high = add(scheduler, range(100, 107))
    step(scheduler)
    step(scheduler)
    step(scheduler)
    assert low.state is SequenceState.WAITING
    assert high.state is SequenceState.RUNNING


def test_a_higher_priority_takes_the_place_of_a_lower_one():
    scheduler = make(max_running=1)
    low = add(scheduler, range(4), priority=1)
    step(scheduler)
    high = add(scheduler, range(10, 14))
    assert step(scheduler) == {high: 4}
    assert low.state is SequenceState.WAITING


def test_nobody_makes_place_for_one_that_waits_for_a_prefix():
    scheduler = make(max_batch_tokens=64, max_running=2)
    low = add(scheduler, range(100, 102), priority=1)
    step(scheduler)
    first, second = add(scheduler, range(20)), add(scheduler, range(20))
    scheduler.max_batch_tokens = 9
    assert step(scheduler) == {low: 1, first: 8}
    second.awaits = (first, 16)
    assert step(scheduler) == {low: 1, first: 8}
    assert step(scheduler) == {first: 4, second: 4}, "now it is worth it"
    assert low.state is SequenceState.WAITING


def test_the_same_priority_takes_nobodys_place():
    scheduler = make(max_running=1)
    first = add(scheduler, range(4))
    step(scheduler)
    add(scheduler, range(10, 14))
    assert step(scheduler) == {first: 1}
    assert scheduler.num_preemptions == 0


def test_nobody_overtakes_the_first_in_the_queue_for_lack_of_blocks():
    scheduler = make(num_blocks=6, max_batch_tokens=64)
    running = add(scheduler, range(8))
    step(scheduler)
    big, small = add(scheduler, range(100, 118)), add(scheduler, range(200, 202))
    assert step(scheduler) == {running: 1}
    scheduler.remove(running)
    assert step(scheduler)[big] == 18
    assert small.state is SequenceState.WAITING


def test_a_prefix_that_another_is_computing_is_waited_for():
    scheduler = make(max_batch_tokens=64)
    first, second = add(scheduler, range(10)), add(scheduler, range(14))
    other = add(scheduler, range(100, 103))
    assert step(scheduler) == {first: 10, other: 3}, "the one behind it need not wait too"
    assert step(scheduler) == {first: 1, other: 1, second: 6}
    assert second.cached_tokens == 8


def test_only_the_shared_part_is_waited_for():
    scheduler = make(max_batch_tokens=64)
    first, second = add(scheduler, range(20)), add(scheduler, [*range(6), 99, 98])
    assert step(scheduler) == {first: 20}
    assert second.awaits == (first, 4)
    assert step(scheduler) == {first: 1, second: 4}
    assert second.awaits is None


def test_the_same_block_after_another_start_is_not_waited_for():
    scheduler = make(max_batch_tokens=64)
    step_back = add(scheduler, range(4))
    step(scheduler)
    other = add(scheduler, [50, 51, 52, 53, 4, 5, 6, 7, 8])
    second = add(scheduler, range(9))  # its first block is cached, its second looks like the other's
    assert step(scheduler) == {step_back: 1, other: 9, second: 5}


def test_when_the_one_waited_for_is_gone_its_work_is_taken_over():
    scheduler = make(max_batch_tokens=24)
    running = add(scheduler, range(100, 102))
    step(scheduler)
    first, second = add(scheduler, range(20)), add(scheduler, range(20))
    scheduler.schedule()
    assert second.awaits == (first, 16)
    scheduler.remove(first)  # before anything of it was computed
    assert step(scheduler) == {running: 1, second: 20}


def test_nobody_waits_for_one_behind_it():
    scheduler = make(max_batch_tokens=16)
    low = add(scheduler, range(20), priority=1)
    assert step(scheduler) == {low: 16}
    scheduler.max_batch_tokens = 32
    high = add(scheduler, range(30))
    # The low one is computing tokens 16 to 19, but might be preempted before it gets to more.
    assert step(scheduler) == {low: 4, high: 14}
    assert high.cached_tokens == 16
    assert list(high.block_table)[:5] == list(low.block_table)[:5], "one copy is kept of what both computed"


def test_two_prompts_in_one_step_with_the_same_start_are_computed_once():
    scheduler = make(max_batch_tokens=64)
    sequences = [add(scheduler, range(9)) for _ in range(4)]
    assert step(scheduler) == {sequences[0]: 9}
    assert step(scheduler) == {sequences[0]: 1, **dict.fromkeys(sequences[1:], 1)}


def test_a_request_that_fills_all_blocks_runs_alone_to_its_end():
    scheduler = make(num_blocks=4, max_batch_tokens=5)
    others = [add(scheduler, range(100 * i, 100 * i + 6), priority=1) for i in range(1, 4)]
    for _ in range(3):
        step(scheduler)
    big = add(scheduler, range(13))
    for _ in range(8):
        step(scheduler)
        if big.num_tokens > 15:
            break
    assert big.num_tokens == 16
    scheduler.remove(big)
    for _ in range(3):
        step(scheduler)
    assert any(one.output_ids for one in others)
