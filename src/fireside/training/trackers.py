"""The programs that a run can be watched with: TensorBoard, Weights & Biases, MLflow.

Steps count over all stages of a run. The last two get a run under an id of our own choosing, and go on with it when the
run is resumed. What they were told before that and are told again they skip: it is the same.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.summary import scalar, text

from fireside.errors import RecipeError
from fireside.training.recipe import TrackingConfig
from fireside.training.recipe_file import flat
from fireside.training.results import indent_code
from fireside.training.run import RunStatus

UPLOAD_SECONDS = 30  # for Weights & Biases to answer, and at the end of a run to take what it has not got yet
_BATCH_SECONDS = 1.0  # between two messages to MLflow
_MOST_METRICS, _MOST_PARAMS = 1000, 100  # of one message to MLflow
_TAG = "fireside.id"

Samples = Sequence[tuple[str, str]]  # prompt and continuation


class Tracker(Protocol):
    """Shows a run while it goes on. What it raises ends it, not the run; see `tracking.py`."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None: ...

    def samples(self, step: int, name: str, samples: Samples) -> None: ...

    def close(self, status: RunStatus, summary: Mapping[str, float]) -> None: ...


class TensorBoard:
    """Event files (https://www.tensorflow.org/tensorboard) in `folder`, one for each time that the run is gone on with.

    The writers of tensorboardX and PyTorch hold events back for two minutes, which a killed run would lose although its
    checkpoint is behind them. So its records are written here, and flushed each time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._write(step, scalar(name, value))
        self._writer.flush()

    def samples(self, step: int, name: str, samples: Samples) -> None:
        self._write(step, text(name, _markdown(samples)))
        self._writer.flush()

    def close(self, status: RunStatus, summary: Mapping[str, float]) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, step: int, summary: Summary) -> None:
        if self._writer is None:
            self._folder.mkdir(exist_ok=True)
            # Files of the same second, of which one would replace the other, are told apart by where they begin.
            self._writer = EventsWriter(str(self._folder / "events"), f".{step:09}")
            # Whatever a killed run told of this step and later ones is void: they come again.
            start = SessionLog(status=SessionLog.START)
            self._writer.write_event(Event(wall_time=time.time(), step=step, session_log=start))
        self._writer.write_event(Event(wall_time=time.time(), step=step, summary=summary))


class WeightsAndBiases:
    """A run of https://wandb.ai, or of a server of one's own. Files that it needs are in `folder`."""

    def __init__(
        self, config: TrackingConfig, folder: Path, name: str, identifier: str, described: Mapping[str, Any]
    ) -> None:
        import wandb

        self._table = wandb.Table
        self._run = wandb.init(
            project=config.wandb,
            entity=config.wandb_entity,
            id=identifier,
            name=name,
            resume="allow",
            config=dict(described),
            dir=str(folder),
            # The terminal is the progress bar's.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, init_timeout=UPLOAD_SECONDS, finish_timeout=UPLOAD_SECONDS
            ),
        )
        self._next = self._run.starting_step

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        if step >= self._next:
            self._run.log(dict(values), step=step)

    def samples(self, step: int, name: str, samples: Samples) -> None:
        if step >= self._next:
            table = self._table(columns=["prompt", "text"], data=[list(sample) for sample in samples])
            self._run.log({name: table}, step=step)

    def close(self, status: RunStatus, summary: Mapping[str, float]) -> None:
        self._run.summary.update(dict(summary) | {"status": str(status)})
        self._run.finish(exit_code=int(status is RunStatus.FAILED))


class MLflow:
    """A run of an MLflow server or store (https://mlflow.org), found again by a tag of ours.

    Metrics are sent once a second, for a message a step would take longer than many a step does. What is killed loses
    those of its last second there.
    """

    def __init__(self, config: TrackingConfig, name: str, identifier: str, described: Mapping[str, Any]) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # of its use, to its makers
        from mlflow import MlflowClient, entities

        self._entities = entities
        self._client = MlflowClient(tracking_uri=config.mlflow_uri)
        experiment = self._experiment(str(config.mlflow))
        found = self._client.search_runs([experiment], filter_string=f"tags.`{_TAG}` = '{identifier}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            self._told = {key: self._last_step(key) for key in found[0].data.metrics}
        else:
            self._id = self._client.create_run(experiment, tags={_TAG: identifier}, run_name=name).info.run_id
            self._told = {}
            params = [entities.Param(key, _text(value)) for key, value in flat(dict(described)).items()]
            for start in range(0, len(params), _MOST_PARAMS):
                self._client.log_batch(self._id, params=params[start : start + _MOST_PARAMS])
            self._client.log_dict(self._id, dict(described), "recipe.json")
        self._waiting: list[Any] = []
        self._sent = 0.0

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        self._waiting += [
            self._entities.Metric(key, value, now, step)
            for key, value in values.items()
            if step > self._told.get(key, 0)
        ]
        if time.monotonic() - self._sent > _BATCH_SECONDS:
            self._send()

    def samples(self, step: int, name: str, samples: Samples) -> None:
        self._client.log_text(self._id, _markdown(samples), f"{name}/{step:09}.md")

    def close(self, status: RunStatus, summary: Mapping[str, float]) -> None:
        self._send()
        self._client.log_dict(self._id, dict(summary) | {"status": str(status)}, "summary.json")
        ended = {RunStatus.FINISHED: "FINISHED", RunStatus.FAILED: "FAILED"}
        self._client.set_terminated(self._id, ended.get(status, "KILLED"))

    def _send(self) -> None:
        for start in range(0, len(self._waiting), _MOST_METRICS):
            self._client.log_batch(self._id, metrics=self._waiting[start : start + _MOST_METRICS])
        self._waiting = []
        self._sent = time.monotonic()

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _last_step(self, key: str) -> int:
        return max(int(metric.step) for metric in self._client.get_metric_history(self._id, key))


def check_tracking(config: TrackingConfig) -> None:
    """Raises `RecipeError` if a tracker that is asked for is not installed, or knows no account. Asks no network."""
    for key, project in (("wandb", config.wandb), ("mlflow", config.mlflow)):
        if project is not None and find_spec(key) is None:
            raise RecipeError(f"tracking.{key} needs a package that is not installed: pip install 'fireside[{key}]'")
    if config.wandb is not None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # of its own errors, to its makers
        import wandb

        try:
            is_ready = wandb.setup().settings.mode != "online" or wandb.login(verify=False, prompt=False)
        except wandb.Error as error:
            raise RecipeError(f"tracking.wandb: {error}") from error
        if not is_ready:
            raise RecipeError("tracking.wandb needs an account: run wandb login, or set WANDB_MODE=offline")


def _markdown(samples: Samples) -> str:
    """Texts as blocks of code, which nothing within them ends or formats."""
    return "\n\n---\n\n".join(indent_code(f"{prompt}▸{continuation}") for prompt, continuation in samples)


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
