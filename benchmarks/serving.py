"""How fast is the engine, beside its peers? Ours and theirs take turns in one run, on the same weights and threads.

    .venv/bin/python -m benchmarks.serving [--model MODEL] [--peers VENV] [--rounds 5] [--json FILE]

`make peers` installs the peers (llama.cpp compiles for some minutes). Every contender is loaded in a process of its own
and idle while another is measured. Prompts are random token ids, new for every round and the same for everybody, so
that nothing is found in a cache unasked. Everybody answers greedily, and no answer ends early.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lineup import OURS, ROOT, Child, ContenderError, Entry, entries
from benchmarks.machine import Machine, copy_bandwidth

from fireside.engine.resources import available_cores
from fireside.errors import FiresideError
from fireside.models.local import DEFAULT_ALIAS, resolve_model
from fireside.settings import load_settings
from fireside.tokenizers.tokenizer import Tokenizer

_SETTLE_SECONDS = 0.1  # in which the threads of whoever was measured last go to sleep
_SAMPLE = "The capital of France is Paris. The capital of Italy is Rome. The capital of Japan is"
_SAMPLE_TOKENS = 16


@dataclass(frozen=True)
class Case:
    """`prompt` tokens for each of `streams`, and `generated` tokens from each.

    again: the same prompt a second time, which counts. fresh: in a process that has only begun.
    """

    title: str
    prompt: int
    generated: int = 1
    streams: int = 1
    unit: str = "tokens/s"  # or ms or s, of which fewer are better
    again: bool = False
    fresh: bool = False
    ours_only: bool = False

    @property
    def is_decode(self) -> bool:
        return self.generated > 1


CASES = {
    "prefill": Case("prefill of 512 tokens", 512),
    "decode-32": Case("decode, 1 stream, from context 32", 32, 64),
    "decode-1024": Case("decode, 1 stream, from context 1,024", 1024, 64),
    "streams-8": Case("decode, 8 streams, from context 32", 32, 64, streams=8),
    "streams-32": Case("decode, 32 streams, from context 32", 32, 64, streams=32),
    "first-token-cold": Case("first token after a new prompt of 400", 400, unit="ms", ours_only=True),
    "first-token-cached": Case("first token after that prompt again", 400, unit="ms", again=True, ours_only=True),
    "cold-start": Case("first token of a new process, which loads the model", 32, unit="s", fresh=True),
}


def measure(child: Child, case: Case, prompts: list[list[int]]) -> float:
    """One figure in the case's unit. Raises `ContenderError`."""
    generation = child.generate(prompts, case.generated)
    if generation.cached_tokens:
        raise ContenderError(f"{generation.cached_tokens} tokens of a new prompt came from a cache")
    if any(len(ids) != case.generated for ids in generation.token_ids):
        raise ContenderError(f"answers of {[len(ids) for ids in generation.token_ids]} tokens, not {case.generated}")
    if case.again:
        generation = child.generate(prompts, case.generated)
        if not generation.cached_tokens:
            raise ContenderError("nothing of a prompt that was just computed came from the cache")
    if case.is_decode:
        return decode_rate(generation.times)
    first = generation.times[0][0]
    return case.prompt / first if case.unit == "tokens/s" else first * 1e3


def decode_rate(times: list[list[float]]) -> float:
    """Tokens per second while every stream was answering: after the last one's first token, to the first one's last."""
    start, end = max(stream[0] for stream in times), min(stream[-1] for stream in times)
    return sum(start < time <= end for stream in times for time in stream) / (end - start)


@dataclass
class Results:
    """values: by case and contender, one per round. failures: who left, and why."""

    contenders: dict[str, dict[str, Any]] = field(default_factory=dict)
    copy_bandwidth: list[float] = field(default_factory=list)  # bytes per second
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


class Run:
    """All contenders through all cases. A peer that fails leaves the run; when we do, it ends."""

    def __init__(self, lineup: list[Entry], tokenizer: Tokenizer, threads: int, rounds: int) -> None:
        self.results = Results()
        self._lineup = {entry.name: entry for entry in lineup}
        self._tokenizer, self._threads, self._rounds = tokenizer, threads, rounds
        self._random = random.Random(0)
        self._children: dict[str, Child] = {}

    def start(self, stack: ExitStack) -> None:
        """Loads everybody. All continue the same text, to show that all compute the same model."""
        sample = self._tokenizer.encode(_SAMPLE)
        for name, entry in self._lineup.items():
            _say(f"loading {name}")
            with self._excluding(name):
                child = Child(entry, self._threads)
                stack.callback(child.close)
                (answer,) = child.generate([sample], _SAMPLE_TOKENS).token_ids
                about = {"weights": entry.weights, "sample": self._tokenizer.decode(answer)}
                self.results.contenders[name] = child.about | about
                self._children[name] = child

    def take(self, name: str, case: Case) -> None:
        values: dict[str, list[float]] = {n: [] for n in self._children if n == OURS or not case.ours_only}
        self.results.values[name] = values
        for number in range(1 if case.fresh else 0, self._rounds + 1):  # 0 warms up: buffers, kernels made to size
            prompts = [
                self._random.choices(range(self._tokenizer.vocab_size), k=case.prompt) for _ in range(case.streams)
            ]
            if number and case.is_decode:
                self.results.copy_bandwidth.append(copy_bandwidth(self._threads))
            for contender in values if number % 2 else reversed(values):
                if contender not in self._children:
                    continue
                _say(f"{name}, round {number} of {self._rounds}: {contender}")
                time.sleep(_SETTLE_SECONDS)
                with self._excluding(contender):
                    value = (
                        self._cold_start(contender, prompts)
                        if case.fresh
                        else measure(self._children[contender], case, prompts)
                    )
                    if number:
                        values[contender].append(value)

    def _cold_start(self, contender: str, prompts: list[list[int]]) -> float:
        started = time.perf_counter()
        child = Child(self._lineup[contender], self._threads)
        try:
            child.generate(prompts, 1)
            return time.perf_counter() - started
        finally:
            child.close()

    @contextmanager
    def _excluding(self, contender: str) -> Iterator[None]:
        try:
            yield
        except ContenderError as error:
            if contender == OURS:
                raise
            self._children.pop(contender, None)
            self.results.failures[contender] = str(error)


def report(results: Results, cases: Mapping[str, Case]) -> Iterator[str]:
    """What a person reads, line by line."""
    yield f"{'contender':20} {'weights':10} {'cache':12} version"
    for name, about in results.contenders.items():
        yield f"{name:20} {about['weights']:10} {about['cache']:12} {about['version']}"
    yield f"\n{_SAMPLE!r} goes on:"
    for name, about in results.contenders.items():
        yield f"  {name:20} {about['sample']!r}"
    for name, reason in results.failures.items():
        yield f"{name} left the run: {reason}"
    if results.copy_bandwidth:
        yield f"copy bandwidth with as many threads: {_spread([b / 1e9 for b in results.copy_bandwidth])} GB/s"
    for name, values in results.values.items():
        case = cases[name]
        yield f"\n{case.title} ({case.unit}: median, least - most; how many times faster ours is)"
        for contender, measured in values.items():
            if not measured:
                continue
            line = f"  {contender:20} {_spread(measured)}"
            if contender != OURS:
                # By rounds, so that what slows the whole machine for a while slows both.
                pairs = zip(values[OURS], measured, strict=False)
                ratio = median(a / b if case.unit == "tokens/s" else b / a for a, b in pairs)
                line += f"   ours: {ratio:.2f} x"
            elif case.is_decode and (achieved := achieved_bandwidth(results.contenders[OURS], case, measured)):
                share = achieved / median(results.copy_bandwidth)
                line += f"   {achieved / 1e9:.1f} GB/s, {share:.0%} of the copy bandwidth"
            yield line


def achieved_bandwidth(about: Mapping[str, Any], case: Case, rates: list[float]) -> float | None:
    """Bytes per second of weights (once a step) and of keys and values (of every stream) that decoding read."""
    if about["weight_bytes"] is None:
        return None
    context = case.prompt + case.generated / 2  # on average
    per_token: float = about["weight_bytes"] / case.streams + about["cache_bytes_per_token"] * context
    return per_token * median(rates)


def _spread(values: list[float]) -> str:
    digits = 0 if min(values) >= 1000 else 1 if min(values) >= 10 else 2
    middle, least, most = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"{middle:>8}  ({least} - {most})"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_ALIAS, help="name or path; the default model if not given")
    parser.add_argument(
        "--peers", type=Path, default=ROOT / ".peers" / "serving", help="the peers' virtual environment"
    )
    parser.add_argument("--only", nargs="+", metavar="CONTENDER", help="ours, and those whose names begin so")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=available_cores(), help="of every contender")
    parser.add_argument("--quick", action="store_true", help="one round, short answers: to see that it runs")
    parser.add_argument("--json", type=Path, help="write every single figure there")
    options = parser.parse_args()

    cases = {name: CASES[name] for name in options.cases}
    rounds = options.rounds
    if options.quick:
        rounds, cases = 1, {name: replace(case, generated=min(case.generated, 8)) for name, case in cases.items()}
    model = resolve_model(options.model, load_settings())
    machine = Machine.here()
    with ExitStack() as stack:
        lineup = stack.enter_context(entries(model, options.peers, options.only))
        if len(lineup) == 1:
            _say(f"no peers: {options.peers} has none of them (make peers) or --only leaves none")
        run = Run(lineup, model.load_tokenizer(), options.threads, rounds)
        run.start(stack)
        for name, case in cases.items():
            run.take(name, case)
    print(f"{machine}\n{model.name}, {options.threads} threads, {rounds} rounds")
    print(*report(run.results, cases), sep="\n")
    if options.json:
        facts = {"machine": asdict(machine), "model": model.name, "threads": options.threads, "rounds": rounds}
        options.json.write_text(json.dumps(facts | asdict(run.results), indent=1) + "\n")


if __name__ == "__main__":
    try:
        main()
    except (FiresideError, ContenderError) as error:
        raise SystemExit(f"benchmarks.serving: {error}") from None
