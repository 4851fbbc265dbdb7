"""Hugging Face's `Trainer` on its `LlamaForCausalLM`."""

from __future__ import annotations

import tempfile

import torch
from benchmarks.trainers.stopwatch import ROWS, SHAPE, Stopwatch, random_row, serve
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Rows(Dataset[dict[str, torch.Tensor]]):
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return ROWS * self._steps

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = random_row(index)
        return {"input_ids": ids, "labels": ids}


class Marks(TrainerCallback):  # type: ignore[misc]
    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_step_end(self, *arguments: object, **values: object) -> None:
        self._watch.mark()


def train(precision: str, steps: int, watch: Stopwatch) -> None:
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=ROWS, max_steps=steps, use_cpu=True,
            bf16=precision == "bf16", optim="adamw_torch_fused", learning_rate=1e-3, max_grad_norm=1.0,
            save_strategy="no", logging_strategy="no", report_to=[], disable_tqdm=True,
        )  # fmt: skip
        model = LlamaForCausalLM(LlamaConfig(**SHAPE))
        Trainer(model=model, args=arguments, train_dataset=Rows(steps), callbacks=[Marks(watch)]).train()


if __name__ == "__main__":
    serve(train)
