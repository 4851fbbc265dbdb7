"""What a tokenizer is trained on: training documents alone, of every source its share, cleaned."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from fireside.data.config import DataConfig
from fireside.data.prepare import prepare
from fireside.data.shards import Flag, open_dataset
from fireside.data.training_texts import training_texts
from tests.data.files import chat, prose, write_jsonl
from tests.tokenizers.small import small_parts

TINY = {"quality": None, "repetition": None}


def data(folder: Path, texts: Iterable[str], talks: Iterable[Any] = (), **changes: Any) -> DataConfig:
    write_jsonl(folder / "texts.jsonl", [{"text": text} for text in texts])
    write_jsonl(folder / "chats.jsonl", [{"messages": talk} for talk in talks])
    sources = [{"name": name, "path": str(folder / f"{name}.jsonl")} for name in ("texts", "chats")]
    weights = changes.pop("weights", (None, None))
    sources = [source | {"weight": weight} for source, weight in zip(sources, weights, strict=True)]
    return DataConfig.model_validate({"sources": sources, "processes": 1} | changes)


def test_they_are_those_that_prepare_trains_on(tmp_path: Path) -> None:
    texts = [f"{prose(n)} Call me at ada@example.org." for n in range(60)]
    talks = [chat(f"Question {n}?", prose(n + 100, 12)) for n in range(40)]
    config = data(tmp_path, [*texts, "Too short."], talks, validation_fraction=0.3)
    tokenizer, template = small_parts()
    prepare(config, tokenizer, tmp_path / "set", template=template)
    written, spoken = open_dataset(tmp_path / "set").sources("train")
    expected = {tokenizer.decode(written.ids(n)[1:-1].tolist()) for n in range(len(written.lengths))}
    assert 30 < len(expected) < 55
    for n in range(len(spoken.lengths)):
        ids, flags = spoken.ids(n), spoken.flags(n)
        expected.add(tokenizer.decode(ids[flags & Flag.TARGET > 0].tolist()))
    found = list(training_texts([config]))
    assert {text for text in found if not text.startswith("Question")} == expected
    assert all("[email]" in text for text in found[:1])
    assert list(training_texts([config])) == found


def test_unicode_is_repaired(tmp_path: Path) -> None:
    config = data(tmp_path, ["caf\u00c3\u00a9 au lait"], cleaning=TINY, validation_fraction=0)
    assert list(training_texts([config])) == ["caf\u00e9 au lait"]


@pytest.mark.parametrize(("weights", "talking"), [((None, None), 0.2), ((1, 1), 0.5), ((None, 0.7), 0.7)])
def test_the_beginning_is_a_sample_of_the_whole(tmp_path: Path, weights: Any, talking: float) -> None:
    """Of texts four times as large as the chats, which come last."""
    talks = [chat(f"Q{n}?", "x" * 900) for n in range(100)]
    config = data(tmp_path, ["y" * 4000] * 100, talks, cleaning=TINY, validation_fraction=0, weights=weights)
    beginning = list(islice(training_texts([config]), 60))
    said = sum(len(text) for text in beginning if text[0] != "y")
    assert said / sum(map(len, beginning)) == pytest.approx(talking, abs=0.08)
    assert len(list(training_texts([config]))) == 300


def test_stages_have_shares_by_size(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    one = data(tmp_path, ["y" * 4000] * 30, cleaning=TINY, validation_fraction=0)
    two = data(tmp_path / "more", ["z" * 4000] * 90, cleaning=TINY, validation_fraction=0, weights=(9, 1))
    beginning = [text[0] for text in islice(training_texts([one, two]), 40)]
    assert 7 < beginning.count("y") < 14
