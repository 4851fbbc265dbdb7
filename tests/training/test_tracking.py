"""Trackers: what they are told, once and in order, and that training depends on none.

The fakes of wandb and mlflow below have the calls that are used, with the effects that these have in wandb 0.31.0 and
mlflow-skinny 3.17.2 (together 150 MB, of some twenty packages). By hand, with those versions: whole runs, runs that
were killed or stopped and resumed, with WANDB_MODE=offline and disabled, and with a server of MLflow 3.17.2 on SQLite
that also died in the middle. What they held was read back from W&B's records and by MLflow's client. Event files were
read back by the EventAccumulator of tensorboard 2.21.0. Nothing was sent to a server of Weights & Biases.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fireside.errors import RecipeError
from fireside.training import trackers, tracking
from fireside.training.recipe import Recipe, TrackingConfig
from fireside.training.recipe_file import parse_recipe
from fireside.training.run import Run, RunStatus, create_run
from fireside.training.trackers import TensorBoard, check_tracking
from fireside.training.tracking import Trackers
from tests.training.event_files import masked_crc32c, told
from tests.training.test_run import RECIPE

SAMPLES = [("Once", " upon\n# a time"), ("Twice", "")]


class FakeWandb(ModuleType):
    """Runs by id, which a resumed one goes on with from the step after its last."""

    class Error(Exception): ...

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.runs: dict[str, dict[str, Any]] = {}
        self.mode, self.has_key = "online", True
        self.Table = lambda columns, data: {"columns": columns, "data": data}
        self.Settings = dict

    def setup(self) -> Any:
        return SimpleNamespace(settings=SimpleNamespace(mode=self.mode))

    def login(self, *, verify: bool, prompt: bool) -> bool:
        assert not verify and not prompt  # neither the network nor the terminal is asked
        return self.has_key

    def init(self, **options: Any) -> Any:
        assert options["resume"] == "allow"
        run = self.runs.setdefault(options["id"], options | {"history": {}, "summary": {}, "codes": []})
        history: dict[int, dict[str, Any]] = run["history"]

        def log(values: dict[str, Any], *, step: int) -> None:
            assert not history or step >= max(history)  # it drops them, and warns of each
            history.setdefault(step, {}).update(values)

        return SimpleNamespace(
            starting_step=max(history, default=-1) + 1,
            log=log,
            summary=run["summary"],
            finish=lambda exit_code: run["codes"].append(exit_code),
        )


class FakeMlflow(ModuleType):
    """A store with one experiment at most; a metric holds whatever points it is given."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.__spec__ = ModuleSpec("mlflow", None)
        self.entities = SimpleNamespace(
            Metric=lambda key, value, timestamp, step: SimpleNamespace(key=key, value=value, step=step),
            Param=lambda key, value: (key, value),
        )
        self.runs: list[Any] = []
        self.experiment: str | None = None
        self.is_down = False
        self.MlflowClient = lambda tracking_uri: self

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1") if name == self.experiment else None

    def create_experiment(self, name: str) -> str:
        self.experiment = name
        return "1"

    def search_runs(self, experiments: list[str], *, filter_string: str, max_results: int) -> list[Any]:
        assert experiments == ["1"]
        found = [run for run in self.runs if all(filter_string == f"tags.`{k}` = '{v}'" for k, v in run.tags.items())]
        for run in found:
            run.data = SimpleNamespace(metrics={key: points[-1][1] for key, points in run.points.items()})
        return found[:max_results]

    def create_run(self, experiment: str, *, tags: dict[str, str], run_name: str) -> Any:
        info = SimpleNamespace(run_id=str(len(self.runs)))
        self.runs.append(SimpleNamespace(info=info, tags=tags, points={}, params=[], files={}, status="RUNNING"))
        return self.runs[-1]

    def update_run(self, run_id: str, *, status: str) -> None:
        self.runs[int(run_id)].status = status

    def set_terminated(self, run_id: str, status: str) -> None:
        self.update_run(run_id, status=status)

    def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
        if self.is_down:
            raise ConnectionError("no\nroute")
        assert len(metrics) <= 1000 and len(params) <= 100  # it refuses more
        run = self.runs[int(run_id)]
        run.params += params
        for metric in metrics:
            run.points.setdefault(metric.key, []).append((metric.step, metric.value))

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [SimpleNamespace(step=step) for step, _ in self.runs[int(run_id)].points[key]]

    def log_text(self, run_id: str, text: object, file: str) -> None:
        self.runs[int(run_id)].files[file] = text

    log_dict = log_text


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    return fake


def make_run(folder: Path, **asked: Any) -> Run:
    run = create_run(folder, Recipe.model_validate(RECIPE | {"sft": RECIPE["pretrain"], "tracking": asked}))
    run.update(stages={"pretrain": {"steps": 9, "loss": 0.5, "plan": {}}})
    return run


def tell(run: Run, steps: range, status: RunStatus, warn: Callable[[str], None] = pytest.fail) -> None:
    """As training does: a loss each step, and every other step bits per byte and samples."""
    with Trackers(run, warn) as all_of_them:
        for step in steps:
            all_of_them.scalars(step, {"pretrain/loss": 1 / step, "pretrain/lr": 0.1})
            if step % 2 == 0:
                all_of_them.scalars(step, {"pretrain/bits_per_byte": 2 / step})
                all_of_them.samples(step, "pretrain/samples", SAMPLES)
        run.update(status=status)


def test_a_checksum_that_others_know() -> None:
    crc = (masked_crc32c(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert (crc << 15 | crc >> 17) & 0xFFFFFFFF == 0xE3069283  # RFC 3720's


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    killed = TensorBoard(tmp_path)  # never closed
    for step in range(1, 8):
        killed.scalars(step, {"sft/loss": 1 / step})
    killed.samples(6, "sft/samples", SAMPLES)
    resumed = TensorBoard(tmp_path)
    for step in range(5, 10):
        resumed.scalars(step, {"sft/loss": 2 / step})
    found = told(tmp_path)
    assert [step for step, _ in found["sft/loss"]] == [*range(1, 10)]
    assert found["sft/loss"][3:5] == [(4, 0.25), (5, pytest.approx(0.4))]
    assert found["sft/samples/text_summary"] == []
    resumed.samples(8, "sft/samples", SAMPLES)
    text = "    Once▸ upon\n    # a time\n\n---\n\n    Twice▸"
    assert told(tmp_path)["sft/samples/text_summary"] == [(8, text)]


def test_nothing_leaves_unless_it_is_asked_for(tmp_path: Path, wandb: FakeWandb, mlflow: FakeMlflow) -> None:
    run = make_run(tmp_path)
    tell(run, range(1, 3), RunStatus.FINISHED)
    assert not wandb.runs and not mlflow.runs and "tracking_id" not in run.record
    assert [step for step, _ in told(run.folder / "tensorboard")["pretrain/loss"]] == [1, 2]
    quiet = make_run(tmp_path, tensorboard=False)
    tell(quiet, range(1, 3), RunStatus.FINISHED)
    assert not (quiet.folder / "tensorboard").exists()


def test_an_address_with_a_password_stays_here(tmp_path: Path, wandb: FakeWandb, mlflow: FakeMlflow) -> None:
    run = make_run(tmp_path, wandb="project", mlflow="experiment", mlflow_uri="http://me:SECRET@localhost:1")
    tell(run, range(1, 3), RunStatus.FINISHED)
    assert "pretrain" in repr(wandb.runs) and "pretrain" in repr(mlflow.runs)
    assert "SECRET" not in repr(wandb.runs) + repr(mlflow.runs)


def test_weights_and_biases(tmp_path: Path, wandb: FakeWandb) -> None:
    run = make_run(tmp_path, wandb="project", wandb_entity="me")
    tell(run, range(1, 6), RunStatus.STOPPED)
    tell(run, range(4, 9), RunStatus.FINISHED)
    ((identifier, there),) = wandb.runs.items()
    assert identifier == run.record["tracking_id"]
    assert (there["project"], there["entity"], there["name"], there["dir"]) == (
        "project",
        "me",
        "small-1",
        str(run.folder),
    )
    assert there["config"]["pretrain"] == run.recipe.model_dump(mode="json")["pretrain"]
    assert list(there["history"]) == [*range(1, 9)]
    assert there["history"][6]["pretrain/samples"]["data"] == [list(sample) for sample in SAMPLES]
    assert there["history"][8]["pretrain/bits_per_byte"] == 0.25
    assert there["summary"] == {"pretrain/steps": 9, "pretrain/loss": 0.5, "status": "finished"}
    assert there["codes"] == [0, 0]


def test_mlflow(tmp_path: Path, mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, mlflow="experiment")
    tell(run, range(1, 6), RunStatus.FAILED)
    (there,) = mlflow.runs
    assert there.status == "FAILED" and mlflow.experiment == "experiment"
    monkeypatch.setattr(trackers, "_BATCH_SECONDS", 0.0)
    tell(run, range(4, 9), RunStatus.FINISHED)
    assert len(mlflow.runs) == 1 and there.status == "FINISHED"
    assert [step for step, _ in there.points["pretrain/loss"]] == [*range(1, 9)]
    assert [step for step, _ in there.points["pretrain/bits_per_byte"]] == [2, 4, 6, 8]
    assert dict(there.params)["pretrain.data.sources.0.name"] == "text" and len(there.params) > 100
    assert there.files["recipe.json"]["model"]["hidden_size"] == 16
    assert there.files["summary.json"] == {"pretrain/steps": 9, "pretrain/loss": 0.5, "status": "finished"}
    assert "pretrain/samples/000000008.md" in there.files


def test_a_tracker_that_fails_ends_itself_alone(tmp_path: Path, wandb: FakeWandb, mlflow: FakeMlflow) -> None:
    run, said = make_run(tmp_path, wandb="project", mlflow="experiment"), list[str]()
    mlflow.is_down = True
    tell(run, range(1, 6), RunStatus.FINISHED, said.append)
    assert said == ["MLflow gets no more of this run, which goes on without it: no route"]
    (there,) = wandb.runs.values()
    assert list(there["history"]) == [*range(1, 6)]
    assert len(told(run.folder / "tensorboard")["pretrain/loss"]) == 5


def test_training_does_not_wait(
    tmp_path: Path, mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    hangs = threading.Event()
    request.addfinalizer(hangs.set)
    monkeypatch.setattr(mlflow, "create_run", lambda *_, **__: hangs.wait())
    monkeypatch.setattr(tracking, "_QUIET", 0.05)
    monkeypatch.setattr(tracking, "_PATIENCE", 0.1)
    said = list[str]()
    tell(make_run(tmp_path, mlflow="experiment"), range(1, 4), RunStatus.FINISHED, said.append)
    assert said == ["waiting for MLflow to take the last of this run", "MLflow did not take all of this run in time"]


@pytest.mark.parametrize("key", ["wandb", "mlflow"])
def test_a_package_that_is_missing_is_named(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    check_tracking(TrackingConfig.model_validate({}))
    with pytest.raises(RecipeError, match=rf"tracking.{key} needs .*: pip install 'fireside\[{key}\]'"):
        check_tracking(TrackingConfig.model_validate({key: "x"}))


def test_an_account_is_asked_for_at_once(wandb: FakeWandb) -> None:
    config = TrackingConfig.model_validate({"wandb": "x"})
    check_tracking(config)
    wandb.has_key = False
    with pytest.raises(
        RecipeError, match=r"tracking.wandb needs an account: run wandb login, or set WANDB_MODE=offline"
    ):
        check_tracking(config)
    wandb.mode = "offline"
    check_tracking(config)


def test_a_detail_without_its_tracker_is_an_error() -> None:
    with pytest.raises(RecipeError, match="mlflow_uri has no effect without mlflow"):
        parse_recipe(RECIPE | {"tracking": {"mlflow_uri": "http://localhost"}}, "recipe.toml")
