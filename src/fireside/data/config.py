"""What a recipe says about data: sources, cleaning, the validation split, packing. Light to import."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from fireside.data.mixing import shares
from fireside.tokenizers.training_config import TokenizerConfig

__all__ = [
    "ClassifierConfig",
    "CleaningConfig",
    "DataConfig",
    "DeduplicationConfig",
    "PackingConfig",
    "QualityConfig",
    "RecipeTable",
    "RepetitionConfig",
    "SourceConfig",
    "TokenizerConfig",
    "anchor_paths",
]

HUGGING_FACE = "hf:"


class RecipeTable(BaseModel):
    """A table of a recipe: unknown keys are errors. None can be written as "none", since TOML has no word for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _read_none(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        optional = {name for name, field in cls.model_fields.items() if NoneType in get_args(field.annotation)}
        return {key: None if value == "none" and key in optional else value for key, value in values.items()}


class SourceConfig(RecipeTable):
    """Where documents or conversations come from."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="Names the source in shards, counts and weights."
    )
    path: str = Field(
        min_length=1,
        description="A file, a folder, a glob (data/**/*.txt), or hf:OWNER/DATASET for a Hugging Face dataset.",
    )
    format: Literal["auto", "text", "jsonl", "parquet"] = Field(
        default="auto", description="How files are read; auto goes by their endings, compressed ones (.gz) included."
    )
    kind: Literal["auto", "documents", "openai", "sharegpt", "alpaca", "pairs"] = Field(
        default="auto", description="Plain documents or a form of conversations; auto looks at the first row."
    )
    text_field: str = Field(default="text", min_length=1, description="The column or key that holds a document's text.")
    id_field: str | None = Field(default=None, description="The column or key of a document's id; none: file and row.")
    separator: str | None = Field(
        default=None,
        min_length=1,
        description="Cuts a text file into documents where it stands; none: one document a file.",
    )
    encoding: str = Field(default="utf-8", description="Of text files without a byte order mark.")
    subset: str | None = Field(default=None, description="A Hugging Face dataset's configuration.")
    hf_split: str = Field(default="train", description="A Hugging Face dataset's split.")
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="A Hugging Face dataset's branch, tag or commit; none: its default branch. The "
        "commit that this is at first is noted in the manifest, and kept.",
    )
    use: Literal["split", "train", "validation"] = Field(
        default="split", description="Divide by each document's hash into training and validation, or take all for one."
    )
    weight: float | None = Field(
        default=None,
        gt=0,
        description="Share of training tokens: relative, where all sources have one; a part of 1, where some have none "
        "and divide the rest by size. None: by its size.",
    )
    licence: str = Field(default="not stated", min_length=1, description="Licence of the data, noted in the manifest.")
    note: str = Field(default="", description="Provenance in a sentence, noted in the manifest.")
    on_error: Literal["skip", "fail"] = Field(
        default="skip", description="A malformed row or unreadable file: skip and count it, or end the preparation."
    )
    max_document_bytes: int = Field(
        default=64_000_000, ge=1000, description="A longer text file is cut at a line; a longer row is malformed."
    )
    limit: int | None = Field(default=None, ge=1, description="At most so many documents or conversations; none: all.")


class QualityConfig(RecipeTable):
    """Rules in the manner of Gopher, C4 and FineWeb. None switches a rule off.

    The defaults keep books as well as web pages: Gopher's upper limit of 100,000 words is off.
    """

    min_words: int | None = Field(default=50, ge=0, description="Fewest words of a document (Gopher).")
    max_words: int | None = Field(default=None, ge=1, description="Most words of a document (Gopher: 100,000).")
    min_mean_word_length: float | None = Field(default=3.0, ge=0, description="Characters a word, at least (Gopher).")
    max_mean_word_length: float | None = Field(default=10.0, ge=0, description="Characters a word, at most (Gopher).")
    max_symbol_ratio: float | None = Field(default=0.1, ge=0, description="Hash signs or ellipses per word (Gopher).")
    max_bullet_lines: float | None = Field(
        default=0.9, ge=0, le=1, description="Share of lines that are bullets (Gopher)."
    )
    max_ellipsis_lines: float | None = Field(
        default=0.3, ge=0, le=1, description="Share of lines that end in an ellipsis (Gopher)."
    )
    min_alphabetic_words: float | None = Field(
        default=0.8, ge=0, le=1, description="Share of words with a letter (Gopher)."
    )
    min_stop_words: int | None = Field(
        default=2, ge=0, description="Different common words of the language, where its list is known (Gopher)."
    )
    no_lorem_ipsum: bool = Field(default=True, description="Drops filler text (C4).")
    no_curly_brackets: bool = Field(default=False, description="Drops text with a curly bracket, as code has (C4).")
    min_punctuated_lines: float | None = Field(
        default=0.12, ge=0, le=1, description="Share of lines that end a sentence (FineWeb)."
    )
    max_short_lines: float | None = Field(
        default=0.67, ge=0, le=1, description="Share of lines under 30 characters (FineWeb); poetry may want it off."
    )


class RepetitionConfig(RecipeTable):
    """Gopher's limits on repetition. None switches a rule off."""

    max_duplicate_lines: float | None = Field(default=0.3, ge=0, le=1, description="Share of lines seen before.")
    max_duplicate_line_characters: float | None = Field(default=0.2, ge=0, le=1, description="The same, by characters.")
    max_duplicate_paragraphs: float | None = Field(
        default=0.3, ge=0, le=1, description="Share of paragraphs seen before."
    )
    max_top_ngram: tuple[float, float, float] | None = Field(
        default=(0.2, 0.18, 0.16), description="Share of characters in the most frequent run of 2, 3 and 4 words."
    )
    max_duplicate_ngrams: tuple[float, float, float, float, float, float] | None = Field(
        default=(0.15, 0.14, 0.13, 0.12, 0.11, 0.10),
        description="Share of words that lie in repeated runs of 5, 6, 7, 8, 9 and 10 words.",
    )


class ClassifierConfig(RecipeTable):
    """A quality classifier trained by `fireside data train-classifier`."""

    path: Path = Field(description="The classifier's safetensors file.")
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="Documents with a lower probability of being good go."
    )


class DeduplicationConfig(RecipeTable):
    """Exact and near duplicates, over all sources in their order."""

    exact: bool = Field(default=True, description="Drops a text that was seen before, whitespace and case aside.")
    near: bool = Field(default=True, description="Drops near duplicates by MinHash over runs of words.")
    ngram: int = Field(default=5, ge=1, le=20, description="Words in a run.")
    bands: int = Field(default=14, ge=1, le=64, description="Bands of the signature; one equal band makes a duplicate.")
    rows: int = Field(
        default=8, ge=1, le=32, description="Hashes in a band; 14 bands of 8 find a similarity of about 0.75."
    )
    memory_mb: int = Field(
        default=256,
        ge=1,
        description="For what was seen; as it fills, texts chosen by their hashes are forgotten, and counted.",
    )


class CleaningConfig(RecipeTable):
    """The blocks a document passes, in this order. Conversations pass only Unicode repair, PII, exact
    duplicates and decontamination."""

    unicode: bool = Field(default=True, description="Repairs mojibake, composes to NFC, removes control characters.")
    languages: tuple[str, ...] = Field(
        default=(),
        description="Keeps only these languages (ISO 639-1: en, fr, ...); none: keeps all and looks for none.",
    )
    min_language_probability: float = Field(
        default=0.65, ge=0, le=1, description="A less certain language is not kept."
    )
    quality: QualityConfig | None = Field(default=QualityConfig(), description="Quality rules; none: off.")
    repetition: RepetitionConfig | None = Field(default=RepetitionConfig(), description="Repetition rules; none: off.")
    pii: bool = Field(default=True, description="Masks e-mail addresses, phone, card and IP numbers.")
    classifier: ClassifierConfig | None = Field(default=None, description="Drops what a trained classifier finds poor.")
    deduplication: DeduplicationConfig | None = Field(
        default=DeduplicationConfig(), description="Duplicates; none: off."
    )
    decontaminate: tuple[str, ...] = Field(
        default=(),
        description="Evaluation files (text, JSONL or Parquet; globs): what shares a run of words with them goes.",
    )
    decontamination_ngram: int = Field(default=13, ge=5, le=50, description="Words in that run.")


class DataConfig(RecipeTable):
    """A dataset: sources, cleaned, tokenised and divided. What `prepare` makes depends on this and the tokenizer."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="In order: the first keeps a duplicate.")
    cleaning: CleaningConfig = Field(default=CleaningConfig(), description="What documents pass before they are kept.")
    validation_fraction: float = Field(
        default=0.005, ge=0, lt=1, description="Share of documents held out, chosen by a hash of each document's text."
    )
    validation_name: str = Field(
        default="validation-1", pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Names the split and salts that hash."
    )
    shard_tokens: int = Field(default=1 << 24, ge=1024, description="Tokens in a shard.")
    processes: int = Field(
        default=0, ge=0, le=1024, description="That clean and tokenise; 0: one per core. Results do not vary."
    )

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, value: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in value]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are named {twice[0]!r}")
        weights = [source.weight for source in value if source.use != "validation"]
        shares(weights, [1] * len(weights))  # raises
        return value

    @model_validator(mode="after")
    def _languages_are_codes(self) -> DataConfig:
        for language in self.cleaning.languages:
            if not re.fullmatch(r"[a-z]{2}", language):
                raise ValueError(f"cleaning.languages: {language!r} is not a two-letter code such as en")
        return self


def anchor_paths(raw: Any, folder: Path) -> None:
    """Makes the paths in the values of a `DataConfig`, as a TOML file has them, absolute, from that file's `folder`.

    Of sources, evaluation files and the classifier. Whatever is malformed is left for validation to name.
    """
    if not isinstance(raw, dict):
        return
    sources = raw.get("sources")
    for source in sources if isinstance(sources, list) else ():
        _anchor(source, "path", folder)
    cleaning = raw.get("cleaning")
    if isinstance(cleaning, dict):
        _anchor(cleaning.get("classifier"), "path", folder)
        evaluations = cleaning.get("decontaminate")
        if isinstance(evaluations, list):
            cleaning["decontaminate"] = [_anchored(path, folder) for path in evaluations]


def _anchor(table: Any, key: str, folder: Path) -> None:
    if isinstance(table, dict) and key in table:
        table[key] = _anchored(table[key], folder)


def _anchored(path: Any, folder: Path) -> Any:
    if not isinstance(path, str) or not path or path.startswith(HUGGING_FACE):
        return path
    return str(folder / Path(path).expanduser())


class PackingConfig(RecipeTable):
    """How documents become rows of a batch."""

    sequence_length: int = Field(default=1024, ge=2, description="Tokens in a row.")
    seed: int = Field(default=0, ge=0, lt=1 << 63, description="Decides the order of documents and rows.")
    padding_tolerance: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="A gap up to this share of a row is padded rather than a document cut to fill it.",
    )
    window_rows: int = Field(
        default=512, ge=1, le=1 << 16, description="Rows that are planned, and shuffled, together."
    )
