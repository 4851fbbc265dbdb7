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

import torch
from lightning_fabric import Fabric

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
from fireside.training.checkpoint import CheckpointStore
from fireside.training.checks import check_recipe
from fireside.training.export import (
    ModelText,
    base_reference,
    export_adapter,
    export_model,
    text_of_base,
    text_of_folder,
)
from fireside.training.hardware import make_fabric
from fireside.training.loop import Loop, Outcome
from fireside.training.lora import add_lora, save_adapter
from fireside.training.memory import estimate_of
from fireside.training.objectives import Objective, next_token, next_token_within_documents
from fireside.training.processes import Processes, Stopped, end_together, is_helper
from fireside.training.recipe import Recipe, StageConfig
from fireside.training.recorder import Recorder, TrainingObserver
from fireside.training.report import write_report
from fireside.training.run import Run, RunStatus
from fireside.training.sampling import continue_text
from fireside.training.scaling import Plan, model_config, plan_of
from fireside.training.tracking import Trackers

_SECONDS_BETWEEN = 5.0  # two messages of how far preparing is


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
    trackers = Trackers(run, observer.message)
    if is_helper():  # which the first process has started, and speaks for
        return _Session(run, settings, observer, stop, trackers).run()
    recipe = run.recipe
    with run.locked(), trackers:
        model = settings.models_dir / recipe.name
        if run.status is RunStatus.FINISHED and model.is_dir():
            return TrainingResult(Outcome.FINISHED, model)
        run.update(status=RunStatus.RUNNING)
        try:
            check_recipe(recipe, settings)
            result = _Session(run, settings, observer, stop, trackers).run()
        except Exception as error:
            said = str(error) if isinstance(error, FiresideError) else f"{type(error).__name__}: {error}"
            with suppress(RunError):  # on a full disk: the first error is the one to be seen
                run.update(status=RunStatus.FAILED, error=said)
                write_report(run)
            raise
        except BaseException:  # a second Ctrl-C
            with suppress(RunError):
                run.update(status=RunStatus.STOPPED)
            raise
        status = RunStatus.FINISHED if result.outcome is Outcome.FINISHED else RunStatus.STOPPED
        run.update(status=status, error=None)
        write_report(run)
    return result


class _Session:
    def __init__(
        self,
        run: Run,
        settings: Settings,
        observer: TrainingObserver,
        stop: Callable[[], bool],
        trackers: Trackers,
    ) -> None:
        self._run = run
        self._settings = settings
        self._observer = observer
        self._stop = stop
        self._trackers = trackers
        self._recipe: Recipe = run.recipe
        self._fabric: Fabric = make_fabric(self._recipe.hardware)
        self._processes = Processes(self._fabric, stop)
        self._said = time.monotonic()
        self._base: str | None = None  # the fingerprint of the base model's weights

    def run(self) -> TrainingResult:
        try:
            return self._stages()
        except Stopped:
            return TrainingResult(Outcome.STOPPED, None)
        except BaseException as error:
            end_together(self._fabric, error)
            raise

    def _watch(self, text: str) -> None:
        """Hears how far preparing is, often; says it now and then."""
        self._processes.check()
        if time.monotonic() - self._said > _SECONDS_BETWEEN:
            self._said = time.monotonic()
            self._observer.message(text)

    def _stages(self) -> TrainingResult:
        if self._fabric.is_global_zero:
            self._run.update(
                threads=torch.get_num_threads(), device=str(self._fabric.device), devices=self._fabric.world_size
            )
        text = self._processes.first(self._text)
        decoder = self._decoder(text)
        for name, stage in self._recipe.stages.items():
            self._processes.stop_if_asked()
            if self._train_stage(name, stage, decoder, text) is Outcome.STOPPED:
                return TrainingResult(Outcome.STOPPED, None)
        return TrainingResult(Outcome.FINISHED, self._install(decoder, text))

    def _text(self) -> ModelText:
        """The tokenizer and chat template: the base model's, or trained once for this run."""
        recipe, folder = self._recipe, self._run.folder / "tokenizer"
        if recipe.base is not None:
            path = resolve_model(recipe.base, self._settings).path
            self._base = model_fingerprint(path, self._settings.models_dir)
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
        # What is sharded goes to the devices layer by layer, and need not fit one of them.
        device = torch.device("cpu") if recipe.hardware.shards > 1 else self._fabric.device
        if text.base is not None:
            decoder = load_decoder(
                open_checkpoint(text.base.path, self._settings.models_dir),
                device=device,
                keep_quantized=recipe.lora is not None and recipe.lora.quantized_base,
            )
        else:
            torch.manual_seed(recipe.seed)
            decoder = Decoder(self._config(text.tokenizer.vocab_size))
        if recipe.lora is not None:
            torch.manual_seed(recipe.seed)
            add_lora(decoder, recipe.lora)
        return decoder.to(device)

    def _config(self, vocab_size: int) -> ModelConfig:
        assert self._recipe.model is not None  # the recipe has seen to it
        longest = max(stage.packing.sequence_length for stage in self._recipe.stages.values())
        return model_config(self._recipe.model, vocab_size=vocab_size, longest_row=longest)

    def _train_stage(self, name: str, stage: StageConfig, decoder: Decoder, text: ModelText) -> Outcome:
        recipe, fabric = self._recipe, self._fabric
        self._observer.message(f"preparing the data of {name}")
        folder = self._run.folder / "data" / name
        manifest = self._processes.first(
            lambda: prepare(
                stage.data,
                text.tokenizer,
                folder,
                template=text.template,
                on_progress=lambda at: self._watch(str(at)),
            )
        )
        dataset = Dataset(folder, manifest)
        length = stage.packing.sequence_length
        if length > decoder.config.max_position_embeddings:
            raise RunError(
                f"{name}.packing.sequence_length is {length}, and the model's context "
                f"{decoder.config.max_position_embeddings}: lower the first, or make the second larger"
            )
        packing = training_batches(dataset, stage.packing, rows=1, are_chats=name == "sft").report()
        plan = plan_of(recipe, name, decoder.config, tokens_per_epoch=packing.rows * length)
        store = CheckpointStore(
            self._run.checkpoints(name), keep=stage.keep, identity=self._identity(manifest.digest, text, plan)
        )
        objective = next_token_within_documents if stage.mask_documents else next_token
        recorder = Recorder(self._run, self._observer, name, plan, fabric.device, self._trackers)
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
            evaluate=self._evaluation(name, decoder.config.vocab_size, dataset, objective, text, plan, recorder),
            observer=recorder,
            stop=self._stop,
        )
        resumed = loop.resume()
        if fabric.is_global_zero:
            self._run.forget_after(name, loop.state.step if resumed else 0)
            memory = estimate_of(recipe, name, decoder.config, plan, text.base, fabric.device)
            recorder.begin(loop.state, memory, manifest.digest, packing)
        outcome = loop.run()
        decoder.eval()
        return outcome

    def _identity(self, data_digest: str, text: ModelText, plan: Plan) -> dict[str, object]:
        """What must not change under a run."""
        recipe = self._recipe.model_dump(mode="json")
        recipe.pop("hardware")  # may change, at the price of other roundings
        recipe.pop("tracking")  # decides nothing
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
        vocab_size: int,
        dataset: Dataset,
        objective: Objective,
        text: ModelText,
        plan: Plan,
        recorder: Recorder,
    ) -> Callable[[Decoder], float] | None:
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
        counts = token_byte_counts(text.tokenizer, vocab_size)

        def evaluate(decoder: Decoder) -> float:
            with self._fabric.autocast():
                found = bits_per_byte(decoder, batches, counts, objective)
                for prompt in stage.sample_prompts:
                    said = continue_text(
                        decoder,
                        text,
                        prompt,
                        stage.sample_tokens,
                        as_chat=name == "sft",
                        agree=self._fabric.broadcast,
                    )
                    if self._fabric.is_global_zero:
                        recorder.on_sample(prompt, said)
            if math.isnan(found):
                raise DivergedError("the held-out loss is not a number: lower lr")
            return found

        return evaluate

    def _install(self, decoder: Decoder, text: ModelText) -> Path:
        recipe = self._recipe
        folder = self._settings.models_dir / recipe.name
        if not self._fabric.is_global_zero:
            return folder
        adapter = None
        if recipe.lora is not None and text.base is not None:
            if model_fingerprint(text.base.path, self._settings.models_dir) != self._base:
                raise RunError(
                    f"the weights of {text.base.name} changed while updates to them were trained: put those back that "
                    f"were there, and resume with: fireside train --resume {self._run.name}"
                )
            adapter = self._run.folder / "adapter"
            save_adapter(decoder, recipe.lora, adapter, base_reference(text.base, self._settings))
        if adapter is None or recipe.lora is None or recipe.lora.merge:
            export_model(decoder, text, folder, run=self._run.name, licence=recipe.licence, adapter=adapter)
        else:
            export_adapter(adapter, text, folder, run=self._run.name, licence=recipe.licence)
        self._run.update(model=str(folder))
        return folder
