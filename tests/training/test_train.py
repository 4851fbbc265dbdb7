"""Whole runs through the real command: what comes out is served by our own engine."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from fireside.data.templated_chats import templated_chats
from fireside.models.checkpoint import open_checkpoint
from fireside.models.decoder import load_decoder
from tests.cli.programs import environment, fireside
from tests.engine.tiny_model import write_tiny_model
from tests.models.gguf_files import write_gguf

RECIPE = """
name = "small"
seed = 3
[tokenizer]
vocab_size = 400
[model]
depth = 2
hidden_size = 32
[training]
lr = 1e-2
tokens = 4096
batch_tokens = 512
micro_batch_tokens = 256
evaluation_tokens = 512
[pretrain]
sample_prompts = ["Once"]
[pretrain.packing]
sequence_length = 64
[pretrain.data]
validation_fraction = 0.1
processes = 1
sources = [{name = "prose", path = "prose.jsonl", licence = "CC0-1.0"}]
[pretrain.data.cleaning]
[sft]
sample_prompts = ["Hello!"]
[sft.packing]
sequence_length = 64
[sft.data]
validation_fraction = 0.1
processes = 1
sources = [{name = "chats", path = "chats.jsonl"}]
[hardware]
threads = 1
precision = "fp32"
"""
ENDED = {"step": 8, "steps": 8, "tokens": 4096}


def write_recipe(folder: Path) -> Path:
    chats = list(templated_chats(120))
    rows = [{"messages": chat} for chat in chats]
    (folder / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = [" ".join(message["content"] for chat in chats[n : n + 12] for message in chat) for n in range(100)]
    (folder / "prose.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (folder / "recipe.toml").write_text(RECIPE)
    return folder / "recipe.toml"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the run small-1, finished."""
    home = tmp_path_factory.mktemp("home")
    done = fireside("train", str(write_recipe(home)), "pretrain.ema_decay=0.9", home=home)
    assert done.returncode == 0, done.stderr
    assert "Talk to it: fireside chat --model small" in done.stdout
    return home


def weights(model: Path) -> dict[str, torch.Tensor]:
    return load_decoder(open_checkpoint(model)).state_dict()


def test_the_model_is_listed_and_answers(home: Path) -> None:
    (entry,) = json.loads(fireside("models", "--json", home=home).stdout)
    assert (entry["name"], entry["format"], entry["context_length"]) == ("small", "safetensors", 64)
    said = fireside("chat", "--model", "small", home=home, stdin="Hello!")
    assert said.returncode == 0, said.stderr
    assert len(said.stdout) > 1  # after eight steps it may say nothing but spaces


def test_transformers_reads_it_and_computes_the_same(home: Path) -> None:
    folder = home / "models" / "small"
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    messages = [{"role": "user", "content": "Hello!"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    torch.testing.assert_close(load_decoder(open_checkpoint(folder))(ids), theirs(ids).logits, rtol=1e-4, atol=1e-4)


def test_what_a_run_leaves(home: Path) -> None:
    run = home / "runs" / "small-1"
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished" and record["environment"]["torch"]
    for stage in ("pretrain", "sft"):
        summary = record["stages"][stage]
        assert {key: summary[key] for key in ENDED} == ENDED
        assert 0 < summary["bits_per_byte"] < 9 and len(summary["data"]) == 64
        assert len(list((run / "checkpoints" / stage).iterdir())) in (2, 3)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step" and line["stage"] == "pretrain"]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert {line["prompt"] for line in lines if line["kind"] == "sample"} == {"Once", "Hello!"}
    assert "| sft | 8 of 8 | 4,096 |" in (run / "report.md").read_text()
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 10 and "nan" not in page


def test_runs_are_listed_and_compared(home: Path) -> None:
    (entry,) = json.loads(fireside("runs", "--json", home=home).stdout)
    assert (entry["name"], entry["status"]) == ("small-1", "finished")
    assert re.search(r"small-1 +finished +pretrain +8 of 8", fireside("runs", home=home).stdout)
    missing = fireside("runs", "other", home=home)
    assert missing.returncode == 1 and "there is no run 'other'" in missing.stderr


def start(home: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fireside.cli.main", *arguments]
    return subprocess.Popen(
        command, cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition: object, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_ends_with_the_same_bits(home: Path, tmp_path: Path, how: signal.Signals) -> None:
    recipe = str(write_recipe(tmp_path))
    stage = "sft" if how is signal.SIGINT else "pretrain"
    process = start(tmp_path, "train", recipe, "pretrain.ema_decay=0.9")
    wait_for((tmp_path / "runs" / "small-1" / "checkpoints" / stage / "step-00000001").is_dir, process)
    process.send_signal(how)
    _, said = process.communicate(timeout=60)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how], said
    if how is not signal.SIGKILL:
        assert "Go on with: fireside train --resume small-1" in said
    (entry,) = json.loads(fireside("runs", "--json", home=tmp_path).stdout)
    assert entry["status"] == "stopped"
    assert not (tmp_path / "models" / "small").exists()
    resumed = fireside("train", "--resume", "small-1", home=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    expected, found = weights(home / "models" / "small"), weights(tmp_path / "models" / "small")
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    lines = [json.loads(line) for line in (tmp_path / "runs" / "small-1" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "step"] == [*range(1, 9), *range(1, 9)]


def test_changed_data_is_refused(home: Path, tmp_path: Path) -> None:
    """In a run like the finished one that is not finished, and beside it: they share the data's path."""
    run, prose = tmp_path / "small-1", home / "prose.jsonl"
    shutil.copytree(home / "runs" / "small-1", run)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "stopped"}))
    before = prose.read_text()
    try:
        prose.write_text(before + json.dumps({"text": "One more text about the sun and the moon."}) + "\n")
        refused = fireside("train", "--resume", str(run), home=home)
    finally:
        prose.write_text(before)
    assert refused.returncode == 1 and "prose.jsonl" in refused.stderr


@pytest.mark.parametrize("lora", [True, False])
def test_fine_tuning_a_model_that_is_here(tmp_path: Path, lora: bool) -> None:
    write_tiny_model(tmp_path / "models" / "base")
    write_recipe(tmp_path)
    options = [
        "sft.epochs=1",
        "sft.batch_tokens=256",
        "sft.packing.sequence_length=128",
        "hardware.threads=1",
        "sft.data.processes=1",
    ]
    done = fireside("finetune", "base", "chats.jsonl", *options, *(["--lora"] if lora else []), home=tmp_path)
    assert done.returncode == 0, done.stderr
    stage = json.loads((tmp_path / "runs" / "base-tuned-1" / "run.json").read_text())["stages"]["sft"]
    rows = stage["packing"]["rows"]  # of which padding is a part: one epoch takes them all
    assert (stage["steps"] - 1) * stage["plan"]["rows"] < rows <= stage["steps"] * stage["plan"]["rows"]
    assert stage["packing"]["padding"] > 0
    listed = {entry["name"] for entry in json.loads(fireside("models", "--json", home=tmp_path).stdout)}
    assert listed == {"base", "base-tuned"}
    before, after = weights(tmp_path / "models" / "base"), weights(tmp_path / "models" / "base-tuned")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert ("model.embed_tokens.weight" in changed) is not lora
    assert "model.layers.0.mlp.up_proj.weight" in changed
    assert (tmp_path / "runs" / "base-tuned-1" / "adapter" / "adapter_model.safetensors").is_file() is lora
    if lora:
        again_over_itself(tmp_path)


def test_an_adapter_is_kept_and_runs_as_a_model(tmp_path: Path) -> None:
    """Of a quantised base, which stays in its blocks while the adapter trains."""
    write_tiny_model(tmp_path / "tiny", "llama3")
    base, tuned = tmp_path / "models" / "base", tmp_path / "models" / "base-tuned"
    base.mkdir(parents=True)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny", dtype=torch.float32)
    write_gguf(model, base / "weights.gguf", "Q8_0", text=tmp_path / "tiny")
    write_recipe(tmp_path)
    tune = ("finetune", "base", "chats.jsonl", "--lora", "sft.tokens=1024", "sft.batch_tokens=256")
    tune += ("sft.packing.sequence_length=128", "sft.lr=0.01", "hardware.threads=1", "sft.data.processes=1")
    for options in (("lora.merge=false",), ("--name", "merged")):
        done = fireside(*tune, *options, home=tmp_path)
        assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in tuned.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "fireside.json",
    ]
    assert json.loads((tuned / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    listed = {entry["name"]: entry for entry in json.loads(fireside("models", "--json", home=tmp_path).stdout)}
    assert (listed["base-tuned"]["format"], listed["base-tuned"]["base"]) == ("adapter", "base")
    expected, before = weights(tmp_path / "models" / "merged"), weights(base)
    for name, found in load_decoder(open_checkpoint(tuned, tmp_path / "models")).state_dict().items():
        torch.testing.assert_close(found, expected[name], rtol=1e-2, atol=1e-3)
        assert torch.allclose(found, before[name], atol=1e-2) is ("_proj" not in name), name
    plain, adapted = (fireside("chat", "--model", name, home=tmp_path, stdin="Hi") for name in ("base", "base-tuned"))
    assert adapted.returncode == 0 and adapted.stdout != plain.stdout, adapted.stderr
    again = fireside("finetune", "base-tuned", "chats.jsonl", "--lora", "lora.merge=false", home=tmp_path)
    assert again.returncode == 2 and "an adapter of an adapter" in again.stderr
    (base / "weights.gguf").rename(tmp_path / "weights.gguf")
    gone = fireside("chat", "--model", "base-tuned", home=tmp_path, stdin="Hi")
    assert gone.returncode == 1 and "an adapter of base, which is not here" in gone.stderr


def again_over_itself(home: Path) -> None:
    """What is finished is not merged again, the base is never replaced, and another base is noticed."""
    model, run = home / "models" / "base-tuned", home / "runs" / "base-tuned-1"
    before = (model / "model.safetensors").stat().st_mtime_ns
    assert fireside("train", "--resume", "base-tuned-1", home=home).returncode == 0
    assert (model / "model.safetensors").stat().st_mtime_ns == before
    refused = fireside("finetune", "base-tuned", "chats.jsonl", "--name", "base-tuned", home=home)
    assert refused.returncode == 1 and "would replace its own base" in refused.stderr
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"status": "stopped"}))
    write_tiny_model(home / "models" / "base")
    refused = fireside("train", "--resume", "base-tuned-1", home=home)
    assert refused.returncode == 1 and "base_weights was" in refused.stderr


def test_errors_have_codes_of_their_own(tmp_path: Path) -> None:
    recipe = str(write_recipe(tmp_path))
    write_tiny_model(tmp_path / "models" / "base")
    for arguments, code, message in (
        ((), 2, "name a recipe"),
        ((recipe, "model.dpeth=3"), 2, "did you mean depth?"),
        (("nothing.toml",), 2, "cannot be read"),
        (("--resume", "nothing"), 1, "there is no run"),
        ((recipe, "model.hidden_size=65536"), 4, "would take about"),
        ((recipe, "name=base"), 1, "a model 'base' is there already, and was not trained here"),
        ((recipe, "sft.data.sources.0.path=none.jsonl"), 1, "none.jsonl"),
        (("--resume", "small-1"), 1, "there is no run"),  # none of these left one
        ((recipe, "training.lr=1e30", "training.clip_norm=1e30"), 3, "is not a finite number"),
    ):
        done = fireside("train", *arguments, home=tmp_path)
        assert done.returncode == code and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr


def test_two_processes_train_what_one_does(home: Path, tmp_path: Path) -> None:
    """Which of them reads which rows changes no loss but by rounding."""
    recipe = str(write_recipe(tmp_path))
    done = fireside("train", recipe, "pretrain.ema_decay=0.9", "hardware.devices=2", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["small-1"]
    losses = []
    for folder in (home, tmp_path):
        lines = (folder / "runs" / "small-1" / "log.jsonl").read_text().splitlines()
        steps = [line for line in map(json.loads, lines) if line["kind"] == "step"]
        losses.append([line["loss"] for line in steps])
    assert len(losses[0]) == 16 and losses[1] == pytest.approx(losses[0], rel=1e-3)
