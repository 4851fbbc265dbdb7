"""What does guessing tokens save? The same requests with and without, taking turns in one run, to the same tokens.

    .venv/bin/python -m benchmarks.speculation [--model MODEL] [--draft-model MODEL] [--rounds 5] [--json FILE]

One stream, greedy, at most 256 tokens, timed from the first token on. Prompts are in the prefix cache, and recent
answers are not guessed from: the second round would find its whole answer there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.machine import Machine
from benchmarks.requests import REQUESTS
from msgspec.structs import replace

from fireside.engine.engine import Engine
from fireside.engine.loading import load_engine
from fireside.engine.messages import GenerationOutput, GenerationRequest, SamplingParams, WorkerConfig
from fireside.engine.resources import available_cores
from fireside.errors import FiresideError
from fireside.models.local import DEFAULT_ALIAS, LocalModel, resolve_model
from fireside.settings import load_settings
from fireside.tokenizers.chat_template import ChatTemplate

_TOKENS = 256


@dataclass(frozen=True)
class Answer:
    token_ids: list[int]
    passes: int
    seconds: float  # from its first token to its last


@dataclass(frozen=True)
class Comparison:
    """One request. plain, guessing: tokens per second, one per round."""

    kind: str
    tokens: int
    plain_passes: int
    guessing_passes: int
    plain: list[float]
    guessing: list[float]

    @property
    def ratio(self) -> float:
        return median(b / a for a, b in zip(self.plain, self.guessing, strict=True))


class Contender:
    def __init__(self, model: LocalModel, config: WorkerConfig) -> None:
        self._engine: Engine = load_engine(config)[0]
        self._stops = tuple(model.generation.eos_token_ids)
        self._ids = count()

    def answer(self, prompt_ids: tuple[int, ...]) -> Answer:
        sampling = SamplingParams(max_tokens=_TOKENS, temperature=0.0, stop_token_ids=self._stops)
        request = GenerationRequest(id=str(next(self._ids)), prompt_ids=prompt_ids, sampling=sampling)
        self._engine.submit(request)
        first_step, token_ids, started = self._engine.stats.steps, list[int](), 0.0
        while self._engine.has_work:
            for output in self._engine.step():
                if not isinstance(output, GenerationOutput):
                    raise RuntimeError(output.reason)
                started = started or time.perf_counter()
                token_ids += output.token_ids
        return Answer(token_ids, self._engine.stats.steps - first_step, time.perf_counter() - started)


def compare(kind: str, prompt_ids: tuple[int, ...], plain: Contender, guessing: Contender, rounds: int) -> Comparison:
    """Raises `RuntimeError` if guessing changes the answer."""
    rates: tuple[list[float], list[float]] = [], []
    answers = [contender.answer(prompt_ids) for contender in (plain, guessing)]  # fills the prefix cache
    for _ in range(rounds):
        answers = [contender.answer(prompt_ids) for contender in (plain, guessing)]
        if answers[0].token_ids != answers[1].token_ids:
            raise RuntimeError("guessing changed the answer")
        for answer, rate in zip(answers, rates, strict=True):
            rate.append(len(answer.token_ids) / answer.seconds)
    return Comparison(kind, len(answers[0].token_ids), answers[0].passes, answers[1].passes, *rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_ALIAS, help="name or path; the default model if not given")
    parser.add_argument("--draft-model", help="name or path of a smaller one with the same tokenizer")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--json", type=Path, help="write every single figure there")
    options = parser.parse_args()

    settings = load_settings()
    model = resolve_model(options.model, settings)
    draft = str(resolve_model(options.draft_model, settings).path) if options.draft_model else None
    config = WorkerConfig(
        model=str(model.path), name=model.name, threads=options.threads, kv_cache_memory=1 << 29,
        speculative_recent=False, draft_model=draft,
    )  # fmt: skip
    plain, guessing = Contender(model, replace(config, speculative_tokens=0)), Contender(model, config)
    if model.chat_template is None:
        raise SystemExit(f"benchmarks.speculation: {model.name} has no chat template")
    tokenizer, template = model.load_tokenizer(), ChatTemplate(model.chat_template, bos_token=None, eos_token=None)
    compared = []
    print(f"{Machine.here()}\n{model.name}, {options.threads} threads, {options.rounds} rounds")
    print(f"{'request':12}{'tokens':>8}{'passes':>14}{'tokens/s without':>18}{'with':>8}{'ratio':>8}")
    for kind, texts in REQUESTS.items():
        for text in texts:
            print(f"{kind}: {text[:60]}", file=sys.stderr)
            prompt_ids = tuple(template.encode(tokenizer, [{"role": "user", "content": text}]))
            one = compare(kind, prompt_ids, plain, guessing, options.rounds)
            compared.append(one)
            passes = f"{one.plain_passes} -> {one.guessing_passes}"
            print(
                f"{kind:12}{one.tokens:8}{passes:>14}{median(one.plain):18.0f}{median(one.guessing):8.0f}{one.ratio:8.2f}"
            )
    if options.json:
        facts = {"machine": asdict(Machine.here()), "model": model.name, "draft_model": draft}
        options.json.write_text(json.dumps(facts | {"requests": [asdict(one) for one in compared]}, indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except FiresideError as error:
        raise SystemExit(f"benchmarks.speculation: {error}") from None
