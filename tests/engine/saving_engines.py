"""Engines that save their preambles, over the fake runner, which gives wrong answers, or none, from wrong blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from fireside.engine.engine import Engine
from fireside.engine.saved_prefixes import SavedPrefixes
from tests.engine.driving import Result, request, run
from tests.engine.fake_runner import FakeRunner, greedy_reference

SIZE = 4
VOCAB = 2000
PREAMBLE = tuple(range(500, 500 + 3 * SIZE))
CONVERSATION = (1401, 1503, 1607, 1709, 1811)
PROMPT = PREAMBLE + CONVERSATION


def start(
    path: Path, *, fingerprint: str = "same", max_tokens: int = 64, blocks: int = 64, vocab: int = VOCAB
) -> Engine:
    runner = FakeRunner(num_blocks=blocks, block_size=SIZE, vocab_size=vocab)
    engine = Engine(runner, max_context=256, saved_prefixes=SavedPrefixes(path, fingerprint, max_tokens))
    engine.check_integrity()
    return engine


def ask(engine: Engine, prompt: Sequence[int] = PROMPT, *, preamble: int = len(PREAMBLE), tokens: int = 3) -> Result:
    """An answer, which is checked against what it must be."""
    result = run(engine, request("r", prompt, max_tokens=tokens, preamble=preamble))["r"]
    assert result.token_ids == greedy_reference(tuple(prompt), tokens, engine.runner.vocab_size)
    return result


def save(path: Path, *prompts: Sequence[int], **values: Any) -> None:
    """Writes the file as an engine does that answers these, each all preamble but for its last token."""
    engine = start(path, **values)
    for prompt in prompts or [(*PREAMBLE, 1)]:
        ask(engine, prompt, preamble=len(prompt) - 1)
    engine.close()


def saved_paths(path: Path) -> list[tuple[int, ...]]:
    """The tokens from the root to each saved block, in the order of the file."""
    tensors = load_file(path)
    paths: list[tuple[int, ...]] = []
    for parent, tokens in zip(tensors["parents"].tolist(), tensors["tokens"].tolist(), strict=True):
        paths.append((*(paths[parent] if parent >= 0 else ()), *tokens))
    return paths
