"""Preambles on disk: what is written and what never is, in which order, and that it comes back exactly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fireside.engine import backend
from fireside.engine.loading import load_engine
from fireside.engine.messages import WorkerConfig
from fireside.kernels.cpu.build import NativeUnavailable
from tests.engine.driving import Result, request, run
from tests.engine.saving_engines import CONVERSATION, PREAMBLE, PROMPT, SIZE, ask, save, saved_paths, start
from tests.engine.tiny_model import write_tiny_model
from tests.kernels.native import needs_compiler


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prefixes" / "fake.safetensors"


# What is kept.


def test_the_first_answer_after_a_restart_starts_warm(path: Path) -> None:
    first = start(path)
    assert ask(first).cached_tokens == 0
    first.close()
    second = start(path)
    assert second.stats.blocks_cached == 3
    assert ask(second).cached_tokens == len(PREAMBLE)
    assert second.runner.num_tokens == len(CONVERSATION) + 2  # and two of the answer
    assert ask(second, (*PREAMBLE, 7, 8, 9)).cached_tokens == len(PREAMBLE)


@needs_compiler
@pytest.mark.parametrize("values", [{}, {"dtype": "bfloat16"}], ids=["as stored", "bfloat16"])
def test_native_answers_are_the_same_to_the_bit(tmp_path: Path, values: dict[str, Any]) -> None:
    cold, warm = restart(tmp_path, **values)
    assert (warm.token_ids, warm.logprobs) == (cold.token_ids, cold.logprobs)


def test_torch_answers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "load_library", lambda: (_ for _ in ()).throw(NativeUnavailable("off")))
    cold, warm = restart(tmp_path, dtype="float32")
    assert warm.token_ids == cold.token_ids
    differences = [abs(a.logprob - b.logprob) for a, b in zip(cold.logprobs, warm.logprobs, strict=True)]
    assert max(differences) < 1e-4


def restart(folder: Path, **values: Any) -> tuple[Result, Result]:
    """The same request to a model of its own, before and after."""
    config = WorkerConfig(
        model=str(write_tiny_model(folder / "model")), name="ti/ny", device="cpu", max_context=256,
        prefix_folder=str(folder / "prefixes"), **values,
    )  # fmt: skip
    results = []
    for cached in (0, 96):
        engine, _ = load_engine(config)
        asked = request("r", [(7 * i) % 256 for i in range(110)], max_tokens=20, preamble=100, logprobs=5)
        results.append(run(engine, asked)["r"])
        assert results[-1].cached_tokens == cached
        engine.close()
    assert {file.name[:6] for file in (folder / "prefixes").glob("*.safetensors")} == {"ti_ny-"}
    return results[0], results[1]


@needs_compiler
def test_each_setting_of_types_has_a_file_of_its_own(tmp_path: Path) -> None:
    restart(tmp_path)
    restart(tmp_path, dtype="bfloat16")
    assert len(list((tmp_path / "prefixes").glob("*.safetensors"))) == 2


# What is not.


def test_nothing_of_a_conversation_is_written(path: Path) -> None:
    prompt = PREAMBLE[:10] + CONVERSATION + (1913, 1917)
    engine = start(path)
    answer = ask(engine, prompt, preamble=10, tokens=9).token_ids
    engine.close()
    assert saved_paths(path) == [prompt[:4], prompt[:8]], "the third block is half conversation"
    raw = path.read_bytes()
    for token in (*prompt[8:], *answer):
        assert token.to_bytes(4, "little") not in raw
    assert prompt[0].to_bytes(4, "little") in raw


def test_without_a_preamble_there_is_no_file(path: Path) -> None:
    engine = start(path)
    ask(engine, preamble=0)
    ask(engine, preamble=SIZE - 1)
    engine.close()
    assert not path.parent.exists()


def test_what_was_a_conversation_to_one_request_can_be_anothers_preamble(path: Path) -> None:
    engine = start(path)
    ask(engine, preamble=0)
    assert ask(engine, preamble=2 * SIZE).cached_tokens > 0
    engine.close()
    assert saved_paths(path) == [PREAMBLE[:4], PREAMBLE[:8]]


def test_a_preamble_in_use_is_saved_too(path: Path) -> None:
    engine = start(path)
    engine.submit(request("r", PROMPT, max_tokens=50, preamble=len(PREAMBLE)))
    engine.step()
    assert engine.stats.running == 1
    engine.close()
    assert len(saved_paths(path)) == 3


def test_it_is_readable_by_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        save(path)
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        path.name: 0o600, f".{path.name}.lock": 0o600
    }  # fmt: skip


# How much, and in which order.


def test_the_most_recently_used_are_saved_first_and_evicted_last(path: Path) -> None:
    old, middle, new = (tuple(range(start, start + 2 * SIZE)) for start in (100, 200, 300))
    save(path, (*middle, 1), (*old, 1), (*new, 1), (*middle, 2), max_tokens=5 * SIZE)
    assert saved_paths(path) == [middle[:4], middle, new[:4], new, old[:4]]
    cache = start(path, max_tokens=5 * SIZE).blocks.cache
    tokens = {node.block: node.tokens for node in cache.nodes()}
    assert [tokens[cache.evict()] for _ in range(5)] == [old[:4], new[4:], new[:4], middle[4:], middle[:4]]


preambles = st.lists(st.lists(st.integers(0, 1), min_size=SIZE, max_size=4 * SIZE), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(preambles, st.integers(1, 12), st.integers(2, 12))
def test_any_trie_comes_back(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[list[int]], kept: int, blocks: int
) -> None:
    """Blocks of two tokens' alphabet, so that prompts share prefixes; a next engine with room for fewer of them."""
    path = tmp_path_factory.mktemp("trie") / "fake.safetensors"
    save(path, *([*prompt, 9] for prompt in prompts), max_tokens=kept * SIZE, vocab=16)
    known = {tuple(prompt[:end]) for prompt in prompts for end in range(SIZE, len(prompt) + 1, SIZE)}
    paths = saved_paths(path)
    assert len(paths) == len(set(paths)) == min(kept, len(known))
    assert set(paths) <= known
    engine = start(path, max_tokens=kept * SIZE, blocks=blocks, vocab=16)
    assert engine.stats.blocks_cached == min(len(paths), blocks)
    held = set(paths[:blocks])
    latest = prompts[-1]
    warm = max((len(path) for path in held if tuple(latest[: len(path)]) == path), default=0)
    if len(latest) + 2 <= engine.max_context:
        assert ask(engine, [*latest, 9], preamble=0, tokens=1).cached_tokens == warm


def test_a_file_that_has_it_all_is_not_written_again(path: Path) -> None:
    save(path)
    before = path.stat()
    engine = start(path)
    ask(engine)
    engine.close()
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    path.unlink()
    engine.close()
    assert path.exists(), "it was removed meanwhile"
    engine = start(path)
    ask(engine, (5, 6, 7, 8, 9), preamble=SIZE)
    engine.close()
    assert saved_paths(path) == [(5, 6, 7, 8), *(PREAMBLE[:end] for end in (4, 8, 12))]
