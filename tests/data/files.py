"""Small files of every kind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


WORDS = [
    "the",
    "be",
    "to",
    "of",
    "and",
    "that",
    "have",
    "with",
    "river",
    "stone",
    "mountain",
    "light",
    "morning",
    "window",
    "garden",
    "summer",
    "winter",
    "letter",
    "story",
    "travel",
    "quiet",
    "bright",
    "small",
    "great",
    "under",
    "over",
    "between",
    "carry",
    "follow",
    "answer",
    "remember",
    "paper",
    "market",
    "bread",
    "water",
    "house",
    "road",
]


def prose(seed: int, words: int = 120) -> str:
    """Sentences of which no two seeds share many."""
    state, sentences, sentence = seed * 7919 + 17, [], []
    for _ in range(words):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        sentence.append(WORDS[(state >> 33) % len(WORDS)])
        if (state >> 20) % 9 == 0 and len(sentence) > 4:
            sentences.append(" ".join(sentence).capitalize() + ".")
            sentence = []
    return " ".join([*sentences, " ".join(sentence).capitalize() + "."])


def chat(*texts: str) -> list[dict[str, str]]:
    """A user and an assistant in turns."""
    return [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
