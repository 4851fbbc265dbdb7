"""The gradient of a step, and resuming to the bit."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fireside.data.batch import Batch
from fireside.errors import DivergedError, RunError
from fireside.models.config import config_to_hf
from fireside.models.decoder import Decoder
from fireside.training.loop import Outcome, StepRecord
from fireside.training.objectives import next_token, next_token_within_documents
from fireside.training.recipe import OptimizerKind, TrainingConfig
from tests.training import runs

ROOT = Path(__file__).parents[2]


def gradients(model: Decoder) -> dict[str, torch.Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}


def test_loss_and_gradients_are_those_of_transformers(tmp_path: Path) -> None:
    """Its own mean over targets, on the whole batch at once; ours from micro-batches, through the loop."""
    ours = runs.decoder()
    theirs = LlamaForCausalLM(LlamaConfig(**config_to_hf(ours.config)))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    batch = runs.random_batch()
    hidden = theirs.model(input_ids=batch.input_ids).last_hidden_state
    expected = torch.nn.functional.cross_entropy(theirs.lm_head(hidden).flatten(0, 1), batch.labels.flatten())
    expected.backward()
    loop = runs.loop(ours, tmp_path)
    assert loop._backward(batch) == pytest.approx(expected.item(), rel=1e-5)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients(ours)[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", [next_token, next_token_within_documents])
def test_the_gradient_is_the_same_for_every_micro_batch(tmp_path: Path, objective: Any) -> None:
    found = []
    for micro_rows in (1, 2, 4, 6):  # 4: the last one is smaller
        model = runs.decoder()
        plan = replace(runs.PLAN, micro_rows=micro_rows)
        loss = runs.loop(model, tmp_path, plan=plan, objective=objective)._backward(runs.random_batch())
        found.append((loss, gradients(model)))
    for loss, grads in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for name, gradient in grads.items():
            torch.testing.assert_close(gradient, found[0][1][name], rtol=1e-4, atol=1e-7)


CONFIGS = {
    "adamw": TrainingConfig(),
    "muon": TrainingConfig(optimizer=OptimizerKind.MUON),
    "average": TrainingConfig(ema_decay=0.9),
    "recomputed": TrainingConfig(activation_checkpointing=True),
}


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resuming_gives_the_same_bits(tmp_path: Path, kind: str, precision: str) -> None:
    config = CONFIGS[kind]
    whole = runs.decoder()
    assert runs.loop(whole, tmp_path / "whole", config=config, precision=precision).run() is Outcome.FINISHED
    begun = runs.decoder()
    first = runs.loop(begun, tmp_path / "parts", config=config, precision=precision, stop=runs.stop_after(5))
    assert first.run() is Outcome.STOPPED
    resumed = runs.decoder(seed=99)  # nothing of it may matter
    second = runs.loop(resumed, tmp_path / "parts", config=config, precision=precision)
    assert second.resume() and second.state.step == 5
    assert second.run() is Outcome.FINISHED
    assert second.state.tokens == runs.PLAN.steps * runs.PLAN.tokens_per_step
    for (name, expected), found in zip(whole.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(expected, found), name
    untrained = runs.decoder()
    assert not torch.equal(untrained.model.norm.weight, whole.model.norm.weight)


def test_recomputing_layers_changes_nothing(tmp_path: Path) -> None:
    plain, recomputed = runs.decoder(), runs.decoder()
    runs.loop(plain, tmp_path / "a").run()
    runs.loop(recomputed, tmp_path / "b", config=CONFIGS["recomputed"]).run()
    for expected, found in zip(plain.parameters(), recomputed.parameters(), strict=True):
        assert torch.equal(expected, found)
    assert not any("forward" in vars(layer) for layer in recomputed.model.layers)  # the next stage is not recomputed


KILLED = """
import sys, torch
from pathlib import Path
from tests.training import runs
from dataclasses import replace
torch.set_num_threads(1)

class Slow(runs.RandomSource):
    def next_batch(self):
        import time
        time.sleep(0.05)
        return super().next_batch()

plan = replace(runs.PLAN, steps=40, save_every=2)
model = runs.decoder()
loop = runs.loop(model, Path(sys.argv[1]), plan=plan, source=Slow())
loop.resume()
print("going", loop.state.step, flush=True)
loop.run()
print(sum(float(p.double().abs().sum()) for p in model.parameters()).hex(), flush=True)
"""


def program(folder: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )


def test_a_kill_costs_one_interval_and_no_bit(tmp_path: Path) -> None:
    undisturbed = program(tmp_path / "whole")
    killed = program(tmp_path / "killed")
    assert killed.stdout is not None and killed.stdout.readline() == "going 0\n"
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "killed").glob("step-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(30) == -signal.SIGKILL
    (tmp_path / "killed" / ".step-00000099.partial").mkdir()  # what a kill while writing leaves
    said, _ = program(tmp_path / "killed").communicate(timeout=60)
    going, total = said.splitlines()
    assert int(going.split()[1]) >= 4
    assert undisturbed.communicate(timeout=60)[0].splitlines()[1] == total


def test_a_loss_that_is_not_finite_stops_before_it_does_harm(tmp_path: Path) -> None:
    model = runs.decoder()

    def exploding(decoder: Decoder, batch: Batch) -> torch.Tensor:
        loss = next_token(decoder, batch)
        return loss * float("nan") if batch.input_ids.equal(runs.random_batch(seed=5).input_ids[:2]) else loss

    loop = runs.loop(model, tmp_path, objective=exploding)
    with pytest.raises(DivergedError, match=r"loss of step 5 .*'position': 4.*step-00000003"):
        loop.run()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000003"]


def test_what_is_recorded(tmp_path: Path) -> None:
    records: list[StepRecord] = []
    scores = itertools.count(1.5, -0.25)

    class Listener:
        def on_step(self, record: StepRecord) -> None:
            records.append(record)

        def on_evaluation(self, step: int, bits_per_byte: float) -> None:
            records.append(step)  # type: ignore[arg-type]

        def on_checkpoint(self, state: object) -> None: ...

    loop = runs.loop(runs.decoder(), tmp_path, observer=Listener(), evaluate=lambda decoder: next(scores))
    loop.run()
    steps = [record for record in records if isinstance(record, StepRecord)]
    assert [record.step for record in steps] == list(range(1, 9))
    assert [record.lr for record in steps[:2]] == [0.005, 0.01] and 0 < steps[-1].lr < 0.005
    assert [step for step in records if isinstance(step, int)] == [4, 8]


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_batch_can_be_learnt_by_heart(tmp_path: Path, kind: str) -> None:
    class Same(runs.RandomSource):
        def next_batch(self) -> Batch:
            return runs.random_batch()

    model = runs.decoder()
    plan = replace(runs.PLAN, steps=60, save_every=60)
    loop = runs.loop(model, tmp_path, config=CONFIGS[kind], plan=plan, source=Same())
    before, _ = loop._backward(runs.random_batch()), model.zero_grad()
    loop.run()
    assert loop._backward(runs.random_batch()) < 0.3 < 3 < before


def test_an_averaged_model_is_what_is_evaluated_and_kept(tmp_path: Path) -> None:
    model = runs.decoder()
    seen: list[torch.Tensor] = []

    def evaluate(model: Decoder) -> float:
        seen.append(model.model.norm.weight.detach().clone())
        return 1.0

    config = TrainingConfig(ema_decay=0.5)
    loop = runs.loop(model, tmp_path, config=config, evaluate=evaluate)
    loop.run()
    average = torch.ones(32)
    plain = runs.decoder()
    for step in range(1, 9):
        part = runs.loop(plain, tmp_path / "plain", stop=runs.stop_after(1))
        part.resume()
        part.run()
        decay = min(0.5, step / (9 + step))  # (1 + s) / (10 + s) of the steps before it
        average = average.lerp(plain.model.norm.weight.detach(), 1 - decay)
        if step == 4:
            torch.testing.assert_close(seen[0], average)
    torch.testing.assert_close(model.model.norm.weight.detach(), average)


def test_resuming_something_else_is_refused(tmp_path: Path) -> None:
    runs.loop(runs.decoder(), tmp_path, stop=runs.stop_after(1), identity={"sft": {"lr": 1}, "data": "a"}).run()
    other = runs.loop(runs.decoder(), tmp_path, identity={"sft": {"lr": 2}, "data": "b"})
    with pytest.raises(RunError, match=r"sft.lr was 1 and is 2; data was 'a' and is 'b'"):
        other.resume()
