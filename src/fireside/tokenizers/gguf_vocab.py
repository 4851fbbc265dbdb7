"""The tokenizer that a GGUF file describes in its metadata.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer. Two kinds are read: `gpt2`, byte-level BPE
with its merges, and `llama`, SentencePiece's BPE, which merges the pair whose union scores highest and falls back to
bytes. Ids equal those of transformers for the same vocabulary; unlike transformers, merges never make a control
token out of plain text.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from fireside.errors import ModelError
from fireside.gguf import GGUFFile
from fireside.tokenizers.pre_tokenizers import pre_tokenization
from fireside.tokenizers.tokenizer_json import TokenizerParts


class TokenType(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


KINDS = ("gpt2", "llama")
SPECIAL_ROLES = ("bos", "eos", "unknown", "padding", "eot", "eom")
# Converters have left these typed as normal or user-defined in files that people use; they end turns all the same.
TURN_TOKENS = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>"),
    *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"),
)


def read(file: GGUFFile) -> TokenizerParts:
    """Build the tokenizer of `file`. Raises `ModelError` when the metadata lack it or ask for what is unsupported."""
    kind = file.metadata.get("tokenizer.ggml.model")
    if kind not in KINDS:
        raise ModelError(f"{file.path}: its tokenizer is of kind {kind!r}; supported: {', '.join(KINDS)}")
    try:
        return _Vocabulary(file.metadata).parts()
    except Exception as error:  # the Rust library raises bare Exception for contents that it cannot use
        raise ModelError(f"{file.path}: its tokenizer cannot be used: {error}") from error


class _Vocabulary:
    def __init__(self, metadata: dict[str, Any]) -> None:
        self.metadata = metadata
        self.tokens: list[str] = self._list("tokens")
        if not self.tokens:
            raise ModelError("it has no tokens")
        self.types: list[int] = self._list("token_type") or [TokenType.NORMAL] * len(self.tokens)
        if len(self.types) != len(self.tokens):
            raise ModelError(f"it has {len(self.tokens)} tokens but {len(self.types)} token types")
        if "" in self.tokens:
            self.tokens = [token or f"[EMPTY_{i}]" for i, token in enumerate(self.tokens)]  # llama.cpp's name for them
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            twice = next(token for i, token in enumerate(self.tokens) if self.ids[token] != i)
            raise ModelError(f"the token {twice!r} is there twice")
        self.sentencepiece = metadata["tokenizer.ggml.model"] == "llama"

    def parts(self) -> TokenizerParts:
        backend, add_bos = self._sentencepiece() if self.sentencepiece else self._byte_level()
        added = self._added_tokens()
        backend.add_special_tokens([AddedToken(t.content, normalized=False, special=True) for t in added.values()])
        return TokenizerParts(
            backend,
            added,
            vocab_size=len(self.tokens),
            bos_token_id=self._role("bos"),
            eos_token_id=self._role("eos"),
            add_bos=bool(self._get("add_bos_token", add_bos)),
        )

    def _byte_level(self) -> tuple[tokenizers.Tokenizer, bool]:
        how = pre_tokenization(self._get("pre", "default"))
        merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in self._list("merges"))]
        backend = tokenizers.Tokenizer(models.BPE(vocab=self.ids, merges=merges, ignore_merges=how.ignore_merges))
        if (normalizer := how.normalizer()) is not None:
            backend.normalizer = normalizer
        backend.pre_tokenizer = how.build()
        backend.decoder = decoders.ByteLevel()
        return backend, how.add_bos

    def _sentencepiece(self) -> tuple[tokenizers.Tokenizer, bool]:
        unknown = self._role("unknown")
        backend = tokenizers.Tokenizer(
            models.BPE(
                vocab=self.ids,
                merges=self._merges_by_score(),
                unk_token=None if unknown is None else self.tokens[unknown],
                fuse_unk=True,
                byte_fallback=True,
            )
        )
        prefix = bool(self._get("add_space_prefix", True))
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if prefix else "never", split=False)
        strip = [decoders.Strip(content=" ", left=1, right=0)] if prefix else []
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        return backend, True

    def _merges_by_score(self) -> list[tuple[str, str]]:
        """Every way to make a token from two others, best score first; of equal scores, longer left parts first."""
        scores = self._list("scores")
        if len(scores) != len(self.tokens):
            raise ModelError(f"it has {len(self.tokens)} tokens but {len(scores)} scores")
        unmade = {TokenType.CONTROL, TokenType.UNKNOWN, TokenType.BYTE}
        merges: list[tuple[float, int, int, str, str]] = []
        for token, kind, score in zip(self.tokens, self.types, scores, strict=True):
            if kind not in unmade:
                for cut in range(1, len(token)):
                    left, right = token[:cut], token[cut:]
                    if left in self.ids and right in self.ids:
                        merges.append((-score, -cut, cut - len(token), left, right))
        merges.sort(key=lambda merge: merge[:3])
        return [(left, right) for *_, left, right in merges]

    def _added_tokens(self) -> dict[int, AddedToken]:
        normal = int(TokenType.NORMAL)
        unusual = [(i, kind) for i, kind in enumerate(self.types) if kind != normal]
        special = {i for i, kind in unusual if kind in (TokenType.CONTROL, TokenType.UNKNOWN)}
        special |= {i for role in SPECIAL_ROLES if (i := self._role(role)) is not None}
        special |= {self.ids[token] for token in TURN_TOKENS if token in self.ids}
        plain = {i for i, kind in unusual if kind == TokenType.USER_DEFINED} - special
        return {i: AddedToken(self.tokens[i], normalized=False, special=i in special) for i in sorted(special | plain)}

    def _role(self, role: str) -> int | None:
        token_id = self._get(f"{role}_token_id", None)
        return token_id if isinstance(token_id, int) and 0 <= token_id < len(self.tokens) else None

    def _get(self, key: str, default: Any) -> Any:
        return self.metadata.get(f"tokenizer.ggml.{key}", default)

    def _list(self, key: str) -> list[Any]:
        value = self._get(key, [])
        if not isinstance(value, list):
            raise ModelError(f"tokenizer.ggml.{key} is not a list")
        return value
