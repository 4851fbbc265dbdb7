"""Cuts into words, against the pipelines in transformers' sources."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from fireside.errors import ModelError
from fireside.tokenizers.pre_tokenizers import PRE_TOKENIZATIONS, pre_tokenization
from tests.tokenizers.vocabularies import BYTE_LEVEL, TRICKY, reference_cut, texts

SHARED = sorted({*BYTE_LEVEL, *(set(GGUF_PRE_TOKENIZER_SPLITS) & set(PRE_TOKENIZATIONS))})


@pytest.mark.parametrize("name", SHARED)
def test_cuts_of_tricky_text(name: str) -> None:
    ours, theirs = pre_tokenization(name).build(), reference_cut(name)
    for text in TRICKY:
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)


@pytest.mark.parametrize("name", BYTE_LEVEL)
@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_cuts(name: str, text: str) -> None:
    assert pre_tokenization(name).build().pre_tokenize_str(text) == reference_cut(name).pre_tokenize_str(text)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("smollm", "in 2024!", ["in", "Ġ", "2", "0", "2", "4", "!"]),
        ("gpt-2", "in 2024!", ["in", "Ġ2024", "!"]),
        ("llama-bpe", "in 20245!", ["in", "Ġ", "202", "45", "!"]),
        ("qwen2", "in 20245!", ["in", "Ġ", "2", "0", "2", "4", "5", "!"]),
        ("tekken", "helloWorld", ["hello", "World"]),
        ("default", "a+b 12345", ["a", "+", "b", "Ġ", "123", "45"]),
        ("deepseek-llm", "go ab, 12\n\n漢", ["go", "Ġab", ",", "Ġ", "12", "Ċ", "Ċ", "æ¼¢"]),
        ("deepseek-coder", "x 12", ["x", "Ġ", "1", "2"]),
    ],
)
def test_cuts_that_tell_the_families_apart(name: str, text: str, words: list[str]) -> None:
    assert [word for word, _ in pre_tokenization(name).build().pre_tokenize_str(text)] == words


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError, match=r"'nope' is not supported; supported: .*llama-bpe.*smollm"):
        pre_tokenization("nope")
