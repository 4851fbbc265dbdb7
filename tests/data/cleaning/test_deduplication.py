"""Duplicates, against exact Jaccard similarity and plain Python sets."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.data.cleaning.deduplication import Deduplicator, Seen, signature, text_hash
from fireside.data.cleaning.outcome import Reason
from fireside.data.cleaning.words import CHUNK, run_hashes, word_hashes
from fireside.data.config import DeduplicationConfig
from tests.data.files import prose

CONFIG = DeduplicationConfig(memory_mb=4)


def reasons(texts: list[str], config: DeduplicationConfig = CONFIG) -> list[Reason | None]:
    deduplicator = Deduplicator(config)
    return [deduplicator.check(text_hash(text), signature(text, config)) for text in texts]


def test_exact_duplicates_whatever_case_and_blanks() -> None:
    text = prose(1)
    assert reasons([text, text.upper().replace(" ", "\n"), prose(2)]) == [None, Reason.EXACT_DUPLICATE, None]
    off = DeduplicationConfig(exact=False, near=False)
    assert reasons([text, text], off) == [None, None]


def test_near_duplicates() -> None:
    words = prose(1, 400).split()
    changed = " ".join([*words[:200], "another", *words[201:]])
    half = " ".join([*words[:200], *prose(2, 200).split()])
    assert reasons([" ".join(words), changed, half]) == [None, Reason.NEAR_DUPLICATE, None]


def test_the_chance_to_be_found_follows_the_similarity() -> None:
    """Of the signature's bands, each of r hashes, a share of about s**r is equal at similarity s."""
    config = DeduplicationConfig(bands=64, rows=2)
    words = prose(1, 2000).split()
    for share in (0.9, 0.5):
        other = " ".join([*words[: int(2000 * share)], *prose(2, 2000).split()[: int(2000 * (1 - share))]])
        one, two = (set(run_hashes(word_hashes(text), 5).tolist()) for text in (" ".join(words), other))
        similarity = len(one & two) / len(one | two)
        equal = (signature(" ".join(words), config) == signature(other, config)).mean()
        assert abs(equal - similarity**2) < 0.2


def test_texts_too_short_for_a_run_are_no_near_duplicates() -> None:
    assert reasons(["one two", "two one", "one two"]) == [None, None, Reason.EXACT_DUPLICATE]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=200))
def test_a_roomy_table_is_a_set(values: list[int]) -> None:
    seen, expected = Seen(1, 1_000_000), set[int]()
    for value in values:
        value = max(value, 1)  # 0 and 1 are one
        own = np.array([value], np.uint64)
        assert seen.find(own) == (value in expected)
        seen.add(own)
        expected.add(value)


def test_a_full_table_forgets_and_does_not_grow() -> None:
    seen = Seen(2, 2 * 8 * 8 * 4)  # 32 hashes a set
    numbers = np.arange(1, 201, dtype=np.uint64)
    for number in numbers:
        seen.add(np.array([number, number], np.uint64))
        assert seen.find(np.array([number, 999], np.uint64))
    found = sum(seen.find(np.array([number, 999], np.uint64)) for number in numbers)
    assert 16 <= found <= 32


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["alpha", "Béta", "γάμμα", "don't", "x", "42"]), max_size=30), st.sampled_from(" \n,.-")
)
def test_equal_words_have_equal_hashes(words: list[str], blank: str) -> None:
    hashes = word_hashes(f"{blank} ".join(words)).tolist()
    assert len(hashes) == len(words)
    assert len(set(hashes)) == len({word.lower() for word in words})
    assert hashes == [int(word_hashes(word)[0]) for word in words]


def test_scripts_without_blanks_have_a_word_per_character() -> None:
    assert len(word_hashes("自由です。")) == 4
    assert len(word_hashes("नमस्ते दुनिया")) == 2


def test_words_across_chunks() -> None:
    words = ["word", "longer", "of"] * (CHUNK // 10)
    hashes = word_hashes(" ".join(words))
    assert len(hashes) == len(words)
    assert len(set(hashes.tolist())) == 3
    assert len(word_hashes("x" * (2 * CHUNK + 5))) >= 2  # one word longer than a chunk is no crash
