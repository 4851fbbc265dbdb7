"""How an engine is measured in a process of its own: one JSON object per line, in on stdin and out on stdout.

The first line in is an `Options`, the first out what the contender says of itself. From then on every line in is
`{"prompts": [[token id, ...], ...], "max_tokens": n}`: one stream per prompt, all of the same length, all submitted at
once, greedy, none ended by an eos token. Every line out is a `Generation`. Times are taken here, beside the engine,
so that pipes and JSON are in none of them. A closed stdin ends the process; so does any error, with a traceback.

A contender runs in an environment that has its own engine and no Fireside: this file needs the standard library alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Options:
    """model: a GGUF file or a Hugging Face folder."""

    model: str
    threads: int


@dataclass
class Generation:
    """times: per stream, seconds from submission to each of its tokens. cached_tokens: of all prompts together."""

    times: list[list[float]]
    token_ids: list[list[int]]
    cached_tokens: int = 0
    _started: float = field(default_factory=time.perf_counter, repr=False)

    @classmethod
    def of(cls, streams: int) -> Generation:
        """The clock runs from here."""
        return cls([[] for _ in range(streams)], [[] for _ in range(streams)])

    def add(self, stream: int, token_ids: Sequence[int]) -> None:
        """These have just become known."""
        now = time.perf_counter() - self._started
        self.times[stream] += [now] * len(token_ids)
        self.token_ids[stream] += token_ids

    def to_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}


class Contender(Protocol):
    about: dict[str, Any]  # "version", "cache" (the type of keys and values), and what else a reader must know

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation: ...


def serve(load: Callable[[Options], Contender]) -> None:
    """Runs the process."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get among the replies
    contender = load(Options(**json.loads(sys.stdin.readline())))
    print(json.dumps(contender.about), file=replies)
    for line in sys.stdin:
        print(json.dumps(contender.generate(**json.loads(line)).to_dict()), file=replies)
