"""Two processes that hold half of the model each, beside one that holds all of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training import runs
from tests.training.sharded import CASES, STOPS_AT, Found, trained

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left; before them one had gone a part of the way in `one`."""
    folder = tmp_path_factory.mktemp("sharded")
    trained(folder / "one", None, stop=runs.stop_after(STOPS_AT), **CASES["everything"])
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.training.sharded", str(folder)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    """What one process finds."""
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: trained(folder / name, None, **case) for name, case in CASES.items()}
    finally:
        torch.set_num_threads(threads)


def found(folder: Path, name: str) -> Found:
    return load_file(folder / f"{name}.safetensors")


def close(one: Found, other: Found, tolerance: float = 1e-4) -> None:
    assert one.keys() == other.keys()
    for name, expected in one.items():
        torch.testing.assert_close(other[name], expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"{name}: {m}")  # noqa: B023


@pytest.mark.parametrize("name", CASES)
def test_shards_train_what_one_process_does(sharded: Path, alone: dict[str, Found], name: str) -> None:
    """Losses, norms of gradients, evaluations and weights. Muon multiplies in bfloat16, and sums in another order."""
    close(alone[name], found(sharded, name), 4e-3 if name == "muon" else 1e-4)


def test_whole_copies_train_what_one_process_does(sharded: Path, alone: dict[str, Found]) -> None:
    close(alone["everything"], found(sharded, "copies"))


def test_shards_in_bfloat16_train_what_one_process_does(sharded: Path, tmp_path: Path) -> None:
    """To its rounding: weights are gathered in it, which autocast would round to it anyway; norms' weights it adds."""
    one, two = trained(tmp_path, None, precision="bf16-mixed"), found(sharded, "narrow")
    begun = dict(runs.decoder().named_parameters())
    for name, start in begun.items():  # how far weights went, and where to
        went, theirs = one[name] - start, two[name] - start
        assert (theirs - went).norm() < 0.25 * went.norm(), name
    assert two["losses"].tolist() == pytest.approx(one["losses"].tolist(), rel=1e-2)


@pytest.mark.parametrize("name", ["everything", "muon"])
def test_resuming_shards_gives_the_same_bits(sharded: Path, name: str) -> None:
    whole, parts = found(sharded, name), found(sharded, f"{name}-in-parts")
    assert whole["losses"][STOPS_AT:].tolist() == parts["losses"].tolist()
    assert all(torch.equal(parts[key], whole[key]) for key in whole if "." in key)


def test_checkpoints_pass_between_one_process_and_shards(
    sharded: Path, alone: dict[str, Found], tmp_path: Path
) -> None:
    expected = alone["everything"]
    last = f"step-{STOPS_AT:08}"
    theirs = {file: load_file(sharded / "everything-in-parts" / last / file) for file in FILES}
    ours = {file: load_file(sharded / "one" / last / file) for file in FILES}
    for file in FILES:
        assert {name: tensor.shape for name, tensor in theirs[file].items()} == {
            name: tensor.shape for name, tensor in ours[file].items()
        }
    shutil.copytree(sharded / "everything-in-parts" / last, tmp_path / "parts" / last)
    for resumed in (trained(tmp_path / "parts", None, seed=7, **CASES["everything"]), found(sharded, "after-one")):
        assert len(resumed["losses"]) == 8 - STOPS_AT
        torch.testing.assert_close(resumed["losses"], expected["losses"][STOPS_AT:], rtol=1e-4, atol=1e-4)
        close(weights(expected), weights(resumed))


FILES = ("weights.safetensors", "optimizer.safetensors", "average.safetensors")


def weights(all_of_it: Found) -> Found:
    return {name: tensor for name, tensor in all_of_it.items() if "." in name}


def test_a_loss_that_is_not_finite_ends_all(sharded: Path) -> None:
    assert found(sharded, "diverged")["step"] == 1 and not (sharded / "diverged").exists()
