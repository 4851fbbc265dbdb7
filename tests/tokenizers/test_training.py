"""Tokenizers that we train, against transformers' reading of the same files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count, repeat
from pathlib import Path

import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from transformers import AutoTokenizer

from fireside.tokenizers.training import PIECE, TrainingError, _pieces, train_tokenizer, write_files
from fireside.tokenizers.training_config import TokenizerConfig
from tests.tokenizers.small import small_folder, small_parts
from tests.tokenizers.vocabularies import CORPUS, SPECIAL, TRICKY, texts


@pytest.fixture(scope="module")
def reference() -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(small_folder())


@pytest.mark.parametrize("text", TRICKY)
def test_ids_equal_transformers(reference: AutoTokenizer, text: str) -> None:
    tokenizer, _ = small_parts()
    assert tokenizer.encode(text, allow_special=True) == reference.encode(text, add_special_tokens=False)


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_text_is_never_special_and_comes_back(text: str) -> None:
    tokenizer, _ = small_parts()
    ids = tokenizer.encode(text)
    assert tokenizer.special_token_ids.isdisjoint(ids)
    assert tokenizer.decode(ids) == text
    assert tokenizer.special_token_ids == frozenset(range(len(SPECIAL)))


def test_names_of_tokens(reference: AutoTokenizer) -> None:
    tokenizer, _ = small_parts()
    assert tokenizer.vocab_size == len(reference) == 500
    assert (reference.bos_token, reference.eos_token) == ("<|endoftext|>", "<|im_end|>")
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (reference.bos_token_id, reference.eos_token_id)
    assert not tokenizer.add_bos


def test_digits_are_cut_in_threes() -> None:
    numbers = ["12345678 " * 50, *CORPUS]
    found = {}
    for kind in ("gpt-4", "gpt-2"):
        files = train_tokenizer(numbers, TokenizerConfig(vocab_size=340, pre_tokenizer=kind))
        vocabulary = json.loads(files["tokenizer.json"])["model"]["vocab"]
        found[kind] = max(len(token) for token in vocabulary if token.isascii() and token.isdigit())
    assert found["gpt-4"] == 3
    assert found["gpt-2"] > 3


def test_the_same_text_gives_the_same_files() -> None:
    config = TokenizerConfig(vocab_size=400, special_tokens=("<|tool|>",))
    first, second = (train_tokenizer(CORPUS * 3, config) for _ in range(2))
    assert first == second
    assert '"<|tool|>"' in first["tokenizer.json"]


def test_reading_stops_at_the_limit() -> None:
    read = []

    def endless() -> Iterator[str]:
        for number, text in zip(count(), repeat("\n".join(CORPUS)), strict=False):
            assert number < 100
            yield text

    train_tokenizer(endless(), TokenizerConfig(vocab_size=320, max_bytes=20_000), on_progress=read.append)
    assert 20_000 <= read[-1] < 25_000


@pytest.mark.parametrize(("sample", "said"), [([], "no text"), ([""], "no text"), (["ab ab"], "lower vocab_size")])
def test_too_little_text_is_named(sample: list[str], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        train_tokenizer(sample, TokenizerConfig(vocab_size=1000))


def test_long_texts_are_read_in_pieces() -> None:
    text = "a line of text\n" * (PIECE // 8) + "x" * (2 * PIECE)
    pieces = list(_pieces(text))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= PIECE
    assert all(piece.endswith("\n") for piece in pieces[:2])


def test_lone_surrogates_do_no_harm() -> None:
    train_tokenizer([*CORPUS * 3, "\ud800 text"], TokenizerConfig(vocab_size=330))


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written"):
        write_files({"tokenizer.json": "{}"}, tmp_path / "file")


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="vocabulary"):
        TokenizerConfig(vocabulary=5)
