"""Engine and decoder together against transformers' `generate`, one request at a time there, all at once here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fireside.engine.engine import Engine
from fireside.engine.torch_runner import TorchRunner
from tests.engine.driving import request, run
from tests.models.families import VOCAB_SIZE, ours, random_ids, reference

MAX_TOKENS = 12


@pytest.mark.parametrize("family", ["smollm2", "mistral", "qwen3"])
def test_greedy_answers_are_those_of_transformers(family: str, tmp_path: Path):
    model = reference(family)
    runner = TorchRunner(ours(model, tmp_path), num_blocks=20, block_size=4)
    engine = Engine(runner, max_context=64, max_batch_tokens=10)
    start = random_ids(rows=1, tokens=9)[0].tolist()
    prompts = [start + random_ids(rows=1, tokens=2 + 5 * i, seed=i)[0].tolist() for i in range(5)]
    expected, scores = [], []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        whole = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=MAX_TOKENS, eos_token_id=None
        )
        expected.append(tuple(whole[0, len(prompt) :].tolist()))
        with torch.no_grad():
            logprobs = model(whole).logits[0].log_softmax(-1)
        scores.append(logprobs[:-1].gather(1, whole[0, 1:, None]).squeeze(1).tolist())

    sampling = {"max_tokens": MAX_TOKENS, "logprobs": 1, "prompt_logprobs": 1}
    results = run(engine, *(request(f"r{i}", prompt, **sampling) for i, prompt in enumerate(prompts)))
    again = run(engine, *(request(f"r{i}", prompt, max_tokens=MAX_TOKENS) for i, prompt in enumerate(prompts)))

    stats = engine.stats
    assert stats.preemptions > 0 and stats.cache_hit_tokens > 0, "neither was put to the test"
    for i in range(len(prompts)):
        result = results[f"r{i}"]
        assert result.token_ids == again[f"r{i}"].token_ids == expected[i]
        assert max(result.token_ids) < VOCAB_SIZE
        scored = [*(result.prompt_logprobs or ())[1:], *result.logprobs]
        assert [one.logprob for one in scored if one] == pytest.approx(scores[i], abs=1e-4)
