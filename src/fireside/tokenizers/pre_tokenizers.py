"""How byte-level vocabularies cut text into words before merging, by the name GGUF gives it (`tokenizer.ggml.pre`).

Each expression comes from the `tokenizer.json` of the family it is named after; llama.cpp's `llama-vocab.cpp` says
which names share one. A word never crosses a cut, so a wrong expression gives other ids on digits, contractions,
newlines and runs of spaces, silently: an unknown name is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from fireside.errors import ModelError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CJK = r"[一-龥ࠀ-一가-퟿]+"
# DeepSeek's own list of cased letters leaves out titlecase and a few later additions; Unicode's cased letters are
# those to within characters that no text of today holds
CASED = r"\s?[\p{Lu}\p{Ll}]+"


@dataclass(frozen=True)
class PreTokenization:
    """`splits` apply in turn, each to the pieces left by those before it."""

    splits: tuple[str, ...]
    nfc: bool = False  # text is normalised to Unicode NFC first
    ignore_merges: bool = False  # a word that is itself in the vocabulary is taken whole
    add_bos: bool = False  # when the file does not say

    def build(self) -> pre_tokenizers.PreTokenizer:
        steps = [pre_tokenizers.Split(Regex(split), behavior="isolated") for split in self.splits]
        return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.nfc else None


_GPT2 = PreTokenization((GPT2,))
_DIGITS = PreTokenization((r"\p{N}", GPT2))
_LLAMA3 = PreTokenization((LLAMA3,), ignore_merges=True, add_bos=True)
_QWEN2 = PreTokenization((QWEN2,))

PRE_TOKENIZATIONS: dict[str, PreTokenization] = {
    "default": PreTokenization((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "codeshell": _DIGITS,
    "minerva-7b": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "smaug-bpe": PreTokenization((LLAMA3,)),
    "qwen2": PreTokenization((QWEN2,), nfc=True),
    "deepseek-r1-qwen": _QWEN2,
    "megrez": _QWEN2,
    "tekken": PreTokenization((TEKKEN,), ignore_merges=True, add_bos=True),
    "deepseek-llm": PreTokenization((r"[\r\n]", CASED, r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", CJK, r"\p{N}+")),
    "deepseek-coder": PreTokenization((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}")),
}


def pre_tokenization(name: str) -> PreTokenization:
    """What `tokenizer.ggml.pre` means. Raises `ModelError` listing the names supported."""
    try:
        return PRE_TOKENIZATIONS[name]
    except KeyError:
        supported = ", ".join(sorted(PRE_TOKENIZATIONS))
        raise ModelError(f"the pre-tokenizer {name!r} is not supported; supported: {supported}") from None
