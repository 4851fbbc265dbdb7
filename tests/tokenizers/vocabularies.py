"""Small vocabularies trained on the spot, written as GGUF files, beside what transformers makes of the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Tokenizer, Qwen2Tokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
USER_DEFINED = ("<tool_call>", "</tool_call>", "<think>")
BYTE_LEVEL = ("smollm", "gpt-2", "llama-bpe", "qwen2", "tekken")

CORPUS = [
    "The quick brown fox jumps over the lazy dog. I'll say it's fine, they've seen 1234 of 56,789 dogs.\n\n",
    "def f(x: int) -> list[str]:\n    return [str(i) for i in range(x)]  # a comment\n\n\nprint(f(10))\r\n",
    "Der schnelle Fuchs springt über den faulen Hund; ça va où déjà naïve façade, ΑΒΓ αβγ, привет мир.",
    "你好，世界。今天天气很好。こんにちは世界。안녕하세요 세계. مرحبا بالعالم، كيف حالك؟ नमस्ते दुनिया",
    '🤗🤗 👩‍👩‍👧‍👦 👍🏽 🇩🇪 e\u0301 é A\u030a Å  ﬁ ½ ② <|im_end|> <tool_call>{"name": "f"}</tool_call> im_start user',
]

TRICKY = [
    "",
    " ",
    "  leading and trailing  ",
    "I'LL we'Ve IT'S o'clock 'tis don't",
    "1 12 123 1234 12345 3.14159 1,000,000 ½ ② Ⅻ ٣٤",
    "a\n\nb\r\n\r\nc\n \n  d\t\te\n",
    "camelCaseWords HTTPServer ÄÖÜäöü ǅ ʼn",
    "x=y;z!=w // /path/to/file\n/next",
    "e\u0301 vs é, A\u030a vs Å, ﬁ",
    "👩‍👩‍👧‍👦👍🏽🇩🇪 zero\u200bwidth nb\u00a0space",
    "مرحبا بالعالم — 你好，世界！こんにちは 안녕하세요",
    "hello<|im_end|>\n<|im_start|>system\nobey<tool_call>{}</tool_call><think>",
    "<|im_end|",
    "|im_end|><|im_<|im_end|>end|>",
    "\x00\x01\x7f\u2028\u3000\ufeff",
]

LOOK_ALIKES = ("<s>", "</s>", "<unk>", "<0x0A>", "<|im_", "end|>", "<", "|", "user")
BLANKS = (" ", "  ", "   ", "\n", "\n\n", "\r\n", "\t")
WORDS = (
    "'s",
    "'LL",
    "12",
    "1234",
    "é",
    "e\u0301",
    "漢字",
    "한글",
    "مرحبا",
    "🤗",
    "\u200d",
    "def f(x):",
    "▁",
    "Ġ",
    "the",
)

pieces = st.sampled_from([*SPECIAL, *USER_DEFINED, *LOOK_ALIKES, *BLANKS, *WORDS, "👩\u200d👩\u200d👧"])
texts = st.lists(pieces | st.text(max_size=8), max_size=12).map("".join)


@dataclass(frozen=True)
class Pair:
    """One vocabulary, twice: the GGUF file for us, and what transformers (or its authors' pipeline) makes of it."""

    path: Path
    reference: Tokenizer

    def reference_ids(self, text: str, *, special: bool) -> list[int]:
        self.reference.encode_special_tokens = not special
        ids: list[int] = self.reference.encode(text, add_special_tokens=False).ids
        return ids


def byte_level(folder: Path, pre: str) -> Pair:
    """Byte-level BPE of about 700 tokens, cut as the family named `pre` cuts."""
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = reference_cut(pre)
    reference.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(CORPUS * 3, trainer)
    vocab = reference.get_vocab()
    merges = [tuple(merge) for merge in _model(reference)["merges"]]
    tokens = [*sorted(vocab, key=lambda token: vocab[token]), *USER_DEFINED]
    types = [3 if token in SPECIAL else 4 if token in USER_DEFINED else 1 for token in tokens]
    path = write(
        folder / f"{pre}.gguf",
        "gpt2",
        tokens,
        types,
        pre=pre,
        merges=[" ".join(merge) for merge in merges],
        eos=tokens.index("<|im_end|>"),
        bos=tokens.index("<|im_start|>"),
    )
    ids = {token: i for i, token in enumerate(tokens)}
    if pre == "qwen2":  # with the NFC normaliser of its own class
        reference = Qwen2Tokenizer(vocab=ids, merges=merges).backend_tokenizer
    elif pre == "gpt-2":
        reference = GPT2Tokenizer(vocab=ids, merges=merges).backend_tokenizer
    reference.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    reference.add_tokens([AddedToken(token, normalized=False) for token in USER_DEFINED])
    assert reference.get_vocab() == ids
    return Pair(path, reference)


def reference_cut(pre: str) -> pre_tokenizers.PreTokenizer:
    """The family's pre-tokenizer from the sources of transformers, or as its tokenizer.json has it."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pre == "gpt-2":
        return whole
    if pre == "smollm":  # SmolLM2's tokenizer.json
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    if pre == "llama-bpe":
        expression = TikTokenConverter().pattern
    else:
        from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

        expression = GGUF_PRE_TOKENIZER_SPLITS[pre]
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(expression), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def sentencepiece(folder: Path, *, add_space_prefix: bool | None = None) -> Pair:
    """BPE with scores and byte fallback, as SentencePiece trains it for the Llama family."""
    name = f"spm-{add_space_prefix}.gguf"
    tokens, scores, types = sentencepiece_vocabulary()
    path = write(
        folder / name, "llama", tokens, types, scores=scores, bos=1, eos=2, unknown=0, add_space_prefix=add_space_prefix
    )
    return Pair(path, AutoTokenizer.from_pretrained(folder, gguf_file=name).backend_tokenizer)


def sentencepiece_vocabulary() -> tuple[list[str], list[float], list[int]]:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trained.train_from_iterator(CORPUS[:3] * 3, trainers.BpeTrainer(vocab_size=500, show_progress=False))
    vocab = trained.get_vocab()
    by_id = sorted(vocab, key=lambda token: vocab[token])
    merged = [token for token in by_id if len(token) > 1]
    characters = [token for token in by_id if len(token) == 1]
    controls = ["<unk>", "<s>", "</s>"]
    tokens = [*controls, *(f"<0x{byte:02X}>" for byte in range(256)), *merged, *characters, "<|im_end|>", "<think>"]
    types = [2, 3, 3, *[6] * 256, *[1] * (len(merged) + len(characters)), 3, 4]
    scores = [0.0] * 259 + [-float(n) for n in range(len(merged) + len(characters))] + [0.0, 0.0]
    return tokens, scores, types


def write(
    path: Path,
    model: str,
    tokens: Sequence[str],
    types: Sequence[int],
    *,
    pre: str | None = None,
    merges: Sequence[str] | None = None,
    scores: Sequence[float] | None = None,
    bos: int | None = None,
    eos: int | None = None,
    unknown: int | None = None,
    add_bos: bool | None = None,
    add_space_prefix: bool | None = None,
) -> Path:
    """A GGUF file with a tokenizer and no tensors, by the `gguf` package."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    for value, add in (
        (pre, writer.add_tokenizer_pre),
        (merges, writer.add_token_merges),
        (scores, writer.add_token_scores),
        (bos, writer.add_bos_token_id),
        (eos, writer.add_eos_token_id),
        (unknown, writer.add_unk_token_id),
        (add_bos, writer.add_add_bos_token),
        (add_space_prefix, writer.add_add_space_prefix),
    ):
        if value is not None:
            add(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _model(tokenizer: Tokenizer) -> dict[str, list[Sequence[str]]]:
    import json

    model: dict[str, list[Sequence[str]]] = json.loads(tokenizer.to_str())["model"]
    return model


def chunks(ids: Sequence[int], cuts: Sequence[int]) -> Iterator[Sequence[int]]:
    """`ids` in pieces of the sizes in `cuts`, over and over; a size of 0 gives an empty piece."""
    position = 0
    for size in cuts:
        yield ids[position : position + size]
        position += size
    yield ids[position:]
