"""Training a vocabulary: byte-level BPE by Hugging Face's `tokenizers`, ready for chat."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from fireside.errors import FiresideError
from fireside.tokenizers.pre_tokenizers import GPT2, LLAMA3, QWEN2, PreTokenization
from fireside.tokenizers.training_config import END_OF_TEXT, END_OF_TURN, START_OF_TURN, TokenizerConfig

CHATML = Path(__file__).with_name("chatml.jinja")
SPLITS = {"gpt-4": LLAMA3, "gpt-2": GPT2, "qwen2": QWEN2}
PIECE = 1 << 18  # characters that Rust gets at once: it cuts a text into all of its words before it counts them
LONGEST_TOKEN = 64  # characters; else rules of dashes and runs of spaces become tokens

Progress = Callable[[int], None]


class TrainingError(FiresideError):
    """There is no text to train on, or too little for the vocabulary wanted."""


def train_tokenizer(
    texts: Iterable[str], config: TokenizerConfig, *, on_progress: Progress = lambda read: None
) -> dict[str, str]:
    """The files of a tokenizer trained on `texts`: `tokenizer.json` and, with a chat template, `tokenizer_config.json`.

    `texts` is read once, as a stream; what takes memory are the distinct words. The same texts and config give the
    same bytes. `on_progress` hears how many bytes of text have been read. Raises `TrainingError`.

    Source: Sennrich et al. 2016 (BPE), Radford et al. 2019 (over bytes); the expression that cuts words is GPT-4's.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = PreTokenization((SPLITS[config.pre_tokenizer],)).build()
    backend.decoder = decoders.ByteLevel()
    special = list(dict.fromkeys((END_OF_TEXT, START_OF_TURN, END_OF_TURN, *config.special_tokens)))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        max_token_length=LONGEST_TOKEN,
        show_progress=False,
    )
    reader = _Reader(texts, config.max_bytes, on_progress)
    backend.train_from_iterator(iter(reader), trainer)
    if not reader.read:
        raise TrainingError("there is no text to train a tokenizer on: every source is empty")
    found = backend.get_vocab_size()
    if found < config.vocab_size:
        raise TrainingError(
            f"{reader.read:,} bytes of text give {found:,} tokens that occur {config.min_frequency} times or more, not "
            f"the {config.vocab_size:,} wanted: add text, or lower vocab_size or min_frequency"
        )
    return {
        "tokenizer.json": backend.to_str(pretty=True) + "\n",
        "tokenizer_config.json": json.dumps(_tokenizer_config(special), indent=2, ensure_ascii=False) + "\n",
    }


def write_files(files: Mapping[str, str], folder: Path) -> None:
    """Writes each of `files` into `folder` under a temporary name and renames it. Raises `TrainingError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", dir=folder, prefix=f".{name}.", suffix=".partial", delete=False
            ) as file:
                partial = Path(file.name)
                try:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                    partial.chmod(0o644)
                    partial.replace(folder / name)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
    except OSError as error:
        raise TrainingError(f"the tokenizer cannot be written to {folder}: {error}") from error


class _Reader:
    """Texts in pieces, counted, up to a limit."""

    def __init__(self, texts: Iterable[str], max_bytes: int, on_progress: Progress) -> None:
        self.read = 0
        self._texts = texts
        self._max_bytes = max_bytes
        self._on_progress = on_progress

    def __iter__(self) -> Iterator[str]:
        for text in self._texts:
            for piece in _pieces(text):
                if self.read >= self._max_bytes:
                    return
                self.read += len(piece.encode("utf-8", "replace"))
                yield piece.encode("utf-8", "replace").decode() if not piece.isascii() else piece
                self._on_progress(self.read)


def _pieces(text: str) -> Iterator[str]:
    """`text` in pieces of about `PIECE` characters that end with a line where one ends."""
    start = 0
    while start < len(text):
        stop = start + PIECE
        if stop < len(text):
            stop = text.rfind("\n", start, stop) + 1 or stop
        yield text[start:stop]
        start = stop


def _tokenizer_config(special: list[str]) -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,  # what a document begins with, and what an empty prompt is
        "eos_token": END_OF_TURN,  # what generation stops at
        "pad_token": END_OF_TEXT,
        "additional_special_tokens": special,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1_000_000_000,  # the model's business
        "chat_template": CHATML.read_text(encoding="utf-8"),
    }
