"""A run from its recipe to a model: tokenizer, then data and loop of each stage, then the model's folder.

Resuming is running again: what is there is taken as it is, and every stage goes on from its latest checkpoint. A stage
that was finished is at its last step, and its loop has nothing left to do but to load its weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from lightning_fabric import Fabric

from fireside.data.packing import PackingReport
from fireside.data.prepare import prepare
from fireside.data.shards import Dataset
from fireside.data.training_texts import training_texts
from fireside.engine.fingerprint import model_fingerprint
from fireside.errors import DivergedError, FiresideError, RunError
from fireside.evaluation.bits_per_byte import bits_per_byte, token_byte_counts
from fireside.models.checkpoint import open_checkpoint
from fireside.models.config import ModelConfig
from fireside.models.decoder import Decoder, load_decoder
from fireside.models.local import resolve_model
from fireside.settings import Settings
from fireside.tokenizers.training import train_tokenizer, write_files
from fireside.training.batches import held_out_batches, training_batches
from fireside.training.checkpoint import CheckpointStore, SavedState
from fireside.training.checks import check_recipe
from fireside.training.export import ModelText, export_model, text_of_base, text_of_folder
from fireside.training.hardware import is_helper, make_fabric, uses_bf16
from fireside.training.loop import Loop, Outcome, StepRecord
from fireside.training.lora import add_lora, merge_lora, save_adapter
from fireside.training.memory import MemoryEstimate, estimate_memory
from fireside.training.objectives import Objective, next_token, next_token_within_documents
from fireside.training.recipe import Recipe, StageConfig
from fireside.training.report import write_report
from fireside.training.run import Run, RunStatus
from fireside.training.sampling import continue_text
from fireside.training.scaling import Plan, model_config, plan_stage

_SECONDS_BETWEEN = 5.0  # two messages of how far preparing is


class TrainingObserver(Protocol):
    """Told what a run does, for a person. On the first process only."""

    def message(self, text: str) -> None: ...

    def stage(self, name: str, plan: Plan, done: int) -> None: ...

    def step(self, record: StepRecord) -> None: ...

    def evaluation(self, step: int, bits_per_byte: float) -> None: ...

    def sample(self, prompt: str, text: str) -> None: ...


@dataclass(frozen=True)
class TrainingResult:
    """How it ended. model: the folder that was installed, if it finished."""

    outcome: Outcome
    model: Path | None


def train(
    run: Run, settings: Settings, observer: TrainingObserver, *, stop: Callable[[], bool] = lambda: False
) -> TrainingResult:
    """Trains `run` to its end, or until `stop`. A run that was begun before goes on where it was.

    Raises `FiresideError`, with the run marked as failed; its checkpoints stay.
    """
    if is_helper():
        return _Session(run, settings, observer, stop).run()
    recipe = run.recipe
    with run.locked():
        model = settings.models_dir / recipe.name
        if run.status is RunStatus.FINISHED and model.is_dir():
            return TrainingResult(Outcome.FINISHED, model)
        run.update(status=RunStatus.RUNNING)
        try:
            check_recipe(recipe, settings)
            result = _Session(run, settings, observer, stop).run()
        except FiresideError as error:
            with suppress(RunError):  # on a full disk: the first error is the one to be seen
                run.update(status=RunStatus.FAILED, error=str(error))
            raise
        except BaseException:
            with suppress(RunError):
                run.update(status=RunStatus.STOPPED)
            raise
        status = RunStatus.FINISHED if result.outcome is Outcome.FINISHED else RunStatus.STOPPED
        run.update(status=status, error=None)
        write_report(run)
    return result


class _Stopped(Exception):
    """Raised out of preparing, which knows nothing of stopping."""


class _Session:
    def __init__(self, run: Run, settings: Settings, observer: TrainingObserver, stop: Callable[[], bool]) -> None:
        self._run = run
        self._settings = settings
        self._observer = observer
        self._stop = stop
        self._recipe: Recipe = run.recipe
        self._fabric: Fabric = make_fabric(self._recipe.hardware)
        self._said = time.monotonic()
        self._base: str | None = None  # the fingerprint of the base model's weights

    def run(self) -> TrainingResult:
        try:
            return self._stages()
        except _Stopped:
            return TrainingResult(Outcome.STOPPED, None)

    def _watch(self, text: str) -> None:
        """Hears how far preparing is, often; says it now and then."""
        if self._fabric.world_size == 1 and self._stop():  # others would wait for this process
            raise _Stopped
        if time.monotonic() - self._said > _SECONDS_BETWEEN:
            self._said = time.monotonic()
            self._observer.message(text)

    def _stages(self) -> TrainingResult:
        if self._fabric.is_global_zero:
            self._run.update(threads=torch.get_num_threads(), device=str(self._fabric.device))
        with self._fabric.rank_zero_first():
            text = self._text()
        decoder = self._decoder(text)
        for name, stage in self._recipe.stages.items():
            if self._stop() or self._train_stage(name, stage, decoder, text) is Outcome.STOPPED:
                return TrainingResult(Outcome.STOPPED, None)
        return TrainingResult(Outcome.FINISHED, self._install(decoder, text))

    def _plan(self, name: str, stage: StageConfig, config: ModelConfig, *, tokens_per_epoch: int) -> Plan:
        return plan_stage(
            stage,
            config,
            is_fine_tuning=name == "sft",
            is_lora=self._recipe.lora is not None,
            tokens_per_epoch=tokens_per_epoch,
            devices=self._fabric.world_size,
        )

    def _estimate(self, stage: StageConfig, config: ModelConfig, plan: Plan) -> MemoryEstimate:
        is_bf16 = uses_bf16(self._recipe.hardware, self._fabric.device)
        return estimate_memory(config, stage, plan, lora=self._recipe.lora, is_bf16=is_bf16)

    def _text(self) -> ModelText:
        """The tokenizer and chat template: the base model's, or trained once for this run."""
        recipe, folder = self._recipe, self._run.folder / "tokenizer"
        if recipe.base is not None:
            self._base = model_fingerprint(resolve_model(recipe.base, self._settings).path)
            return text_of_base(recipe.base, self._settings)
        assert recipe.tokenizer is not None  # the recipe has seen to it
        if not (folder / "tokenizer_config.json").is_file():
            self._observer.message(f"training a tokenizer of {recipe.tokenizer.vocab_size:,} tokens")
            texts = training_texts([stage.data for stage in recipe.stages.values()])
            files = train_tokenizer(
                texts, recipe.tokenizer, on_progress=lambda read: self._watch(f"read {read:,} bytes")
            )
            write_files(files, folder)
        return text_of_folder(folder)

    def _decoder(self, text: ModelText) -> Decoder:
        """Weights as they are before the first stage. Those of a new model are a function of the seed."""
        recipe = self._recipe
        if text.base is not None:
            decoder = load_decoder(open_checkpoint(text.base.path))
        else:
            torch.manual_seed(recipe.seed)
            decoder = Decoder(self._config(text.tokenizer.vocab_size))
        if recipe.lora is not None:
            torch.manual_seed(recipe.seed)
            add_lora(decoder, recipe.lora)
        return decoder.to(self._fabric.device)

    def _config(self, vocab_size: int) -> ModelConfig:
        assert self._recipe.model is not None  # the recipe has seen to it
        longest = max(stage.packing.sequence_length for stage in self._recipe.stages.values())
        return model_config(self._recipe.model, vocab_size=vocab_size, longest_row=longest)

    def _train_stage(self, name: str, stage: StageConfig, decoder: Decoder, text: ModelText) -> Outcome:
        recipe, fabric = self._recipe, self._fabric
        self._observer.message(f"preparing the data of {name}")
        folder = self._run.folder / "data" / name
        with fabric.rank_zero_first():
            manifest = prepare(
                stage.data,
                text.tokenizer,
                folder,
                template=text.template,
                on_progress=lambda at: self._watch(str(at)),
            )
        dataset = Dataset(folder, manifest)
        length = stage.packing.sequence_length
        if length > decoder.config.max_position_embeddings:
            raise RunError(
                f"{name}.packing.sequence_length is {length}, and the model's context "
                f"{decoder.config.max_position_embeddings}: lower the first, or make the second larger"
            )
        packing = training_batches(dataset, stage.packing, rows=1, are_chats=name == "sft").report()
        plan = self._plan(name, stage, decoder.config, tokens_per_epoch=packing.rows * length)
        store = CheckpointStore(
            self._run.checkpoints(name), keep=stage.keep, identity=self._identity(manifest.digest, text, plan)
        )
        objective = next_token_within_documents if stage.mask_documents else next_token
        recorder = _Recorder(self._run, self._observer, name, plan)
        loop = Loop(
            fabric,
            decoder,
            objective,
            training_batches(dataset, stage.packing, rows=plan.rows, are_chats=name == "sft"),
            stage,
            plan,
            store,
            seed=recipe.seed,
            compile_layers=recipe.hardware.compile,
            evaluate=self._evaluation(name, decoder, dataset, objective, text, plan, recorder),
            observer=recorder,
            stop=self._stop,
        )
        decoder.train()
        resumed = loop.resume()
        if fabric.is_global_zero:
            self._run.forget_after(name, loop.state.step if resumed else 0)
            recorder.begin(loop.state, self._estimate(stage, decoder.config, plan), manifest.digest, packing)
        outcome = loop.run()
        decoder.eval()
        return outcome

    def _identity(self, data_digest: str, text: ModelText, plan: Plan) -> dict[str, object]:
        """What must not change under a run."""
        recipe = self._recipe.model_dump(mode="json")
        recipe.pop("hardware")  # may change, at the price of other roundings
        steps = {key: value for key, value in vars(plan).items() if key != "micro_rows"}  # of it, as of the hardware
        identity: dict[str, object] = {
            "recipe": recipe,
            "tokenizer": text.digest,
            "data": data_digest,
            "plan": steps,
        }
        return identity if self._base is None else identity | {"base_weights": self._base}

    def _evaluation(
        self,
        name: str,
        decoder: Decoder,
        dataset: Dataset,
        objective: Objective,
        text: ModelText,
        plan: Plan,
        recorder: _Recorder,
    ) -> Callable[[], float] | None:
        stage = self._recipe.stages[name]
        batches = held_out_batches(
            dataset,
            stage.packing,
            rows=plan.micro_rows,
            tokens=stage.evaluation_tokens,
            are_chats=name == "sft",
        )
        if not batches:
            self._observer.message("nothing is held out: there will be no bits per byte")
            return None
        counts = token_byte_counts(text.tokenizer, decoder.config.vocab_size)

        def evaluate() -> float:
            with self._fabric.autocast():
                found = bits_per_byte(decoder, batches, counts, objective)
                for prompt in stage.sample_prompts if self._fabric.is_global_zero else ():
                    recorder.on_sample(
                        prompt, continue_text(decoder, text, prompt, stage.sample_tokens, as_chat=name == "sft")
                    )
            if math.isnan(found):
                raise DivergedError("the held-out loss is not a number: lower lr")
            return found

        return evaluate

    def _install(self, decoder: Decoder, text: ModelText) -> Path:
        recipe = self._recipe
        folder = self._settings.models_dir / recipe.name
        if not self._fabric.is_global_zero:
            return folder
        if recipe.lora is not None:
            save_adapter(decoder, recipe.lora, self._run.folder / "adapter", recipe.base or "")
            merge_lora(decoder)
        export_model(decoder, text, folder, run=self._run.name, licence=recipe.licence)
        self._run.update(model=str(folder))
        return folder


class _Recorder:
    """Writes a stage into the run's folder, and passes it on."""

    def __init__(self, run: Run, observer: TrainingObserver, stage: str, plan: Plan) -> None:
        self._run = run
        self._observer = observer
        self._stage = stage
        self._plan = plan
        self._latest: StepRecord | None = None
        self._step = 0

    def begin(self, state: SavedState, memory: MemoryEstimate, data: str, packing: PackingReport) -> None:
        self._step = state.step
        self._summarize(
            steps=self._plan.steps,
            step=state.step,
            plan=vars(self._plan),
            memory=vars(memory),
            data=data,
            packing=vars(packing),
        )
        self._observer.stage(self._stage, self._plan, state.step)

    def on_step(self, record: StepRecord) -> None:
        self._latest = record
        self._step = record.step
        self._run.log("step", self._stage, **{key: value for key, value in vars(record).items() if key != "steps"})
        self._observer.step(record)

    def on_evaluation(self, step: int, bits_per_byte: float) -> None:
        tokens = step * self._plan.tokens_per_step
        self._run.log("evaluation", self._stage, step=step, tokens=tokens, bits_per_byte=bits_per_byte)
        self._summarize(bits_per_byte=bits_per_byte)
        self._observer.evaluation(step, bits_per_byte)

    def on_sample(self, prompt: str, text: str) -> None:
        self._run.log("sample", self._stage, step=self._step, prompt=prompt, text=text)
        self._observer.sample(prompt, text)

    def on_checkpoint(self, state: SavedState) -> None:
        loss = {} if self._latest is None else {"loss": self._latest.loss}
        self._summarize(step=state.step, tokens=state.tokens, seconds=state.seconds, **loss)

    def _summarize(self, **values: object) -> None:
        stages = self._run.record["stages"]
        stages[self._stage] = stages.get(self._stage, {}) | values
        self._run.update(stages=stages)
