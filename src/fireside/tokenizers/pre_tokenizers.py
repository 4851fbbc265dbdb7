"""How byte-level vocabularies cut text into words before merging, by the name GGUF gives it (`tokenizer.ggml.pre`).

Each expression comes from the `tokenizer.json` of the family it is named after; llama.cpp's `llama-vocab.cpp` says
which names share one. A word never crosses a cut, so a wrong expression gives other ids on digits, contractions,
newlines and runs of spaces, silently: an unknown name is an error.
"""

from __future__ import annotations

from dataclasses import dataclass

from tokenizers import Regex, normalizers, pre_tokenizers

from fireside.errors import ModelError


def _class(ranges: str) -> str:
    """A regular expression's class from code points in hexadecimal, single or `first-last`."""
    return "[" + "".join("-".join(chr(int(end, 16)) for end in span.split("-")) for span in ranges.split()) + "]"


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
DIGIT = r"\p{N}"
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
# DeepSeek's letters are a list of its own, neither any version of Unicode's cased letters nor any script's whole
CASED = _class("""
    41-5a 61-7a b5 c0-d6 d8-f6 f8-1ba 1bc-1bf 1c4-293 295-2af 370-373 376-377 37b-37d 37f 386 388-38a 38c
    38e-3a1 3a3-3f5 3f7-481 48a-52f 531-556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b
    1d6b-1d77 1d79-1d9a 1e00-1f15 1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4
    1fb6-1fbc 1fbe 1fc2-1fc4 1fc6-1fcc 1fd0-1fd3 1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 210a-2113
    2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 2139 213c-213f 2145-2149 214e 2183-2184 2c00-2c7b
    2c7e-2ce4 2ceb-2cee 2cf2-2cf3 a640-a66d a680-a69b a722-a76f a771-a787 a78b-a78e ab70-abbf fb00-fb06
    fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 104d8-104fb 10c80-10cb2 10cc0-10cf2 118a0-118df
    1e900-1e943
""")
CJK = _class("800-9fa5 ac00-d7ff")
PUNCTUATION = _class("21-2f 3a-7e 2018-201f 3000-3002 ff01-ff0f ff1a-ff5e")


@dataclass(frozen=True)
class PreTokenization:
    """`splits` apply in turn, each to the pieces left by those before it."""

    splits: tuple[str, ...]
    nfc: bool = False  # text is normalised to Unicode NFC first
    ignore_merges: bool = False  # a word that is itself in the vocabulary is taken whole
    add_bos: bool = False  # when the file does not say

    def build(self) -> pre_tokenizers.PreTokenizer:
        last_is_gpt2 = self.splits[-1] == GPT2  # ByteLevel has that one built in, and runs it faster
        steps = [_split(split) for split in (self.splits[:-1] if last_is_gpt2 else self.splits)]
        return pre_tokenizers.Sequence(
            [*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=last_is_gpt2)]
        )

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.nfc else None


def _split(expression: str) -> pre_tokenizers.PreTokenizer:
    if expression == DIGIT:
        return pre_tokenizers.Digits(individual_digits=True)  # the same, faster
    return pre_tokenizers.Split(Regex(expression), behavior="isolated")


_GPT2 = PreTokenization((GPT2,))
_DIGITS = PreTokenization((DIGIT, GPT2))
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
    "deepseek-llm": PreTokenization(
        (r"[\r\n]", rf"\s?{CASED}+", rf"\s?{PUNCTUATION}+", r"\s+$", rf"{CJK}+", r"\p{N}+")
    ),
    "deepseek-coder": PreTokenization((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", rf"{CJK}+", DIGIT)),
}


def pre_tokenization(name: str) -> PreTokenization:
    """What `tokenizer.ggml.pre` means. Raises `ModelError` listing the names supported."""
    try:
        return PRE_TOKENIZATIONS[name]
    except KeyError:
        supported = ", ".join(sorted(PRE_TOKENIZATIONS))
        raise ModelError(f"the pre-tokenizer {name!r} is not supported; supported: {supported}") from None
