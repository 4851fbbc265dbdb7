"""Text to token ids and back, over Hugging Face's `tokenizers` (Rust). Free of torch, numpy and transformers.

Added tokens (`<|im_end|>`, `<tool_call>`, ...) are matched here and not in Rust, because whether a piece of text may
become one depends on who wrote it: a chat template may, a user may not. Every added token gets an alias, an
unguessable private spelling that Rust takes for the token, while the natural spelling is plain text to Rust. So one
tokenizer and one pass over the whole text serve every mix of trusted and untrusted text, and pre-tokenizers that look
at the position of a piece (SentencePiece's space at the start) see what they would see anywhere else.
"""

from __future__ import annotations

import json
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import tokenizers

from fireside.errors import FiresideError, ModelError
from fireside.gguf import GGUFFile
from fireside.tokenizers import gguf_vocab, tokenizer_json
from fireside.tokenizers.byte_alphabet import CHARACTER_TO_BYTE
from fireside.tokenizers.tokenizer_json import TokenizerParts

SPACE = "▁"  # how SentencePiece spells a space
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
SLICE = 1 << 16  # characters that are counted at once; while it encodes, Rust holds about half a kilobyte per token


class TooManyTokens(FiresideError):
    """A text is far longer than its `limit`. It was not encoded whole; `counted` tokens were found until then."""

    def __init__(self, counted: int, limit: int) -> None:
        super().__init__(f"the text has over {counted:,} tokens; at most {limit:,} are wanted")
        self.counted = counted
        self.limit = limit


class Tokenizer:
    """Encodes and decodes text for one model.

    Attributes:
        vocab_size: every id is below it; the model's embedding may be larger.
        bos_token_id, eos_token_id: as the tokenizer's own configuration names them, or None.
        add_bos: whether a plain text customarily begins with the bos token.
        special_token_ids: control tokens; untrusted text never yields one, and decoding skips them.
        added_tokens: the text of each added token, and whether it is special. Those that are not (runs of
            spaces, `<tool_call>`) are matched in any text, as everywhere.
        strips_leading_space: whether the first space of a decoded text is the tokenizer's and not the text's.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        """Use `from_file` or `from_gguf`."""
        self._backend = parts.backend
        self._added = parts.added_tokens
        self.vocab_size = parts.vocab_size
        self.bos_token_id = parts.bos_token_id
        self.eos_token_id = parts.eos_token_id
        self.add_bos = parts.add_bos and parts.bos_token_id is not None
        self.added_tokens = {token.content: token.special for token in self._added.values()}
        self.special_token_ids = frozenset(i for i, token in self._added.items() if token.special)
        self._bytes: dict[int, bytes] = {}
        self._read_decoder()
        self._alias_added_tokens()

    @classmethod
    def from_file(cls, path: Path, tokenizer_config: Mapping[str, Any] | None = None) -> Tokenizer:
        """Read `tokenizer.json`; `tokenizer_config` is the parsed `tokenizer_config.json` beside it, if any.

        Raises `ModelError` naming the file when it cannot be read or is of an unsupported kind.
        """
        parts = tokenizer_json.read(path, tokenizer_config or {})
        try:
            return cls(parts)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Tokenizer:
        """Build from a GGUF file's metadata. Raises `ModelError` for a kind or pre-tokenizer not supported."""
        return cls(gguf_vocab.read(file))

    def encode(
        self, text: str, *, allow_special: bool = False, add_bos: bool | None = None, limit: int | None = None
    ) -> list[int]:
        """Token ids of `text`. Only with `allow_special` do the spellings of control tokens become those tokens.

        `add_bos=None` follows the tokenizer's habit; a text that already begins with bos gets no second one.
        Lone surrogates, which JSON can smuggle in, become U+FFFD. `limit`: a text that proves to have over twice as
        many tokens raises `TooManyTokens`, before it takes the memory to encode it whole.
        """
        ids = self._encode(self._alias(text, special=allow_special), limit)
        wants_bos = self.add_bos if add_bos is None else add_bos
        if wants_bos and self.bos_token_id is not None and ids[:1] != [self.bos_token_id]:
            ids.insert(0, self.bos_token_id)
        return ids

    def encode_marked(self, text: str, mark: str, *, limit: int | None = None) -> list[int]:
        """Token ids of `text` with control tokens, except where the character `mark` stands right before the
        spelling of one. Marks are removed first, so they leave no trace in the ids. No bos is added.
        `limit` as in `encode`."""
        return self._encode(self._alias(text, special=True, mark=mark).replace(mark, ""), limit)

    def encode_spans(
        self, text: str, mark: str, spans: Sequence[tuple[int, int]], borders: Collection[int] = ()
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """As `encode_marked`, and for each of `spans` (start and stop in `text`) the tokens that touch it: their first
        index and the one after their last. No span may begin or end within a control token's spelling.

        `borders`: ends of spans that no token may straddle, so that what stands before one has the ids that it has
        alone. Tokenizers that put a space before every text cannot be bound to them.
        """
        cuts = sorted({0, len(text), *(end for span in spans for end in span)})
        pieces = [self._alias(text[a:b], special=True, mark=mark).replace(mark, "") for a, b in pairwise(cuts)]
        place = dict(zip(cuts, accumulate(map(len, pieces), initial=0), strict=True))  # in what Rust gets
        bound = [cut for cut in cuts[1:-1] if cut in borders] if self._texts_stand_alone() else []
        whole, edges = "".join(pieces), [0, *(place[cut] for cut in bound), place[len(text)]]
        encodings = self._backend.encode_batch([whole[a:b] for a, b in pairwise(edges)], add_special_tokens=False)
        found: list[int] = [i for encoding in encodings for i in encoding.ids]
        offsets = [(edge + a, edge + b) for edge, e in zip(edges, encodings, strict=False) for a, b in e.offsets]
        ids = self._real_ids(found)
        if len(ids) != len(offsets):  # a control token made by merges, and spelled out
            offsets = [o for i, o in zip(found, offsets, strict=True) for _ in self._spell_out(i)]
        starts, stops = [start for start, _ in offsets], [stop for _, stop in offsets]
        return ids, [(bisect_right(stops, place[start]), bisect_left(starts, place[stop])) for start, stop in spans]

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Bytes that are not UTF-8 become U+FFFD; ids without a token are passed over."""
        skipped = self.special_token_ids if skip_special_tokens else frozenset()
        text = b"".join(self.token_bytes(i) for i in ids if i not in skipped).decode("utf-8", errors="replace")
        return text.removeprefix(" ") if self.strips_leading_space else text

    def token_bytes(self, token_id: int) -> bytes:
        """What one token contributes to the text, in UTF-8, perhaps a part of a character; empty if there is none."""
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._token_bytes(token_id)
        return known

    def to_json(self) -> str:
        """The tokenizer in the format of `tokenizer.json`, as other libraries read it."""
        return tokenizer_json.with_added_tokens(self._backend.to_str(), self._added)

    def vocabulary(self) -> dict[int, str]:
        """Every id and its token as the model's files spell it."""
        tokens = {token_id: token for token, token_id in self._backend.get_vocab(with_added_tokens=False).items()}
        return tokens | {token_id: token.content for token_id, token in self._added.items()}

    def _token_bytes(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
        if token is None:
            return b""
        if self._byte_level:
            if token_id not in self._added:
                try:
                    return bytes(map(CHARACTER_TO_BYTE.__getitem__, token))
                except KeyError:
                    pass  # not spelled in the alphabet: the token is its own text
            return token.encode()
        byte = BYTE_TOKEN.fullmatch(token) if self._byte_fallback else None
        return bytes.fromhex(byte[1]) if byte else token.replace(SPACE, " ").encode()

    def _read_decoder(self) -> None:
        """Learn from the decoder how tokens spell text."""
        steps = list(_steps(json.loads(self._backend.decoder.__getstate__()))) if self._backend.decoder else []
        kinds = {step["type"] for step in steps}
        self._byte_level = "ByteLevel" in kinds
        self._byte_fallback = "ByteFallback" in kinds
        if not (self._byte_level or "Metaspace" in kinds or ("Replace" in kinds and "Fuse" in kinds)):
            raise ModelError(
                f"the tokenizer decodes by {' + '.join(sorted(kinds)) or 'nothing'}, which is not supported; "
                "supported: byte-level BPE and SentencePiece's pieces (Metaspace, or Replace with Fuse)"
            )
        self.strips_leading_space = not self._byte_level and any(
            (step["type"] == "Strip" and step.get("start", 0) > 0)
            or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
            for step in steps
        )

    def _alias_added_tokens(self) -> None:
        tokens = list(self._added.items())
        nonce = secrets.token_hex(8)  # per process: a text cannot contain what its writer cannot know
        self._aliases = {token.content: f"<{nonce}.{n}>" for n, (_, token) in enumerate(tokens)}
        self._alias_ids = [token_id for token_id, _ in tokens]
        self._backend.add_tokens(
            [
                tokenizers.AddedToken(
                    self._aliases[token.content],
                    lstrip=token.lstrip,
                    rstrip=token.rstrip,
                    single_word=token.single_word,
                    normalized=False,
                    special=False,  # matched always
                )
                for _, token in tokens
            ]
        )
        self._backend.encode_special_tokens = True
        longest_first = sorted(self._aliases, key=len, reverse=True)
        self._spelling = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        unknown = getattr(self._backend.model, "unk_token", None)  # stands for what the vocabulary lacks
        self._never_in_text = self.special_token_ids - {self._backend.token_to_id(unknown) if unknown else None}

    def _alias(self, text: str, *, special: bool, mark: str = "") -> str:
        """`text` with added tokens in their private spelling, as far as they are allowed to be tokens."""

        def spell(match: re.Match[str]) -> str:
            token, start = match[0], match.start()
            marked = mark and start and text[start - 1] == mark
            return token if marked or (self.added_tokens[token] and not special) else self._aliases[token]

        return self._spelling.sub(spell, text)

    def _encode(self, aliased: str, limit: int | None) -> list[int]:
        if limit is not None and len(aliased) > SLICE:
            self._check_length(aliased, limit)
        return self._real_ids(self._rust_ids(aliased))

    def _texts_stand_alone(self) -> bool:
        """Whether ids spell a text and nothing before it."""
        return b"".join(map(self.token_bytes, self._rust_ids("x"))) == b"x"

    def _real_ids(self, ids: list[int]) -> list[int]:
        """Rust's ids with those of aliases replaced, and without control tokens that merges made of plain text."""
        if not self._never_in_text.isdisjoint(ids):
            ids = [part for i in ids for part in self._spell_out(i)]
        first, real = self.vocab_size, self._alias_ids
        return [real[i - first] if i >= first else i for i in ids]

    def _check_length(self, aliased: str, limit: int) -> None:
        """Counts slice by slice. The cuts make a few tokens more of a text, or fewer; twice `limit` leaves no doubt."""
        counted = 0
        for start in range(0, len(aliased), SLICE):
            counted += len(self._rust_ids(aliased[start : start + SLICE]))
            if counted > 2 * limit:
                raise TooManyTokens(counted, limit)

    def _rust_ids(self, aliased: str) -> list[int]:
        try:  # of Rust's ways to encode, the one that works out no offsets is nearly twice as fast
            (encoding,) = self._backend.encode_batch_fast([aliased], add_special_tokens=False)
        except TypeError:  # what Rust says of lone surrogates
            aliased = aliased.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            (encoding,) = self._backend.encode_batch_fast([aliased], add_special_tokens=False)
        ids: list[int] = encoding.ids
        return ids

    def _spell_out(self, token_id: int) -> list[int]:
        """Split a control token that merges made of plain text into its characters; other tokens stay whole."""
        if token_id not in self._never_in_text:
            return [token_id]
        characters = self._backend.id_to_token(token_id) or ""
        parts = [token.id for character in characters for token in self._backend.model.tokenize(character)]
        return [part for part in parts if part not in self._never_in_text]


def _steps(decoder: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The steps of a decoder, nested sequences flattened."""
    if decoder["type"] == "Sequence":
        for step in decoder["decoders"]:
            yield from _steps(step)
    else:
        yield decoder
