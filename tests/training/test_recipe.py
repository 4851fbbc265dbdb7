"""Recipes: what they say, and what is said of those that are wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from fireside.errors import OutOfMemoryError, RecipeError
from fireside.models.local import resolve_model
from fireside.settings import Settings
from fireside.training import checks, memory
from fireside.training.checks import check_recipe, pin_datasets
from fireside.training.finetuning import finetuning_recipe
from fireside.training.memory import check_memory, estimate_memory
from fireside.training.recipe import LoraConfig, ModelShape, Recipe
from fireside.training.recipe_file import differences, load_recipe, parse_recipe, recipe_to_json
from fireside.training.scaling import model_config, parameter_count, plan_stage, weights_in_products
from tests.engine.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
SMALL = """
name = "small"
[tokenizer]
vocab_size = 512
[model]
depth = 2
[training]
lr = 1e-3
[pretrain.data]
sources = [{name = "text", path = "text.jsonl"}]
[sft]
lr = 5e-4
[sft.data]
sources = [{name = "chats", path = "/data/chats.jsonl"}]
"""


def load(tmp_path: Path, *overrides: str, text: str = SMALL) -> Recipe:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return load_recipe(path, overrides)


def test_stages_share_what_training_says(tmp_path: Path) -> None:
    recipe = load(tmp_path, "training.weight_decay=0.01", "model.depth=3", "pretrain.data.sources.0.weight=2")
    assert recipe.pretrain is not None and recipe.sft is not None and recipe.model is not None
    assert (recipe.pretrain.lr, recipe.sft.lr) == (1e-3, 5e-4)
    assert recipe.sft.weight_decay == recipe.pretrain.weight_decay == 0.01
    assert recipe.model.depth == 3
    assert recipe.pretrain.data.sources[0].weight == 2
    assert recipe.pretrain.data.sources[0].path == str(tmp_path / "text.jsonl")
    assert recipe.sft.data.sources[0].path == "/data/chats.jsonl"


def test_paths_of_data_begin_in_the_recipes_folder(tmp_path: Path) -> None:
    more = '[sft.data.cleaning]\ndecontaminate = ["eval/*.jsonl", "/e.jsonl"]\nclassifier = {path = "c.safetensors"}\n'
    recipe = load(tmp_path, "pretrain.data.sources.0.path=hf:someone/texts", text=SMALL + more)
    assert recipe.sft is not None and recipe.pretrain is not None
    assert recipe.sft.data.cleaning.decontaminate == (str(tmp_path / "eval/*.jsonl"), "/e.jsonl")
    assert recipe.sft.data.cleaning.classifier is not None
    assert recipe.sft.data.cleaning.classifier.path == tmp_path / "c.safetensors"
    assert recipe.pretrain.data.sources[0].path == "hf:someone/texts"


def test_a_later_budget_replaces_the_other(tmp_path: Path) -> None:
    recipe = load(tmp_path, "training.epochs=2", "sft.tokens=1000")
    assert recipe.sft is not None and recipe.pretrain is not None
    assert (recipe.sft.tokens, recipe.sft.epochs, recipe.pretrain.epochs) == (1000, None, 2)


def test_none_can_be_said(tmp_path: Path) -> None:
    recipe = load(tmp_path, "training.clip_norm=none", "sft.ema_decay=none")
    assert recipe.sft is not None and recipe.sft.clip_norm is None and recipe.sft.ema_decay is None


def test_a_saved_recipe_is_the_same_again(tmp_path: Path) -> None:
    import json

    recipe = load(tmp_path)
    assert parse_recipe(json.loads(recipe_to_json(recipe)), "saved") == recipe
    changed = load(tmp_path, "sft.lr=1e-4").model_dump(mode="json")
    assert differences(recipe.model_dump(mode="json"), changed) == ["sft.lr was 0.0005 and is 0.0001"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lrr=1", r"recipe.toml: training.lrr is not a key of a recipe; did you mean lr\?"),
        ("pretrain.learning=1", r"pretrain.learning is not a key"),
        ("model.dept=1", r"model.dept is not a key of a recipe; did you mean depth\?"),
        ("modle.depth=1", r"modle is not a key of a recipe; did you mean model\?"),
        ("sft.data.sources.0.pth=x", r"sources.0.pth is not a key of a recipe; did you mean path\?"),
        ("training.lr=-1", r"lr: Input should be greater than 0, not -1"),
        ("training.schedule=sgdr", r"schedule: Input should be 'wsd', 'cosine' or 'linear', not 'sgdr'"),
        ("sft.data.sources.3.path=x", r"3 is not the number of one of 1 entries"),
        ("training.lr", r"'training.lr' is not an override: write key=value"),
        ("model=7", r"model: Input should be a valid dictionary"),
        ("base=smollm2", r"a base model brings its shape and tokenizer"),
        ("name=../x", r"name: String should match"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load(tmp_path, override)


def test_an_override_that_nothing_would_heed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"'training.lr=3' has no effect: every stage sets lr itself"):
        load(tmp_path, "pretrain.lr=1", "training.lr=3")


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not valid TOML"):
        load(tmp_path, text="name = ")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path / "nothing.toml")
    with pytest.raises(RecipeError, match="there is no stage"):
        load(tmp_path, text='name = "x"\nbase = "y"')


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_that_come_along_are_valid(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    for stage in recipe.stages.values():
        for source in stage.data.sources:
            assert source.path.startswith("hf:") or Path(source.path).parent.is_dir()


def test_every_key_is_described() -> None:
    seen: set[type[BaseModel]] = set()

    def check(model: type[BaseModel]) -> None:
        if model in seen:
            return
        seen.add(model)
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    check(part)

    check(Recipe)
    assert len(seen) > 10


def test_the_dial() -> None:
    config = model_config(ModelShape(depth=12), vocab_size=32768, longest_row=1024)
    assert (config.hidden_size, config.num_attention_heads, config.intermediate_size) == (768, 12, 2048)
    assert weights_in_products(config) == 12 * (4 * 768**2 + 3 * 768 * 2048) + 768 * 32768
    assert parameter_count(config) == weights_in_products(config) + 25 * 768  # the norms
    narrow = model_config(ModelShape(depth=12, hidden_size=256), vocab_size=512, longest_row=64)
    assert (narrow.hidden_size, narrow.num_attention_heads, narrow.intermediate_size) == (256, 4, 704)


def test_a_plan_by_rule_and_by_hand(tmp_path: Path) -> None:
    recipe = load(tmp_path, "pretrain.packing.sequence_length=128", "pretrain.batch_tokens=1000")
    stage, shape = recipe.pretrain, recipe.model
    assert stage is not None and shape is not None
    config = model_config(shape, vocab_size=512, longest_row=128)
    plan = plan_stage(stage, config, is_fine_tuning=False, is_lora=False, tokens_per_epoch=5000, devices=1)
    assert (plan.rows, plan.lr) == (8, 1e-3)
    assert plan.steps == -(-20 * weights_in_products(config) // (8 * 128))
    two = plan_stage(stage, config, is_fine_tuning=False, is_lora=False, tokens_per_epoch=5000, devices=3)
    assert replace(two, micro_rows=plan.micro_rows) == plan and two.micro_rows == 3
    with pytest.raises(RecipeError, match="8 rows of 128 tokens to a step, and there are 9 devices"):
        plan_stage(stage, config, is_fine_tuning=False, is_lora=False, tokens_per_epoch=5000, devices=9)
    tuned = plan_stage(recipe.sft, config, is_fine_tuning=True, is_lora=True, tokens_per_epoch=50_000, devices=1)  # type: ignore[arg-type]
    assert tuned.steps == -(-3 * 50_000 // tuned.tokens_per_step)


def test_a_few_conversations_are_tuned_on_in_steps_enough(tmp_path: Path) -> None:
    recipe = load(tmp_path, "sft.packing.sequence_length=128")
    assert recipe.sft is not None and recipe.model is not None
    config = model_config(recipe.model, vocab_size=512, longest_row=128)
    stage = recipe.sft.model_copy(update={"tokens": None, "epochs": None, "batch_tokens": None})

    def plan(tokens_per_epoch: int, **changes: object) -> tuple[int, int]:
        changed = stage.model_copy(update=changes)
        made = plan_stage(
            changed, config, is_fine_tuning=True, is_lora=True, tokens_per_epoch=tokens_per_epoch, devices=1
        )
        return made.steps, made.rows

    assert plan(10 * 128) == (60, 1)  # six passes over them
    assert plan(100 * 128) == (60, 5)
    assert plan(10_000 * 128) == (-(-30_000 // 64), 64)
    assert plan(10 * 128, epochs=3.0) == (30, 1)  # who asks for epochs gets them
    assert plan(10 * 128, batch_tokens=1024) == (60, 8)


def test_what_cannot_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    recipe = load(tmp_path)
    assert recipe.pretrain is not None
    config = model_config(ModelShape(depth=48), vocab_size=32768, longest_row=1024)
    plan = plan_stage(recipe.pretrain, config, is_fine_tuning=False, is_lora=False, tokens_per_epoch=1, devices=1)
    whole = estimate_memory(config, recipe.pretrain, plan, lora=None, is_bf16=False, shards=1)
    assert whole.optimizer == 8 * parameter_count(config)
    adapted = estimate_memory(config, recipe.pretrain, plan, lora=LoraConfig(), is_bf16=False, shards=1)
    assert adapted.optimizer < whole.optimizer / 20
    kept = estimate_memory(
        config, recipe.pretrain, plan, lora=LoraConfig(), is_bf16=False, shards=1, quantized_bytes=10**9
    )
    assert 10**9 < kept.weights < adapted.weights / 5
    assert replace(kept, weights=adapted.weights) == adapted
    monkeypatch.setattr(memory, "available_memory", lambda: whole.total - 1)
    with pytest.raises(OutOfMemoryError, match=r"stage pretrain would take about \d+\.\d GB \(weights .*: lower micro"):
        check_memory("pretrain", whole, torch.device("cpu"), processes=1)
    monkeypatch.setattr(memory, "available_memory", lambda: whole.total)
    check_memory("pretrain", whole, torch.device("cpu"), processes=1)
    with pytest.raises(OutOfMemoryError, match="free for each"):
        check_memory("pretrain", whole, torch.device("cpu"), processes=2)


def test_what_one_stage_holds_out_no_other_trains_on(tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text('{"text": "One."}\n')
    settings = Settings(home=tmp_path / "home")
    same = ("sft.data.sources.0.path=text.jsonl", "sft.data.validation_fraction=0.05")
    with pytest.raises(RecipeError, match=r"text.jsonl is split otherwise in sft than in pretrain, so that"):
        check_recipe(load(tmp_path, *same), settings)
    check_recipe(load(tmp_path, *same, "pretrain.data.validation_fraction=0.05"), settings)


def test_datasets_of_the_hub_are_one_commit_for_all_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = iter("ab")
    monkeypatch.setattr(checks, "resolved", lambda source: source.model_copy(update={"revision": next(commits) * 40}))
    recipe = pin_datasets(load(tmp_path, "sft.data.sources.0.path=hf:someone/chats"))
    assert recipe.pretrain is not None and recipe.sft is not None
    assert recipe.sft.data.sources[0].revision == "b" * 40
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


@pytest.mark.parametrize("lora", [True, False])
def test_recipes_of_fine_tuning_are_what_the_command_runs(tmp_path: Path, lora: bool) -> None:
    write_tiny_model(tmp_path / "models" / "smollm2-135m")
    base = resolve_model("smollm2-135m", Settings(home=tmp_path))
    (tmp_path / "chats.jsonl").touch()
    command = finetuning_recipe(base, tmp_path / "chats.jsonl", lora=lora).model_dump()
    name = "finetune-lora" if lora else "finetune"
    path = f"sft.data.sources.0.path={tmp_path / 'chats.jsonl'}"
    recipe = load_recipe(ROOT / "recipes" / f"{name}.toml", [path, "sft.packing.sequence_length=512"]).model_dump()
    for said in (command, recipe):
        said.pop("name"), said.pop("base")
    assert command == recipe


def test_few_conversations_are_enough_for_several_devices(tmp_path: Path) -> None:
    recipe = load(tmp_path)
    assert recipe.sft is not None
    config = model_config(ModelShape(depth=2), vocab_size=512, longest_row=1024)
    few = {"is_fine_tuning": True, "is_lora": True, "tokens_per_epoch": 500, "devices": 2}
    assert plan_stage(recipe.sft, config, **few).rows == 1  # type: ignore[arg-type]
    asked = recipe.sft.model_copy(update={"batch_tokens": 512})
    with pytest.raises(RecipeError, match="there are 2 devices: raise it"):
        plan_stage(asked, config, **few)  # type: ignore[arg-type]
