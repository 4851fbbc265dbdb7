"""Fireside's engine, loaded as its worker loads it, driven by `submit` and `step` without the process around it."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from benchmarks.contenders.protocol import Generation, Options, serve

from fireside import __version__
from fireside.engine.loading import load_engine
from fireside.engine.messages import GenerationOutput, GenerationRequest, SamplingParams, WorkerConfig
from fireside.models.config import ModelConfig
from fireside.models.local import open_model


class FiresideEngine:
    def __init__(self, options: Options) -> None:
        # Guessing is a question of its own (benchmarks/speculation.py): random prompts make answers that repeat.
        config = WorkerConfig(model=options.model, name="model", threads=options.threads, speculative_tokens=0)
        self._engine, info = load_engine(config)
        runner = self._engine.runner
        cache_bytes = 4 if info.dtype == "float32" else 2
        self.about = {
            "version": f"{__version__} ({info.backend})",
            "cache": "float32" if cache_bytes == 4 else "bfloat16",
            # For the bandwidth that a decode step achieves; only the native runner knows what it reads.
            "weight_bytes": getattr(runner, "weight_bytes", None),
            "cache_bytes_per_token": _cached_numbers(open_model(Path(options.model)).config) * cache_bytes,
        }
        self._ids = count()

    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation:
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)  # no stop ids: nothing ends it early
        streams = {str(next(self._ids)): index for index in range(len(prompts))}
        generation = Generation.of(len(prompts))
        for request_id, index in streams.items():
            self._engine.submit(GenerationRequest(id=request_id, prompt_ids=tuple(prompts[index]), sampling=sampling))
        while self._engine.has_work:
            for output in self._engine.step():
                if not isinstance(output, GenerationOutput):
                    raise RuntimeError(output.reason)
                generation.add(streams[output.request_id], output.token_ids)
                if output.finish_reason is not None:
                    generation.cached_tokens += output.cached_tokens
        return generation


def _cached_numbers(config: ModelConfig) -> int:
    """Keys and values of one token."""
    return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim


if __name__ == "__main__":
    serve(FiresideEngine)
