"""How a tokenizer is trained, as a recipe says it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

END_OF_TEXT = "<|endoftext|>"
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"


class TokenizerConfig(BaseModel):
    """A byte-level BPE vocabulary to be trained."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    vocab_size: int = Field(
        default=4096, ge=320, le=1 << 20, description="Tokens in all, the 256 bytes and the special tokens included."
    )
    pre_tokenizer: Literal["gpt-4", "gpt-2", "qwen2"] = Field(
        default="gpt-4",
        description="How text is cut into words before merging: digits in threes (gpt-4), one by one (qwen2, good for "
        "sums), or GPT-2's expression.",
    )
    min_frequency: int = Field(default=2, ge=1, description="A pair seen less often than this is not merged.")
    max_bytes: int = Field(
        default=1_000_000_000,
        ge=1,
        description="Text beyond so many bytes is not read; training needs memory for its words.",
    )
    special_tokens: tuple[str, ...] = Field(
        default=(),
        description="Control tokens beside <|endoftext|>, <|im_start|> and <|im_end|>, which are always there.",
    )
