"""Text from token ids that arrive a few at a time."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from fireside.tokenizers.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Decodes one stream of token ids: what `push` and `finish` return adds up to `tokenizer.decode` of all the ids,
    however they are cut. Each token costs its own bytes and no more.

    `continuing`: the text goes on from a prompt, so that a space at its start belongs to it even where the
    tokenizer would drop one at the start of a text.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, *, continuing: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_token_ids if skip_special_tokens else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = tokenizer.strips_leading_space and not continuing

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is settled by these tokens and was not before; a character once all its bytes are there."""
        return self._decode(b"".join(self._tokenizer.token_bytes(i) for i in token_ids if i not in self._skipped))

    def finish(self) -> str:
        """What was held back: the beginning of a character that never came becomes U+FFFD."""
        return self._decode(b"", final=True)

    def _decode(self, data: bytes, final: bool = False) -> str:
        text = self._utf8.decode(data, final)
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text
