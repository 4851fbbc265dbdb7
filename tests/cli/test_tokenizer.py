"""`fireside tokenizer` and `fireside data`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fireside.cli.main import app
from fireside.data.cleaning.classifier import QualityClassifier
from fireside.models.text_parts import load_text_parts
from fireside.settings import Settings
from tests.data.files import prose


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    return result.stdout


def test_train_and_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRESIDE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "a.txt").write_text("\n".join(prose(seed) for seed in range(40)))
    out = tmp_path / "tokenizer"
    assert "400 tokens" in run("tokenizer", "train", str(tmp_path / "a.txt"), "--out", str(out), "--vocab-size", "400")
    tokenizer, template = load_text_parts(str(out), Settings())
    assert tokenizer.vocab_size == 400
    assert template is not None
    table = run("tokenizer", "inspect", str(out), "--text", str(tmp_path / "a.txt"))
    assert "Chinese (Han)" in table
    assert "<|im_end|>" in table
    found = json.loads(run("tokenizer", "inspect", str(out), "--text", str(tmp_path / "a.txt"), "--json"))
    assert found["vocab_size"] == {str(out): 400}
    assert found["bytes_per_token"][str(tmp_path / "a.txt")][str(out)] > 2.5
    assert found["bytes_per_token"]["Chinese (Han)"][str(out)] == 1


def test_inspect_compares_with_the_default_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tokenizers.small import small_folder

    monkeypatch.setenv("FIRESIDE_MODEL", str(small_folder()))
    out = tmp_path / "copy"
    out.mkdir()
    for file in small_folder().iterdir():
        (out / file.name).write_bytes(file.read_bytes())
    sizes = json.loads(run("tokenizer", "inspect", str(out), "--json"))["vocab_size"]
    assert sizes == {str(out): 500, str(small_folder()): 500}


def test_train_classifier(tmp_path: Path) -> None:
    for name, marker in (("good", ""), ("bad", "casino bonus click ")):
        (tmp_path / name).mkdir()
        for number in range(12):
            (tmp_path / name / f"{number}.txt").write_text(marker * 5 + prose(number, 40))
    out = tmp_path / "c.safetensors"
    arguments = [str(tmp_path / "good"), str(tmp_path / "bad"), "--out", str(out)]
    assert "not trained on" in run("data", "train-classifier", *arguments)
    assert QualityClassifier.load(out).probability("casino bonus click") < 0.5
