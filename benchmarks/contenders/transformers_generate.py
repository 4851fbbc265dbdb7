"""Hugging Face transformers: `generate` in bfloat16, as its documentation has it."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from benchmarks.contenders.protocol import Generation, Options, serve
from transformers import AutoModelForCausalLM, StoppingCriteria


class _Watch(StoppingCriteria):
    """Asked after every step whether to stop: says no, and notes the tokens."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        for stream, token_id in enumerate(input_ids[:, -1].tolist()):
            self._generation.add(stream, [token_id])
        return torch.zeros(len(input_ids), dtype=torch.bool)


class TransformersGenerate:
    def __init__(self, options: Options) -> None:
        torch.set_num_threads(options.threads)
        model: Any = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.bfloat16)
        self._model = model.eval()
        settings = model.generation_config
        settings.eos_token_id = None
        settings.pad_token_id = 0  # never used, and asked for
        settings.do_sample = False
        self.about = {
            "version": f"{transformers.__version__} (torch {torch.__version__})",
            "cache": "bfloat16",
        }

    @torch.inference_mode()
    def generate(self, prompts: list[list[int]], max_tokens: int) -> Generation:
        ids = torch.tensor(prompts)
        generation = Generation.of(len(prompts))
        self._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=max_tokens,
            stopping_criteria=[_Watch(generation)],
        )
        return generation


if __name__ == "__main__":
    serve(TransformersGenerate)
