"""Ids and texts, against transformers' own tokenizers over the same vocabulary."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from llguidance import LLTokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models
from transformers import PreTrainedTokenizerFast

from fireside.errors import ModelError
from fireside.gguf import GGUFFile
from fireside.tokenizers.tokenizer import SLICE, Tokenizer, TooManyTokens
from tests.tokenizers.vocabularies import SPECIAL, TRICKY, Pair, sentencepiece, texts, write


@pytest.mark.parametrize("text", TRICKY)
def test_ids_of_tricky_text_equal_the_reference(tokenizer: Tokenizer, pair: Pair, text: str) -> None:
    assert tokenizer.encode(text, add_bos=False) == pair.reference_ids(text, special=False)
    assert tokenizer.encode(text, allow_special=True, add_bos=False) == pair.reference_ids(text, special=True)


@settings(max_examples=150, deadline=None)
@given(text=texts)
def test_ids_equal_the_reference(tokenizer: Tokenizer, pair: Pair, text: str) -> None:
    assert tokenizer.encode(text, add_bos=False) == pair.reference_ids(text, special=False)
    assert tokenizer.encode(text, allow_special=True, add_bos=False) == pair.reference_ids(text, special=True)


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_text_is_never_special_and_comes_back_whole(tokenizer: Tokenizer, kind: str, text: str) -> None:
    ids = tokenizer.encode(text, add_bos=False)
    assert tokenizer.special_token_ids.isdisjoint(ids)
    if kind == "qwen2":  # which normalises to NFC
        return
    if kind == "sentencepiece":  # which takes its own space at the start and the text's for one
        text = text.replace("▁", " ").removeprefix(" ")
    assert tokenizer.decode(ids) == text


@settings(max_examples=100, deadline=None)
@given(text=texts)
def test_decoding_equals_the_reference(tokenizer: Tokenizer, pair: Pair, text: str) -> None:
    ids = pair.reference_ids(text, special=True)
    for skip in (True, False):
        assert tokenizer.decode(ids, skip_special_tokens=skip) == pair.reference.decode(ids, skip_special_tokens=skip)


def test_sentencepiece_merges_the_best_scored_pair(make_tokenizer: Callable[[str], Tokenizer], make_pair) -> None:
    """Against the algorithm itself, written out: join the neighbours whose union scores best, leftmost first."""
    metadata = GGUFFile(make_pair("sentencepiece").path).metadata
    tokens, scores = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.scores"]
    ids = {token: i for i, token in enumerate(tokens)}

    def encode(text: str) -> list[int]:
        symbols = list("▁" + text.replace(" ", "▁"))
        while True:
            unions = [a + b for a, b in pairwise(symbols)]
            known = [(-scores[ids[union]], at) for at, union in enumerate(unions) if union in ids]
            if not known:
                break
            at = min(known)[1]
            symbols[at : at + 2] = [unions[at]]
        return [
            i
            for symbol in symbols
            for i in ([ids[symbol]] if symbol in ids else [ids[f"<0x{byte:02X}>"] for byte in symbol.encode()])
        ]

    tokenizer = make_tokenizer("sentencepiece")
    for text in ("The quick brown fox", "they've seen   1234 dogs", "naïve façade привет 你好 🤗", "range(x)"):
        assert tokenizer.encode(text, add_bos=False) == encode(text)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepiece_space_prefix(tmp_path: Path, prefix: bool) -> None:
    tokenizer = Tokenizer.from_gguf(GGUFFile(sentencepiece(tmp_path, add_space_prefix=prefix).path))
    first = tokenizer.token_bytes(tokenizer.encode("the", add_bos=False)[0])
    assert first.startswith(b" ") == prefix
    assert tokenizer.decode(tokenizer.encode("the fox")) == "the fox"
    assert tokenizer.decode(tokenizer.encode(" the")) == ("the" if prefix else " the")  # as LlamaTokenizer has it


def test_merges_that_spell_a_control_token_make_plain_text(tmp_path: Path) -> None:
    tokens = ["<s>", "</s>", "<", "s", ">", "<s", "a"]
    path = write(
        tmp_path / "m.gguf", "gpt2", tokens, [3, 3, 1, 1, 1, 1, 1], pre="gpt-2", merges=["< s", "<s >"], bos=0, eos=1
    )
    tokenizer = Tokenizer.from_gguf(GGUFFile(path))
    tokenizer._backend.pre_tokenizer = None  # so that nothing cuts `<s>` before the merges see it
    ids = tokenizer.encode("a<s>a")
    assert 0 not in ids
    assert tokenizer.decode(ids) == "a<s>a"
    assert tokenizer.encode("a<s>a", allow_special=True) == [6, 0, 6]


def test_turn_tokens_are_special_however_they_are_typed(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "gpt2", ["<|im_end|>", "<", "a"], [4, 1, 1], pre="gpt-2")
    assert Tokenizer.from_gguf(GGUFFile(path)).special_token_ids == {0}


def test_attributes(make_tokenizer: Callable[[str], Tokenizer], make_pair: Callable[[str], Pair]) -> None:
    tokenizer = make_tokenizer("smollm")
    assert tokenizer.vocab_size == make_pair("smollm").reference.get_vocab_size()
    assert tokenizer.bos_token_id == 1 and tokenizer.eos_token_id == 2
    assert tokenizer.special_token_ids == {0, 1, 2}
    assert not tokenizer.add_bos and make_tokenizer("llama-bpe").add_bos and make_tokenizer("sentencepiece").add_bos


def test_bos(make_tokenizer: Callable[[str], Tokenizer]) -> None:
    tokenizer = make_tokenizer("sentencepiece")
    plain = tokenizer.encode("hello", add_bos=False)
    assert tokenizer.encode("hello") == [1, *plain] == tokenizer.encode("<s>hello", allow_special=True)[:1] + plain
    assert tokenizer.encode("<s>hello", allow_special=True).count(1) == 1
    assert make_tokenizer("smollm").encode("hi", add_bos=True)[0] == 1


def test_a_limit_refuses_what_is_far_over_it_and_changes_no_ids(tokenizer: Tokenizer) -> None:
    text = "the weather in the city " * (3 * SLICE // 24)
    ids = tokenizer.encode(text)
    assert tokenizer.encode(text, limit=len(ids)) == ids
    with pytest.raises(TooManyTokens) as raised:
        tokenizer.encode(text, limit=len(ids) // 4)
    assert len(ids) // 2 < raised.value.counted < len(ids)


def test_lone_surrogates_become_replacement_characters(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b 🤗")) == "a\ufffdb 🤗"


def test_token_bytes_add_up(tokenizer: Tokenizer, kind: str) -> None:
    text = "naïve 🤗 漢字\n"
    spelled = b"".join(map(tokenizer.token_bytes, tokenizer.encode(text, add_bos=False))).decode()
    assert spelled == (" " + text if kind == "sentencepiece" else text)
    assert (
        tokenizer.token_bytes(tokenizer.vocab_size) == tokenizer.token_bytes(10**9) == tokenizer.token_bytes(-1) == b""
    )


def test_to_json_is_the_same_tokenizer(tokenizer: Tokenizer, pair: Pair, tmp_path: Path) -> None:
    """Other libraries see the true flags and none of our aliases; reading it back gives the same ids."""
    text = tokenizer.to_json()
    backend = Backend.from_str(text)
    added = {i: (token.content, token.special) for i, token in backend.get_added_tokens_decoder().items()}
    theirs = pair.reference.get_added_tokens_decoder()
    assert added == {i: (token.content, token.special) for i, token in theirs.items()}
    assert backend.get_vocab_size() == tokenizer.vocab_size
    path = tmp_path / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    again = Tokenizer.from_file(path)
    for sample in TRICKY:
        for special in (True, False):
            assert again.encode(sample, allow_special=special, add_bos=False) == tokenizer.encode(
                sample, allow_special=special, add_bos=False
            )


def test_llguidance_reads_to_json(tokenizer: Tokenizer) -> None:
    """The grammar engine must see the bytes that we see."""
    theirs = LLTokenizer(tokenizer.to_json())
    assert theirs.vocab_size == tokenizer.vocab_size
    for token_id in set(range(tokenizer.vocab_size)) - tokenizer.special_token_ids:
        if tokenizer.token_bytes(token_id) != b"\xff":  # llguidance's own mark of special tokens; never in UTF-8
            assert theirs.decode_bytes([token_id]) == tokenizer.token_bytes(token_id)


def test_from_file_reads_what_transformers_saves(tmp_path: Path, make_pair: Callable[[str], Pair]) -> None:
    backend = Backend.from_str(make_pair("smollm").reference.to_str())
    theirs = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", extra_special_tokens=["<think>"]
    )
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json", config)
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert {ours.added_tokens[token] for token in SPECIAL} == {True}
    assert ours.added_tokens["<think>"] and not ours.added_tokens["<tool_call>"]
    for text in TRICKY:
        assert ours.encode(text, allow_special=True) == theirs.encode(text)


def test_from_file_finds_the_habit_of_a_bos(tmp_path: Path, make_pair: Callable[[str], Pair]) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = Backend.from_str(make_pair("llama-bpe").reference.to_str())
    backend.post_processor = TemplateProcessing(single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)])
    backend.enable_truncation(4)  # as some files come, left over from training
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json", {"bos_token": {"content": "<|im_start|>"}})
    assert tokenizer.add_bos
    assert len(tokenizer.encode("one two three four five six")) > 6
    assert not Tokenizer.from_file(
        tmp_path / "tokenizer.json", {"bos_token": "<|im_start|>", "add_bos_token": False}
    ).add_bos


def test_gaps_between_ids_are_kept_apart_from_added_tokens(tmp_path: Path) -> None:
    backend = Backend(models.BPE(vocab={"a": 0, "b": 3, "c": 7}, merges=[]))
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["c"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert tokenizer.vocab_size == 8
    assert tokenizer.encode("abcb", allow_special=True) == [0, 3, 7, 3]
    assert tokenizer.encode("abcb") == [0, 3, 3]  # a token of one character has no other spelling
    assert tokenizer.decode([0, 3, 7]) == "ab"


def test_unusable_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.from_file(path)
    path.write_text('{"added_tokens": [], "model": {"type": "Nonsense"}}')
    with pytest.raises(ModelError, match=r"tokenizer\.json"):
        Tokenizer.from_file(path)
    wordpiece = Backend(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    wordpiece.decoder = decoders.WordPiece()
    wordpiece.save(str(path))
    with pytest.raises(ModelError, match=r"tokenizer\.json.*WordPiece.*supported"):
        Tokenizer.from_file(path)


@pytest.mark.parametrize(
    ("model", "pre", "message"),
    [
        ("bert", "default", "'bert'; supported: gpt2, llama"),
        ("gpt2", "klingon", "'klingon' is not supported; supported: .*smollm"),
        ("llama", None, "2 tokens but 0 scores"),
    ],
)
def test_unsupported_gguf_says_what_is_supported(tmp_path: Path, model: str, pre: str | None, message: str) -> None:
    path = write(tmp_path / "model.gguf", model, ["a", "b"], [1, 1], pre=pre, merges=["a b"])
    with pytest.raises(ModelError, match=message) as caught:
        Tokenizer.from_gguf(GGUFFile(path))
    assert "model.gguf" in str(caught.value)


def test_odd_vocabularies(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "gpt2", ["a", "", "b", ""], [1, 1, 1, 3], pre="gpt-2")
    tokenizer = Tokenizer.from_gguf(GGUFFile(path))
    assert tokenizer.vocab_size == 4 and tokenizer.encode("ab") == [0, 2]
    path = write(tmp_path / "model.gguf", "gpt2", ["a", "b", "a"], [1, 1, 1], pre="gpt-2")
    with pytest.raises(ModelError, match="'a' is there twice"):
        Tokenizer.from_gguf(GGUFFile(path))


def test_merges_outside_the_vocabulary_are_an_error_not_a_crash(tmp_path: Path) -> None:
    path = write(tmp_path / "model.gguf", "gpt2", ["a", "b"], [1, 1], pre="gpt-2", merges=["a z"])
    with pytest.raises(ModelError, match=r"model\.gguf"):
        Tokenizer.from_gguf(GGUFFile(path))


def test_no_heavy_imports() -> None:
    code = (
        "import sys, fireside.tokenizers.chat_template, fireside.tokenizers.detokenizer;"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
