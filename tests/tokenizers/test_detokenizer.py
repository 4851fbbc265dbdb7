"""Streams of ids, cut anywhere, give the text of the whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.tokenizers.detokenizer import IncrementalDetokenizer
from fireside.tokenizers.tokenizer import Tokenizer
from tests.tokenizers.vocabularies import Pair, chunks, texts

cuts = st.lists(st.integers(0, 4), max_size=40)


def stream(tokenizer: Tokenizer, pieces: object, **options: bool) -> list[str]:
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    return [*map(detokenizer.push, pieces), detokenizer.finish()]  # type: ignore[call-overload]


@settings(max_examples=100, deadline=None)
@given(text=texts, cuts=cuts, skip=st.booleans())
def test_every_cut_gives_the_whole(tokenizer: Tokenizer, pair: Pair, text: str, cuts: list[int], skip: bool) -> None:
    ids = pair.reference_ids(text, special=True)
    pieces = stream(tokenizer, chunks(ids, cuts), skip_special_tokens=skip)
    assert "".join(pieces) == pair.reference.decode(ids, skip_special_tokens=skip)
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@settings(max_examples=100, deadline=None)
@given(data=st.data(), cuts=cuts, skip=st.booleans())
def test_every_cut_of_random_ids(tokenizer: Tokenizer, data: st.DataObject, cuts: list[int], skip: bool) -> None:
    """Random ids are mostly broken UTF-8; ids past the vocabulary have no text."""
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=40))
    pieces = stream(tokenizer, chunks(ids, cuts), skip_special_tokens=skip)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)


def test_never_half_a_character(tokenizer: Tokenizer) -> None:
    text = "🦩🧿 龘靐 ŵẽ ᚠ"  # not in the corpus
    ids = tokenizer.encode(text, add_bos=False)
    assert len(ids) > len(text)  # so characters are cut across tokens
    detokenizer = IncrementalDetokenizer(tokenizer)
    so_far = ""
    for token_id in ids:
        so_far += detokenizer.push([token_id])
        assert text.startswith(so_far)
    assert so_far + detokenizer.finish() == text


@pytest.mark.parametrize("kind", ["smollm", "sentencepiece"])
def test_a_character_that_never_ends(make_tokenizer: Callable[[str], Tokenizer], kind: str) -> None:
    tokenizer = make_tokenizer(kind)
    ids = tokenizer.encode("ok 🦩", add_bos=False)[:-1]
    detokenizer = IncrementalDetokenizer(tokenizer)
    assert detokenizer.push(ids) == "ok "
    assert detokenizer.finish() == "\ufffd"


def test_sentencepiece_space_at_the_start(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("sentencepiece")
    ids = tokenizer.encode("the fox", add_bos=False)
    assert "".join(stream(tokenizer, [[i] for i in ids])) == "the fox"
    assert "".join(stream(tokenizer, [[i] for i in ids], continuing=True)) == " the fox"
