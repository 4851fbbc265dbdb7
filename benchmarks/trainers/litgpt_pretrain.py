"""litgpt's pretraining, which always compiles its model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from benchmarks.trainers.stopwatch import LENGTH, ROWS, SHAPE, VOCAB, Stopwatch, random_row, serve
from litgpt import Config, pretrain
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from torch.utils.data import DataLoader, Dataset


class Rows(Dataset[torch.Tensor]):
    def __init__(self, steps: int) -> None:
        self._steps = steps

    def __len__(self) -> int:
        return ROWS * self._steps

    def __getitem__(self, index: int) -> torch.Tensor:
        return random_row(index, LENGTH + 1)


class RandomText(DataModule):  # type: ignore[misc]
    """A batch is fetched when the step before it is done: that is when the watch is marked."""

    def __init__(self, steps: int, watch: Stopwatch) -> None:
        super().__init__()
        self._steps = steps
        self._watch = watch

    def connect(self, tokenizer: object = None, batch_size: int = 1, max_seq_length: int | None = None) -> None: ...

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(Rows(self._steps + 1), batch_size=ROWS, collate_fn=self._collate)

    def _collate(self, rows: list[torch.Tensor]) -> torch.Tensor:
        self._watch.mark()
        return torch.stack(rows)

    def val_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(Rows(2), batch_size=ROWS)


def train(precision: str, steps: int, watch: Stopwatch) -> None:
    config = Config(
        name="small", block_size=LENGTH, vocab_size=VOCAB, padded_vocab_size=VOCAB, bias=False, rotary_percentage=1.0,
        n_layer=SHAPE["num_hidden_layers"], n_head=SHAPE["num_attention_heads"], n_embd=SHAPE["hidden_size"],
        n_query_groups=SHAPE["num_key_value_heads"], intermediate_size=SHAPE["intermediate_size"],
        parallel_residual=False, norm_class_name="RMSNorm", norm_eps=1e-5, mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    pretrain.save_checkpoint = lambda *arguments, **values: None  # it would read the command line, and is not measured
    with tempfile.TemporaryDirectory() as folder:
        pretrain.setup(
            "small", config, Path(folder), precision="bf16-mixed" if precision == "bf16" else "32-true",
            data=RandomText(steps, watch), devices=1, logger_name="csv",
            train=TrainArgs(
                save_interval=None, log_interval=1, global_batch_size=ROWS, micro_batch_size=ROWS,
                max_tokens=ROWS * LENGTH * steps, max_norm=1.0, min_lr=1e-4, lr_warmup_steps=1, tie_embeddings=True,
            ),
            eval=EvalArgs(interval=1000, max_iters=1, initial_validation=False, final_validation=False),
        )  # fmt: skip


if __name__ == "__main__":
    serve(train)
