"""Packed batches: every token once, nothing across documents, and the same continuation from any position."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fireside.data.batch import IGNORED, Batch
from fireside.data.config import PackingConfig
from fireside.data.documents import DataError
from fireside.data.order import order_key, shuffled
from fireside.data.packing import ConversationBatches, PackedBatches, PretrainingBatches
from fireside.data.row_packing import pack_rows
from fireside.data.segments import segment_conversations, segment_documents
from fireside.data.shards import Flag, SourceTokens


def documents(name: str, lengths: list[int], *, first: int = 0, weight: float | None = None) -> SourceTokens:
    """Documents whose token ids are all different, and count up."""
    ends = np.cumsum([0, *lengths])
    ids = [np.arange(first + a, first + b, dtype=np.uint32) for a, b in pairwise(ends)]
    return SourceTokens.from_documents(name, [(i, None) for i in ids], weight=weight)


def conversations(name: str, shapes: list[list[tuple[str, int]]], *, first: int = 0) -> SourceTokens:
    """Of messages (role and tokens); the assistant's are targets but for their first token, and a system message at the
    beginning is the preamble."""
    made = []
    for shape in shapes:
        flags: list[int] = []
        for number, (role, tokens) in enumerate(shape):
            part = [Flag.TARGET * (role == "assistant") for _ in range(tokens)]
            part[0] = (Flag.MESSAGE_START | Flag.TURN_START * (role == "user")) if number else 0
            if not number and role == "system":
                part = [Flag.PREAMBLE] * tokens
            flags += part
        made.append((np.arange(first, first + len(flags), dtype=np.uint16), np.array(flags, np.uint8)))
        first += len(flags)
    return SourceTokens.from_documents(name, made)


def config(length: int, **changes: Any) -> PackingConfig:
    return PackingConfig(sequence_length=length, **({"window_rows": 4, "seed": 1} | changes))


def pairs(batch: Batch) -> list[tuple[int, int]]:
    """What is learned: input and label."""
    wanted = batch.labels != IGNORED
    return list(zip(batch.input_ids[wanted].tolist(), batch.labels[wanted].tolist(), strict=True))


def equal(one: Batch, two: Batch) -> bool:
    fields = ("input_ids", "labels", "document_ids", "positions")
    return all(torch.equal(getattr(one, field), getattr(two, field)) for field in fields)


lengths = st.lists(st.integers(2, 60), min_size=1, max_size=30)
row_lengths = st.integers(2, 24)
tolerances = st.sampled_from([0.0, 0.1, 1.0])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 16), max_size=60), st.one_of(st.none(), st.integers(0, 16)))
def test_rows_hold_everything_once(sizes: list[int], largest_gap: int | None) -> None:
    rows = pack_rows(sizes, 16, largest_gap=largest_gap)
    held: dict[int, list[tuple[int, int]]] = {}
    for row in rows:
        assert row
        assert sum(piece.length for piece in row) <= 16
        for piece in row:
            held.setdefault(piece.segment, []).append((piece.offset, piece.length))
    for segment, size in enumerate(sizes):
        at = 0
        for offset, length in sorted(held.get(segment, [])):
            assert offset == at
            at += length
        assert at == size
    if largest_gap is None:
        assert all(len(parts) == 1 for parts in held.values())
    else:  # only the last row may have a gap beyond
        assert all(16 - sum(piece.length for piece in row) <= largest_gap for row in rows[:-1])


def test_the_fullest_sum_is_found_where_the_longest_is_not_the_best() -> None:
    rows = pack_rows([6, 5, 5, 4, 3, 3, 2, 2], 10, largest_gap=None)
    assert [sorted(piece.length for piece in row) for row in rows] == [[4, 6], [5, 5], [2, 2, 3, 3]]
    sizes = [51, 27, 26, 23] * 20  # best fit puts 27 beside 51, and then nothing fits
    assert len(pack_rows(sizes, 100, largest_gap=None)) == 27  # it needs 30


def test_rows_of_chats_are_nearly_full() -> None:
    """Lengths such as those of school sums with their answers: a row has room for five or so."""
    sizes = (np.random.default_rng(0).gamma(7, 27, 4000).astype(int) + 20).clip(40, 1024).tolist()
    rows = pack_rows(sizes, 1024, largest_gap=None)
    assert 1 - sum(sizes) / (len(rows) * 1024) < 0.004


def test_best_fit_needs_no_cut() -> None:
    rows = pack_rows([7, 6, 5, 5, 4, 3], 10, largest_gap=0)
    assert [[piece.length for piece in row] for row in rows] == [[7, 3], [6, 4], [5, 5]]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**64 - 1))
def test_an_order_is_a_permutation(count: int, key: int) -> None:
    order = shuffled(np.arange(count), count, key)
    assert sorted(order.tolist()) == list(range(count))
    assert shuffled(np.array([count // 2]), count, key)[0] == order[count // 2]


def test_orders_look_random() -> None:
    """Neighbours do not stay neighbours, and keys give different orders."""
    orders = [shuffled(np.arange(1000), 1000, order_key("seed", n)) for n in range(2)]
    assert (orders[0] == orders[1]).mean() < 0.02
    assert (np.abs(np.diff(orders[0])) == 1).mean() < 0.02
    assert 250 < np.abs(np.diff(orders[0])).mean() < 420  # a third of 1000 where it is random


@settings(max_examples=100, deadline=None)
@given(lengths, row_lengths, tolerances)
def test_an_epoch_learns_every_token_once(sizes: list[int], length: int, tolerance: float) -> None:
    packing = config(length, padding_tolerance=tolerance)
    batches = PretrainingBatches([documents("a", sizes)], packing, rows=2)
    ends = np.cumsum([0, *sizes])
    expected = {(i, i + 1) for a, b in pairwise(ends) for i in range(a, b - 1)}
    assert Counter(pair for batch in batches.one_pass() for pair in pairs(batch)) == Counter(expected)


@settings(max_examples=100, deadline=None)
@given(lengths, row_lengths, tolerances)
def test_batches_keep_documents_apart(sizes: list[int], length: int, tolerance: float) -> None:
    batches = PretrainingBatches([documents("a", sizes)], config(length, padding_tolerance=tolerance), rows=3)
    for _ in range(5):
        batch = batches.next_batch()
        assert batch.input_ids.shape == batch.labels.shape == batch.document_ids.shape == (3, length)
        assert {tensor.dtype for tensor in (batch.input_ids, batch.labels, batch.positions)} == {torch.int64}
        padding = batch.document_ids < 0
        assert (batch.labels[padding] == IGNORED).all()
        assert (batch.labels[~padding] == batch.input_ids[~padding] + 1).all()  # ids count up within a document
        for row in range(3):
            for document in range(int(batch.document_ids[row].max()) + 1):
                own = batch.document_ids[row] == document
                assert own.any()
                assert batch.positions[row][own].tolist() == list(range(int(own.sum())))


@settings(max_examples=40, deadline=None)
@given(lengths, lengths, row_lengths, st.integers(0, 30), st.integers(1, 5), st.booleans())
def test_any_position_restores(
    first: list[int], second: list[int], length: int, before: int, rows: int, weighted: bool
) -> None:
    weights = (2.0, 1.0) if weighted else (None, None)
    sources = [documents("a", first, weight=weights[0]), documents("b", second, first=9000, weight=weights[1])]
    batches = PretrainingBatches(sources, config(length), rows=rows)
    for _ in range(before):
        batches.next_batch()
    state = batches.state()
    assert all(isinstance(value, int) and value < 1 << 63 for value in state.values())
    expected = [batches.next_batch() for _ in range(6)]
    other = PretrainingBatches(sources, config(length), rows=rows)
    for _ in range(3):
        other.next_batch()
    other.restore(state)
    assert other.state() == state
    assert all(equal(batch, other.next_batch()) for batch in expected)


def test_a_position_of_something_else_is_refused() -> None:
    state = PretrainingBatches([documents("a", [9, 5])], config(8), rows=1).state()
    others: list[PackedBatches] = [
        PretrainingBatches([documents("a", [5, 9])], config(8), rows=1),
        PretrainingBatches([documents("b", [9, 5])], config(8), rows=1),
        PretrainingBatches([documents("a", [9, 5], weight=1)], config(8), rows=1),
        PretrainingBatches([documents("a", [9, 5])], config(8, seed=2), rows=1),
    ]
    for other in others:
        with pytest.raises(DataError, match="other data or another packing"):
            other.restore(state)
    PretrainingBatches([documents("a", [9, 5])], config(8), rows=4).restore(state)


def test_sources_are_mixed_by_weight() -> None:
    small, large = documents("a", [20] * 10, weight=3), documents("b", [20] * 500, first=50_000, weight=1)
    batches = PretrainingBatches([small, large], config(64, window_rows=8), rows=8)
    batch_list = [batches.next_batch() for _ in range(20)]
    tokens = Counter(int(label >= 50_000) for batch in batch_list for _, label in pairs(batch))
    assert abs(tokens[0] / (tokens[0] + tokens[1]) - 0.75) < 0.02
    for batch in batch_list[:5]:  # and at every moment, not only over all
        inputs = [label for _, label in pairs(batch)]
        assert 0.6 < sum(label < 50_000 for label in inputs) / len(inputs) < 0.9


def test_sources_without_a_weight_divide_what_is_left_by_size() -> None:
    sources = [
        documents("a", [20] * 10, weight=0.5),
        documents("b", [20] * 300, first=50_000),
        documents("c", [20] * 100, first=90_000),
    ]
    batches = PretrainingBatches(sources, config(64, window_rows=8), rows=8)
    batch_list = [batches.next_batch() for _ in range(20)]
    firsts = np.array([label for batch in batch_list for _, label in pairs(batch)])
    found = [(firsts < 50_000).mean(), ((firsts >= 50_000) & (firsts < 90_000)).mean(), (firsts >= 90_000).mean()]
    assert found == pytest.approx([0.5, 0.375, 0.125], abs=0.02)


def test_the_mix_is_kept_over_windows() -> None:
    """One row a window, and one document a row: only what earlier windows took can say whose turn it is."""
    sources = [documents("a", [21] * 40, weight=3), documents("b", [21] * 40, first=50_000, weight=1)]
    batches = PretrainingBatches(sources, config(20, window_rows=1), rows=1)
    taken = [int(batches.next_batch().input_ids[0, 0]) >= 50_000 for _ in range(40)]
    assert sum(taken) == 10


def test_without_weights_every_source_lasts_an_epoch() -> None:
    sources = [documents("a", [11] * 30), documents("b", [11] * 90, first=5000)]
    batches = PretrainingBatches(sources, config(10, window_rows=12), rows=12)
    seen = Counter(pair for _ in range(10) for pair in pairs(batches.next_batch()))
    assert set(seen.values()) == {1}
    assert len(seen) == 1200
    with pytest.raises(DataError, match="give every source a weight"):
        PretrainingBatches([documents("a", [5], weight=1), documents("b", [5])], config(8), rows=1)


def test_epochs_differ_in_order() -> None:
    batches = PretrainingBatches([documents("a", [11] * 64)], config(10, window_rows=64), rows=64)
    one, two = batches.next_batch(), batches.next_batch()
    assert sorted(pairs(one)) == sorted(pairs(two))
    assert not torch.equal(one.input_ids, two.input_ids)


def test_what_packing_costs() -> None:
    rng = np.random.default_rng(0)
    sizes = (rng.pareto(1.2, 3000) * 60 + 20).astype(int).clip(2, 20_000).tolist()
    report = PretrainingBatches(
        [documents("a", sizes)], config(512, window_rows=256, padding_tolerance=0.01), rows=8
    ).report()
    assert report.dropped == 0
    assert report.padding < 0.01
    assert report.cuts < 0.1
    assert report.tokens == sum(sizes)


def test_much_data_is_reported_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (np.random.default_rng(1).integers(10, 90, 3000)).tolist()
    batches = PretrainingBatches(
        [documents("a", sizes), documents("b", sizes[:500])], config(64, window_rows=16), rows=8
    )
    whole = batches.report()
    monkeypatch.setattr("fireside.data.packing._REPORTED", 20)
    part = batches.report()
    assert part.rows == pytest.approx(whole.rows, rel=0.01)
    assert part.cuts == pytest.approx(whole.cuts, rel=0.2)


TALK = [("user", 4), ("assistant", 5), ("user", 3), ("assistant", 6)]


def test_conversations_that_fit_stay_whole() -> None:
    batches = ConversationBatches([conversations("c", [TALK] * 6)], config(20), rows=2)
    for _ in range(4):
        batch = batches.next_batch()
        assert ((batch.labels != IGNORED).sum(dim=1) == 9).all()  # 4 and 5 targets, once a row
        assert ((batch.document_ids >= 0).sum(dim=1) == 17).all()


def test_long_conversations_are_cut_where_a_user_speaks() -> None:
    source = conversations("c", [TALK * 3])
    segments = segment_conversations(source, 20)
    starts = segments.starts.tolist()
    assert starts == [0, 18, 36]
    assert all(source.flags(0)[start] & Flag.TURN_START for start in starts[1:])
    assert segments.dropped == 0


def test_pieces_fill_a_row_to_the_last_position() -> None:
    assert segment_conversations(conversations("c", [TALK * 3]), 17).lengths.tolist() == [17, 17, 17]
    assert segment_conversations(conversations("c", [TALK * 3]), 16).lengths.max() < 16


def test_a_turn_longer_than_a_row_is_cut_at_a_message() -> None:
    shape = [("user", 6), ("assistant", 6), ("tool", 6), ("assistant", 6)]
    segments = segment_conversations(conversations("c", [shape]), 13)
    assert list(zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True)) == [(0, 11), (12, 11)]


def test_a_message_longer_than_a_row_loses_its_end() -> None:
    shape = [("user", 4), ("assistant", 30), ("user", 3), ("assistant", 5)]
    segments = segment_conversations(conversations("c", [shape]), 10)
    found = list(zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True))
    assert found == [(0, 10), (34, 7)]  # the question stays with what fits of its answer
    assert segments.dropped == segments.dropped_targets == 4 + 30 - 11


def test_later_pieces_begin_with_the_system_message() -> None:
    shape = [("system", 5), *TALK, *TALK]
    source = conversations("c", [shape])
    segments = segment_conversations(source, 23)
    columns = (segments.starts, segments.lengths, segments.preambles)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == [(0, 22, 0), (23, 22, 5)]
    assert (segments.dropped, segments.bare) == (0, 0)
    (batch,) = ConversationBatches([source], config(23), rows=2).one_pass()
    later = batch.input_ids.tolist().index([*range(5), *range(23, 40), 0])
    assert (batch.labels[later][:9] == IGNORED).all()  # the system message and the question, and what opens an answer
    assert batch.labels[later][9:13].tolist() == [28, 29, 30, 31]
    assert batch.positions[later][:22].tolist() == list(range(22))
    report = ConversationBatches([source], config(23), rows=2).report()
    assert report.repeated == 5 / 46


def test_a_system_message_without_room_beside_a_turn_is_left_out_and_counted() -> None:
    segments = segment_conversations(conversations("c", [[("system", 14), *TALK]]), 20)
    assert (segments.starts.tolist(), segments.preambles.tolist()) == ([14], [0])
    assert (segments.bare, segments.dropped, segments.dropped_targets) == (1, 14, 0)


def test_no_answer_is_learned_without_its_question() -> None:
    shape = [("user", 3), ("assistant", 4), ("user", 20), ("assistant", 5), ("user", 3), ("assistant", 4)]
    segments = segment_conversations(conversations("c", [shape]), 10)
    assert list(zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True)) == [(0, 6), (32, 6)]
    assert (segments.dropped, segments.dropped_targets) == (25, 4)


shapes = st.lists(
    st.lists(
        st.tuples(st.sampled_from(["system", "user", "assistant", "tool"]), st.integers(2, 30)), min_size=1, max_size=8
    ),
    min_size=1,
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(shapes, st.integers(4, 100))
def test_no_row_is_without_a_target(talks: list[list[tuple[str, int]]], length: int) -> None:
    source = conversations("c", talks)
    assume(len(segment_conversations(source, length)))
    batches = ConversationBatches([source], config(length), rows=2)
    flags = np.concatenate([source.flags(n) for n in range(len(source.lengths))])
    for batch in [*(batches.next_batch() for _ in range(4)), *batches.one_pass()]:
        assert (batch.labels != IGNORED).any(dim=1).all()
        for _, label in pairs(batch):
            assert flags[label] & Flag.TARGET
    learned = Counter(label for batch in batches.one_pass() for _, label in pairs(batch))
    assert set(learned.values()) == {1}
    report = batches.report()
    targets = sum(int((source.flags(n)[1:] & Flag.TARGET > 0).sum()) for n in range(len(source.lengths)))
    assert len(learned) == targets - report.dropped_targets
    if length >= int(source.lengths.max()):
        assert report.dropped_targets == 0


def test_conversations_can_be_pretrained_on() -> None:
    batches = PretrainingBatches([conversations("c", [TALK])], config(17), rows=1)
    assert batches.next_batch().num_targets == 17
    with pytest.raises(DataError, match="plain documents"):
        ConversationBatches([documents("a", [9])], config(8), rows=1)


def test_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        PretrainingBatches([documents("a", [])], config(8), rows=1)
    with pytest.raises(DataError, match="nothing to train on"):
        ConversationBatches([conversations("c", [[("user", 5)]])], config(8), rows=1)


def test_long_documents_are_cut_no_more_than_they_must() -> None:
    segments = segment_documents(documents("a", [2, 9, 10, 26]), 8)
    assert list(zip(segments.documents.tolist(), segments.starts.tolist(), segments.lengths.tolist(), strict=True)) == [
        (0, 0, 1),
        (1, 0, 8),
        (2, 0, 8),
        (2, 8, 1),
        (3, 0, 8),
        (3, 8, 8),
        (3, 16, 8),
        (3, 24, 1),
    ]


def test_of_little_data_every_pass_has_every_document_once() -> None:
    """Whatever the window would hold: else a run of a few steps would never meet some."""
    source = conversations("a", [[("user", 3), ("assistant", 2 + number % 7)] for number in range(40)], first=1)
    batches = ConversationBatches([source], config(64, window_rows=512), rows=1)
    rows = batches.report().rows
    for _ in range(3):
        ids = torch.cat([batches.next_batch().input_ids.flatten() for _ in range(rows)])
        firsts = [int(source.ids(number)[0]) for number in range(40)]
        assert all(int((ids == first).sum()) == 1 for first in firsts)
